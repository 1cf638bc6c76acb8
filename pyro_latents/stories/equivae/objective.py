r"""The objectives of Feige (2019), in which the sets of a batch are encoded once.

With all labels it is equation (4),

.. math:: L_\mathrm{lab} = E_{q(v | r_y, x)} \log p(x | r_y, v)
          - KL[q(v | r_y, x) \| p(v)] + \log p(y)

and with few of them equation (7) with the term that the paper adds,

.. math:: \sum_\mathrm{unlabelled} w_u L_\mathrm{unlab} + \sum_\mathrm{labelled} w_l
          \big( L_\mathrm{lab} + w_q \log q(y | x) \big), \qquad
          L_\mathrm{unlab} = E_{q(y | x)} \big[ L_\mathrm{lab} - \log q(y | x) \big] \quad (6)

`TraceEnum_ELBO` of model and guide is the first sum and :math:`L_\mathrm{lab}` in the second; the
last term is an observed auxiliary site, as in Pyro's example of the model M2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.poutine import Trace

from pyro_latents.losses.analytic import TraceAnalytic_ELBO
from pyro_latents.losses.enumeration import TraceEnum_ELBO


class SupervisedBound(TraceAnalytic_ELBO):
    """Equation (4), the divergence analytic where it can be."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_plate_nesting=1, **options)

    def _get_traces(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> Iterator[tuple[Trace, Trace]]:
        return super()._get_traces(model, guide, _encoded(model, args), kwargs)


class SemiSupervisedBound(TraceEnum_ELBO):
    """Equation (7) with `log q(y | x)` of labelled points, where the guide has a ``classify``.

    Without labelled points in a batch it is equation (6).

    Args:
        labelled_weight: `w_l`, what the terms of labelled points are multiplied by.
        label_weight: `w_q`, one in the paper; 0 for no term.
        **options: Those of `TraceEnum_ELBO`.

    Attributes:
        unlabelled_weight: `w_u`, a 0-d tensor.
        label_gradient: The share of its gradient that the bound of unlabelled points hands to
            `q(y | x)`, a 0-d tensor. The value of the bound does not depend on it.
    """

    def __init__(
        self, *, labelled_weight: float = 1.0, label_weight: float = 1.0, **options: Any
    ) -> None:
        self.unlabelled_weight, self.label_gradient = torch.ones(()), torch.ones(())
        self.label_weight = label_weight
        self._labelled_alone = False
        unlabelled = dict.fromkeys(("y", "v", "x"), self.unlabelled_weight)
        labelled = dict.fromkeys(("y_labelled", "v_labelled", "x_labelled"), labelled_weight)
        super().__init__(
            weights={**unlabelled, **labelled, "y_aux": labelled_weight * label_weight},
            gradient_shares={"y": self.label_gradient},
            max_plate_nesting=1,
            # Labelled points alone have no class to sum over.
            strict_enumeration_warning=False,
            **options,
        )

    def of_labelled(self) -> SemiSupervisedBound:
        """Return the second sum alone: the whole at `w_u = 0`, at no cost of unlabelled points.

        A guide of one's own without a part for labelled points is run whole, and so is the model.
        """
        part = copy.copy(self)
        part._labelled_alone = True
        return part

    def _get_traces(
        self, model: Any, guide: Any, args: tuple, kwargs: dict
    ) -> Iterator[tuple[Trace, Trace]]:
        args = _encoded(model, args)
        classify = getattr(guide, "classify", None) if self.label_weight else None
        if self._labelled_alone and hasattr(guide, "labelled"):
            model, guide = model.labelled, guide.labelled
        if classify is not None:
            model = _both(model, classify)
        return super()._get_traces(model, guide, args, kwargs)


def _both(model: Callable, classify: Callable) -> Callable:
    """Return the model with the label term as a further observation."""

    def joint(*args: Any, **kwargs: Any) -> Any:
        classify(*args)
        return model(*args, **kwargs)

    return joint


def _encoded(model: Callable, args: tuple) -> tuple:
    """Encode the sets of a batch for both programs; a model that is a function does it itself."""
    encoded = getattr(model, "encoded", None)
    return args if encoded is None else encoded(*args)
