r"""The EquiVAE of Feige (2019): an invariant code of the class, an equivariant one of the point.

.. math:: p(x, v, r, y) = p(y) \, \delta(r - r_y) \, N(v; 0, I) \, p(x | r, v), \qquad
          r_y = \frac{1}{m} \sum_{i=1}^m f_\mathrm{inv}(x_i)                  \qquad (eq. 1, 2)

The `m` points :math:`x_i` are labelled ones of class `y` other than `x`. They are arguments of the
process, and like the paper it is written as if points were drawn independently given them.

Names: :math:`f_\mathrm{inv}` -> ``invariant``, :math:`D^y_\mathrm{lab}` -> ``sets``.

References:
    Invariant-Equivariant Representation Learning for Multi-Class Data (Feige, 2019),
    https://arxiv.org/abs/1902.03251
"""

import pyro
import torch
from pyro import poutine
from pyro.distributions import Categorical, Normal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood
from pyro_latents.nets.feige import joined
from pyro_latents.nets.sets import SetEncoder

ROWS = 1_000  # points that class means are computed of at a time


class EquiVAE(PyroModule):
    """A class with its code, and a standard normal code of the point within it.

    Where no sets are given, the code of a class is the mean of `f_inv` over its labelled points:
    the buffer ``class_means``, zero until :meth:`refresh_class_means` has been called.

    Args:
        invariant: The set encoder.
        decoder: Maps `*leading r_dim+v_dim` to the parameters of the likelihood.
        v_dim: Size of the equivariant code.
        class_weights: Relative frequencies of the classes, of shape `classes`.
        likelihood: `p(x | decoder(r, v))`; Bernoulli pixels if not given.

    Example:
        >>> from pyro_latents.nets.mlp import DenseDecoder
        >>> sets = SetEncoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), r_dim=3)
        >>> decoder = DenseDecoder(3 + 2, (1, 8, 8))
        >>> EquiVAE(sets, decoder, v_dim=2, class_weights=torch.full((4,), 0.25))(size=5).shape
        torch.Size([5, 1, 8, 8])
    """

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
        self.register_buffer("class_means", torch.zeros(len(class_weights), invariant.r_dim))
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_weights)

    def forward(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        sets: Tensor | None = None,
        *,
        size: int = 1,
    ) -> Tensor:
        """Run the generative process.

        Args:
            x: Observations, of shape `batch *x_shape`; without them the process draws its own.
            y: Their classes, integers of shape `batch`; without them they are latent.
            sets: With `y`, one complementary set a point, `batch m *x_shape`; without, one a
                class, `classes m *x_shape`. By default the class means are the codes.
            size: The number of draws when neither `x` nor `y` is given.

        Returns:
            The observed or drawn `x`.
        """
        return self.process(x, y, sets, size=size)

    def process(
        self, x: Tensor | None, y: Tensor | None, sets: Tensor | None, *, size: int, part: str = ""
    ) -> Tensor:
        """Run the generative process with `part` at the end of the name of each site."""
        self._check(x, y, sets)
        codes = self.class_means if sets is None else self.invariant(sets)
        # One code a point, or one a class that `y` picks from, enumerated or not.
        picked = y is None or sets is None
        known = y if x is None else x
        size = size if known is None else len(known)
        with pyro.plate(f"data{part}", size, dim=-1):
            y = pyro.sample(f"y{part}", Categorical(self.class_weights), obs=y)
            r = codes[y] if picked else codes
            r = pyro.deterministic(f"r{part}", r, event_dim=1)  # eq. 2
            prior = Normal(self._zero, 1.0).expand([self.v_dim]).to_event(1)
            v = pyro.sample(f"v{part}", prior)
            return pyro.sample(f"x{part}", self.likelihood(self.decoder(joined(r, v))), obs=x)

    @torch.no_grad()
    def refresh_class_means(self, x: Tensor, y: Tensor) -> None:
        """Set ``class_means`` to the means of `f_inv` over labelled points.

        Args:
            x: The labelled points, of shape `n *x_shape`.
            y: Their classes, of shape `n`.
        """
        codes = self.embed(x.to(self.class_means.device))
        y = y.to(codes.device)
        sums = torch.zeros_like(self.class_means).index_add_(0, y, codes.to(self.class_means))
        counts = torch.bincount(y, minlength=self.num_classes).clamp_min(1)
        self.class_means.copy_(sums / counts[:, None])

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Return `f_inv(x)` of points, `n r_dim`, without dropout and without a gradient."""
        training = self.invariant.training
        self.invariant.eval()
        try:
            return torch.cat([self.invariant.embed(part) for part in x.split(ROWS)])
        finally:
            self.invariant.train(training)

    def _check(self, x: Tensor | None, y: Tensor | None, sets: Tensor | None) -> None:
        if y is not None and x is not None and len(y) != len(x):
            raise ValueError(f"EquiVAE expects one y for each of the {len(x)} x; got {len(y)}.")
        if sets is None:
            return
        expected = self.num_classes if y is None else len(y)
        if len(sets) != expected:
            raise ValueError(
                f"EquiVAE expects {expected} sets, "
                f"{'one a class without y' if y is None else 'one for each y'}; got {len(sets)}."
            )


class SemiSupervisedEquiVAE(EquiVAE):
    """An EquiVAE of unlabelled and labelled points together: equation (7).

    Unlabelled points have the sites ``y``, ``r``, ``v`` and ``x``; labelled ones have
    ``y_labelled``, ``r_labelled``, ``v_labelled`` and ``x_labelled``, in a plate of their own.

    Args:
        invariant: The set encoder.
        decoder: Maps `*leading r_dim+v_dim` to the parameters of the likelihood.
        v_dim: Size of the equivariant code.
        class_weights: Relative frequencies of the classes, of shape `classes`.
        likelihood: `p(x | decoder(r, v))`; Bernoulli pixels if not given.
        labelled_weight: What the terms of labelled points are multiplied by.
    """

    def __init__(
        self,
        invariant: SetEncoder,
        decoder: nn.Module,
        *,
        v_dim: int,
        class_weights: Tensor,
        likelihood: Likelihood | None = None,
        labelled_weight: float = 1.0,
    ) -> None:
        super().__init__(
            invariant, decoder, v_dim=v_dim, class_weights=class_weights, likelihood=likelihood
        )
        self.labelled_weight = labelled_weight
        # What the terms of unlabelled points are multiplied by; a trainer raises it from 0 to 1.
        self.unlabelled_weight = 1.0

    def forward(
        self,
        x: Tensor | None = None,
        class_sets: Tensor | None = None,
        x_labelled: Tensor | None = None,
        y_labelled: Tensor | None = None,
        sets: Tensor | None = None,
        *,
        size: int = 1,
    ) -> Tensor:
        """Run the generative process of both kinds of points.

        Args:
            x: Unlabelled observations, of shape `batch *x_shape`; without them the process draws
                its own.
            class_sets: One set a class, `classes m *x_shape`; by default the class means are used.
            x_labelled: Labelled observations, of shape `labelled *x_shape`, or None.
            y_labelled: Their classes, integers of shape `labelled`.
            sets: Their complementary sets, of shape `labelled m *x_shape`.
            size: The number of draws when nothing is observed.

        Returns:
            The observed or drawn unlabelled `x`.
        """
        if x_labelled is not None:
            with poutine.scale(scale=self.labelled_weight):
                self.process(x_labelled, y_labelled, sets, size=size, part="_labelled")
        # A weight of zero is no scale for Pyro, and nothing need be computed.
        if x is not None and not self.unlabelled_weight:
            return x
        with poutine.scale(scale=self.unlabelled_weight or 1.0):
            return self.process(x, None, class_sets, size=size)
