r"""The EquiVAE of Feige (2019): an invariant code of the class, an equivariant one of the point.

.. math:: p(x, v, r, y) = p(y) \, \delta(r - r_y) \, N(v; 0, I) \, p(x | r, v), \qquad
          r_y = \frac{1}{m} \sum_{i=1}^m f_\mathrm{inv}(x_i) \qquad \text{(eq. 1, 2)}

The `m` points :math:`x_i` are labelled ones of class `y` other than `x`. They are arguments of the
process, and like the paper it is written as if points were drawn independently given them.

Model and guide need the same :math:`r_y`. Both are programs of the sets, and each can be run on
its own; whoever runs both on one batch encodes its sets first, with :meth:`EquiVAE.encoded`, and
gives both programs the `Codes` in the place of the sets. Programs that are given sets encode them
each for itself: the same codes in evaluation, and in training codes under another dropout, which
leaves the objective a bound and costs the time. A guide of one's own finds the `Codes` there too.
Sets of one step may share members, a `Pool`, of which each is encoded once; `SetEncoder` takes all
three.

============================ ==========================================
paper                        here
============================ ==========================================
:math:`f_\mathrm{inv}`       ``invariant``
:math:`D^y_\mathrm{lab}`     ``sets``
:math:`r_y`                  the site ``r``, `Codes` where it is given
============================ ==========================================

Differs from the paper: its appendix with the networks is missing, and ours are convolutions of
ordinary capacity (`pyro_latents.stories.equivae.networks`).

References:
    Invariant-Equivariant Representation Learning for Multi-Class Data (Feige, 2019),
    https://arxiv.org/abs/1902.03251
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions import Categorical, Normal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood
from pyro_latents.nets.sets import Codes, Pool, SetEncoder, Sets, mean_codes
from pyro_latents.programs import evaluation_mode

ROWS = 1_000  # points that class means are computed of at a time


class EquiVAE(PyroModule):
    """A class with its code, and a standard normal code of the point within it.

    Args:
        invariant: The set encoder.
        decoder: Maps `*leading r_dim+v_dim` to the parameters of the likelihood.
        v_dim: Size of the equivariant code.
        class_weights: Relative frequencies of the classes, of shape `classes`.
        likelihood: `p(x | decoder(r, v))`; Bernoulli pixels if not given.

    Example:
        >>> from pyro_latents.nets.mlp import DenseDecoder
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> sets, decoder = SetEncoder(network, 3, num_classes=4), DenseDecoder(3 + 2, (1, 8, 8))
        >>> EquiVAE(sets, decoder, v_dim=2, class_weights=torch.full((4,), 0.25))(size=5).shape
        torch.Size([5, 1, 8, 8])
    """

    # Which of the arguments are sets.
    sets_at: ClassVar[tuple[int, ...]] = (2,)
    class_weights: Tensor
    _zero: Tensor

    def __init__(
        self,
        invariant: SetEncoder,
        decoder: nn.Module,
        *,
        v_dim: int,
        class_weights: Tensor,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__()
        self.invariant = invariant
        self.decoder = decoder
        self.v_dim = v_dim
        self.likelihood = likelihood or Bernoulli()
        self.register_buffer("class_weights", class_weights / class_weights.sum())
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_weights)

    @property
    def class_means(self) -> Tensor:
        """The codes of the classes where no sets are given, of shape `classes r_dim`."""
        return self.invariant.class_means

    def forward(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        sets: Sets | None = None,
        *,
        size: int = 1,
    ) -> Tensor:
        """Run the generative process.

        Args:
            x: Observations, of shape `batch *x_shape`; without them the process draws its own.
            y: Their classes, integers of shape `batch`; without them they are latent.
            sets: With `y`, one complementary set a point, `batch m *x_shape`; without, one a
                class, `classes m *x_shape`; or such sets as a `Pool`. By default the class means
                are the codes.
            size: The number of draws when neither `x` nor `y` is given.

        Returns:
            The observed or drawn `x`.
        """
        return self.process(x, y, sets, size=size)

    def process(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        sets: Sets | None = None,
        *,
        size: int = 1,
        part: str = "",
    ) -> Tensor:
        """Run the generative process with `part` at the end of the name of each site."""
        self._check(x, y, sets)
        codes = self.invariant(sets)
        # One code a point, or one a class that `y` picks from, enumerated or not.
        picked = y is None or sets is None
        known = y if x is None else x
        with pyro.plate(f"data{part}", size if known is None else len(known), dim=-1):
            y = pyro.sample(f"y{part}", Categorical(logits=self.class_weights.log()), obs=y)
            r = codes[y] if picked else codes
            r = pyro.deterministic(f"r{part}", r, event_dim=1)  # eq. 2
            prior = Normal(self._zero, 1.0).expand([self.v_dim]).to_event(1)
            v = pyro.sample(f"v{part}", prior)
            return pyro.sample(f"x{part}", self.likelihood(self.decoder(joined(r, v))), obs=x)

    def encoded(self, *batch: Any) -> tuple[Any, ...]:
        """Return the arguments of :meth:`forward` with `Codes` in the place of their sets.

        Pools of the same members are encoded together.
        """
        known: dict[int, Tensor] = {}

        def codes(sets: Sets) -> Codes:
            if not isinstance(sets, Pool):
                return Codes(self.invariant(sets))
            if id(sets.members) not in known:
                known[id(sets.members)] = self.invariant.embed(sets.members)
            return Codes(mean_codes(known[id(sets.members)], sets))

        return tuple(
            codes(given) if i in self.sets_at and given is not None else given
            for i, given in enumerate(batch)
        )

    @torch.no_grad()
    def refresh_class_means(self, x: Tensor, y: Tensor) -> None:
        """Set ``class_means`` to the means of `f_inv` over labelled points.

        Args:
            x: The labelled points, of shape `n *x_shape`.
            y: Their classes, of shape `n`.
        """
        # Sums of half precision would not see the last points.
        codes = self.embed(x)
        codes = codes.to(torch.promote_types(codes.dtype, torch.float32))
        y = y.to(codes.device)
        sums = codes.new_zeros(self.class_means.shape).index_add_(0, y, codes)
        counts = torch.bincount(y, minlength=self.num_classes).clamp_min(1)
        self.class_means.copy_(sums / counts[:, None])

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Return `f_inv(x)` of points, `n r_dim`, without dropout and without a gradient."""
        with evaluation_mode(self.invariant):
            parts = x.split(ROWS)
            return torch.cat([self.invariant.embed(part.to(self.class_means)) for part in parts])

    def _check(self, x: Tensor | None, y: Tensor | None, sets: Sets | None) -> None:
        if y is not None and x is not None and len(y) != len(x):
            raise ValueError(f"EquiVAE expects one y for each of the {len(x)} x; got {len(y)}.")
        expected = self.num_classes if y is None else len(y)
        if sets is None:
            return
        count = len(sets.shares if isinstance(sets, Pool) else sets)
        if count != expected:
            raise ValueError(
                f"EquiVAE expects {expected} sets, "
                f"{'one a class without y' if y is None else 'one for each y'}; got {count}."
            )


class SemiSupervisedEquiVAE(EquiVAE):
    """An EquiVAE of unlabelled and labelled points together, those of equation (7).

    Unlabelled points have the sites ``y``, ``r``, ``v`` and ``x``; labelled ones have
    ``y_labelled``, ``r_labelled``, ``v_labelled`` and ``x_labelled``, in a plate of their own.
    The arguments are those of `EquiVAE`.
    """

    sets_at = (1, 4)

    def forward(  # type: ignore[override]
        self,
        x: Tensor | None = None,
        class_sets: Sets | None = None,
        x_labelled: Tensor | None = None,
        y_labelled: Tensor | None = None,
        sets: Sets | None = None,
        *,
        size: int = 1,
    ) -> Tensor:
        """Run the generative process of both kinds of points.

        Args:
            x: Unlabelled observations, of shape `batch *x_shape`; without them the process draws
                its own.
            class_sets: One set a class, `classes m *x_shape` or a `Pool`; by default the class
                means are used.
            x_labelled: Labelled observations, of shape `labelled *x_shape`, or None.
            y_labelled: Their classes, integers of shape `labelled`.
            sets: Their complementary sets, of shape `labelled m *x_shape` or a `Pool`.
            size: The number of draws when nothing is observed.

        Returns:
            The observed or drawn unlabelled `x`.
        """
        if x_labelled is not None:
            self.labelled(x, class_sets, x_labelled, y_labelled, sets)
        return self.process(x, None, class_sets, size=size)

    def labelled(self, x: Any, class_sets: Any, *of_labelled: Any) -> Tensor:
        """Run the process of the labelled points alone; the arguments are those of both kinds."""
        return self.process(*of_labelled, part="_labelled")


def joined(a: Tensor, b: Tensor) -> Tensor:
    """Concatenate along the last dimension, after broadcasting all others."""
    leading = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    return torch.cat([a.expand(*leading, -1), b.expand(*leading, -1)], dim=-1)
