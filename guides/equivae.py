r"""Guides of the EquiVAE, for labelled points and for unlabelled ones.

.. math:: q(v, y | x) = q(v | r_y, x) \, q(y | x)                         \qquad (eq. 3, 5)

With a label only the first factor is there. Without one, `y` is a site that `TraceEnum_ELBO` sums
over exactly: it has one value for each class in a dimension of its own.
"""

from __future__ import annotations

import pyro
import torch
from pyro import poutine
from pyro.distributions import Categorical, Distribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.guides.families import Family
from pyro_latents.models.equivae import EquiVAE, SemiSupervisedEquiVAE


class EquiVAEGuide(PyroModule):
    r"""`q(v | r, x)`, and `q(y | x)` for points without a label.

    Args:
        encoder: Maps images and codes `r` to features, as `EquivariantEncoder` does.
        v: The family of the equivariant code.
        model: The model, for its set encoder and its class means. It is no part of this guide's
            state.
        classifier: Maps images to logits of `q(y | x)`. Without one, `q(y | x)` is the paper's
            rule without parameters, :math:`\propto \exp(-\|f_\mathrm{inv}(x) - r_y\|^2)`.
        shared: Whether the classifier maps ``encoder.image_features(x)`` instead of images.
    """

    def __init__(
        self,
        encoder: nn.Module,
        v: Family,
        model: EquiVAE,
        classifier: nn.Module | None = None,
        *,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.v = v
        self.classifier = classifier
        self.shared = shared
        self._model = (model,)

    def posterior(self, x: Tensor, r: Tensor) -> Distribution:
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
            return self.classifier(self.encoder.image_features(x) if self.shared else x)
        model = self._model[0]
        codes = model.class_means if codes is None else codes
        return -(model.invariant.embed(x)[..., None, :] - codes).square().sum(-1)

    def forward(
        self, x: Tensor, y: Tensor | None = None, sets: Tensor | None = None, *, size: int = 1
    ) -> dict[str, Tensor]:
        """Draw the latent sites; the arguments are the model's."""
        return self.infer(x, y, sets)

    def infer(self, x: Tensor, y: Tensor | None, sets: Tensor | None) -> dict[str, Tensor]:
        """Draw the latent sites of points of one kind; the arguments are `EquiVAE`'s."""
        codes = self.codes(sets)
        with pyro.plate("data", len(x), dim=-1):
            if y is None:
                return self.sample_unlabelled(x, codes)
            r = codes[y] if sets is None else codes
            return {"v": pyro.sample("v", self.posterior(x, r))}

    def codes(self, sets: Tensor | None) -> Tensor:
        """Return the codes of sets, held for the model, or the class means."""
        model = self._model[0]
        return model.class_means if sets is None else model.invariant.hold(sets)

    def sample_unlabelled(self, x: Tensor, class_codes: Tensor) -> dict[str, Tensor]:
        """Draw `y` and `v` within the plate, one value of `y` for each class in parallel."""
        q_y = self.unknown_label_posterior(x, class_codes)
        y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
        return {"y": y, "v": pyro.sample("v", self.posterior(x, class_codes[y]))}

    def unknown_label_posterior(self, x: Tensor, class_codes: Tensor) -> Categorical:
        """Return `q(y | x)` as the bound of unlabelled points has it."""
        return self.label_posterior(x, class_codes)


class SemiSupervisedGuide(EquiVAEGuide):
    """The guide of unlabelled and labelled points together.

    To the objective of labelled points it adds `log q(y | x)`, without which `q(y | x)` may
    predict one label for all (section 2.3).

    Args:
        encoder: Maps images and codes `r` to features.
        v: The family of the equivariant code.
        model: The model.
        classifier: Maps images to logits of `q(y | x)`, or None for the rule by distances.
        shared: Whether the classifier maps ``encoder.image_features(x)`` instead of images.
        label_weight: The weight of `log q(y | x)`, one in the paper; 0 for none.
    """

    def __init__(
        self,
        encoder: nn.Module,
        v: Family,
        model: SemiSupervisedEquiVAE,
        classifier: nn.Module | None = None,
        *,
        shared: bool = False,
        label_weight: float = 1.0,
    ) -> None:
        super().__init__(encoder, v, model, classifier, shared=shared)
        self.label_weight = label_weight
        # The share of the gradient that the bound of unlabelled points hands to `q(y | x)`; a
        # trainer raises it from 0 to 1. The value of the bound does not depend on it.
        self.label_gradient = 1.0

    def forward(
        self,
        x: Tensor,
        class_sets: Tensor | None = None,
        x_labelled: Tensor | None = None,
        y_labelled: Tensor | None = None,
        sets: Tensor | None = None,
        *,
        size: int = 1,
    ) -> dict[str, Tensor]:
        """Draw the latent sites of both kinds of points; the arguments are the model's."""
        model = self._model[0]
        drawn = {}
        class_codes = self.codes(class_sets)
        if x_labelled is not None:
            with (
                poutine.scale(scale=model.labelled_weight),
                pyro.plate("data_labelled", len(x_labelled), dim=-1),
            ):
                r = class_codes[y_labelled] if sets is None else self.codes(sets)
                q = self.posterior(x_labelled, r)
                drawn["v_labelled"] = pyro.sample("v_labelled", q)
                if self.label_weight:
                    log_q = self.label_posterior(x_labelled, class_codes).log_prob(y_labelled)
                    # A guide's densities are subtracted from the objective. The term has an
                    # ordinary gradient and no draw to score: Pyro's word is `has_rsample`.
                    pyro.factor("log_q_y", -self.label_weight * log_q, has_rsample=True)
        if not model.unlabelled_weight:
            return drawn
        with (
            poutine.scale(scale=model.unlabelled_weight),
            pyro.plate("data", len(x), dim=-1),
        ):
            return drawn | self.sample_unlabelled(x, class_codes)

    def unknown_label_posterior(self, x: Tensor, class_codes: Tensor) -> Categorical:
        """Return `q(y | x)`, with ``label_gradient`` of its gradient."""
        logits = self.label_posterior(x, class_codes).logits
        return Categorical(logits=torch.lerp(logits.detach(), logits, self.label_gradient))
