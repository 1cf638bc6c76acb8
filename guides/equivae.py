r"""Guides of the EquiVAE, for labelled points and for unlabelled ones.

.. math:: q(v, y | x) = q(v | r_y, x) \, q(y | x)                         \qquad \text{(eq. 3, 5)}

With a label only the first factor is there. Without one, `y` is a site that `TraceEnum_ELBO` sums
over exactly: it has one value for each class in a dimension of its own.
"""

from __future__ import annotations

from typing import Any

import pyro
from pyro.distributions import Categorical
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.guides.families import Family
from pyro_latents.nets.precision import in_single
from pyro_latents.nets.sets import SetEncoder, Sets
from pyro_latents.programs import centre


class EquiVAEGuide(PyroModule):
    r"""`q(v | r, x)`, and `q(y | x)` for points without a label.

    Args:
        invariant: The set encoder, the model's own, with its class means.
        encoder: Maps images and codes `r` to features, as `EquivariantEncoder` does.
        v: The family of the equivariant code.
        classifier: Maps images to logits of `q(y | x)`. Without one, `q(y | x)` is the paper's
            rule without parameters, :math:`\propto \exp(-\|f_\mathrm{inv}(x) - r_y\|^2)`.
        shared: Whether the classifier maps ``encoder.image_features(x)`` instead of images.
    """

    def __init__(
        self,
        invariant: SetEncoder,
        encoder: nn.Module,
        v: Family,
        classifier: nn.Module | None = None,
        *,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.invariant = invariant
        self.encoder: Any = encoder
        self.v = v
        self.classifier = classifier
        self.shared = shared

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        sets: Sets | None = None,
        *,
        size: int = 1,
    ) -> dict[str, Tensor]:
        """Draw the latent sites; the arguments are the model's."""
        return self.infer(x, y, sets)

    def posterior(
        self, x: Tensor, y: Tensor | None = None, sets: Sets | None = None
    ) -> dict[str, TorchDistributionMixin]:
        """Return the distribution of each latent site; that of `v` is at the likeliest class."""
        codes = self.invariant(sets)
        if y is not None:
            return {"v": self.v_posterior(x, codes[y] if sets is None else codes)}
        q_y = self.label_posterior(x, codes)
        return {"y": q_y, "v": self.v_posterior(x, codes[centre(q_y)])}

    def infer(
        self,
        x: Tensor,
        y: Tensor | None = None,
        sets: Sets | None = None,
        *,
        part: str = "",
    ) -> dict[str, Tensor]:
        """Draw the latent sites of points of one kind; the arguments are `EquiVAE.process`'s."""
        codes, drawn = self.invariant(sets), {}
        picked = y is None or sets is None
        with pyro.plate(f"data{part}", len(x), dim=-1):
            if y is None:
                q_y = self.label_posterior(x, codes)
                y = pyro.sample(f"y{part}", q_y, infer={"enumerate": "parallel"})
                drawn[f"y{part}"] = y
            q_v = self.v_posterior(x, codes[y] if picked else codes)
            return {**drawn, f"v{part}": pyro.sample(f"v{part}", q_v)}

    def v_posterior(self, x: Tensor, r: Tensor) -> TorchDistributionMixin:
        """Return `q(v | r, x)`, of batch shape `*leading`.

        Args:
            x: Of shape `batch *x_shape`.
            r: Of shape `*leading r_dim`, the last leading dimension the batch or broadcast to it.
        """
        return self.v(self.encoder(x, r))

    def label_posterior(self, x: Tensor, codes: Tensor | None = None) -> Categorical:
        """Return `q(y | x)`, of batch shape `batch`.

        Args:
            x: Of shape `batch *x_shape`.
            codes: Of the classes, `classes r_dim`, for the rule by distances; the class means by
                default.
        """
        return Categorical(logits=self.label_logits(x, codes))

    def label_logits(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return the logits of `q(y | x)`, of shape `batch classes`; see `label_posterior`."""
        if self.classifier is not None:
            return in_single(self.classifier(self.encoder.image_features(x) if self.shared else x))
        codes = self.invariant.class_means if codes is None else codes
        return -(in_single(self.invariant.embed(x))[..., None, :] - codes).square().sum(-1)


class SemiSupervisedGuide(EquiVAEGuide):
    """The guide of unlabelled and labelled points together; the arguments are the parent's."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        class_sets: Sets | None = None,
        x_labelled: Tensor | None = None,
        y_labelled: Tensor | None = None,
        sets: Sets | None = None,
        *,
        size: int = 1,
    ) -> dict[str, Tensor]:
        """Draw the latent sites of both kinds of points; the arguments are the model's."""
        drawn = {}
        if x_labelled is not None:
            drawn = self.labelled(x, class_sets, x_labelled, y_labelled, sets)
        return drawn | self.infer(x, None, class_sets)

    def posterior(  # type: ignore[override]
        self,
        x: Tensor,
        class_sets: Sets | None = None,
        x_labelled: Tensor | None = None,
        y_labelled: Tensor | None = None,
        sets: Sets | None = None,
    ) -> dict[str, TorchDistributionMixin]:
        """Return the distribution of each latent site of both kinds of points."""
        found = super().posterior(x, None, class_sets)
        if x_labelled is not None:
            found["v_labelled"] = super().posterior(x_labelled, y_labelled, sets)["v"]
        return found

    def labelled(self, x: Any, class_sets: Any, *of_labelled: Any) -> dict[str, Tensor]:
        """Draw the sites of the labelled points alone; the arguments are those of both kinds."""
        return self.infer(*of_labelled, part="_labelled")

    def classify(
        self,
        x: Tensor,
        class_sets: Sets | None = None,
        x_labelled: Tensor | None = None,
        y_labelled: Tensor | None = None,
        sets: Sets | None = None,
    ) -> None:
        """Observe the known labels under `q(y | x)`, at the site ``y_aux``.

        It is no part of the guide, but what an objective may add: without `log q(y | x)` of the
        labelled points, `q(y | x)` may predict one label for all (section 2.3).
        """
        if x_labelled is not None:
            q_y = self.label_posterior(x_labelled, self.invariant(class_sets))
            with pyro.plate("data_aux", len(x_labelled), dim=-1):
                pyro.sample("y_aux", q_y, obs=y_labelled)
