r"""The guides of VAELLS: paths from the encoding of the observation.

.. math:: q(z, c | x) = \mathcal{N}\big(z; T_\Psi(c) f_\phi(x), \gamma^2 I\big) \,
          \prod_m \frac{\zeta_3}{2} e^{-\zeta_3 |c_m|}

(equations (5) and (6)), with the encoder and the transport operators of the model. The site c is
marginalised by its maximum, found by a search or by descent from a network's guess.

References:
    Variational Autoencoder with Learned Latent Structure (Connor, Canal, Rozell, 2020),
    https://arxiv.org/abs/2006.10597
"""

from typing import Any

import pyro
import torch
from pyro.distributions import Distribution, Normal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.models.vaells import VAELLS, coefficient_prior
from pyro_latents.nets.mlp import MLP


class TransportGuide(PyroModule):
    """The paper's guide: coefficients between encoding and code by the solver.

    Args:
        model: The model; its encoder and operators are the guide's too.
        inference_weight: The L1 weight in the search for coefficients, zeta_q.

    Attributes:
        warm_up: Whether codes are drawn without noise, and with coefficients near zero, in
            training mode; validation sees the guide as it is.
    """

    # In the warm-up the paper samples coefficients in a "very limited" way: of this rate in the
    # authors' runs.
    warm_up_rate = 100.0

    def __init__(self, model: VAELLS, inference_weight: float = 1e-6) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.operators = model.operators
        self.coefficient_rate = model.coefficient_rate
        self.noise_scale = model.noise_scale
        self.inference_weight = inference_weight
        self.warm_up = False

    def posterior(self, x: Tensor) -> dict[str, Distribution]:
        """Return the coefficients' distribution, and that of the code at c = 0, its mode."""
        start = self.encoder(x) / self.operators.scale
        c = coefficient_prior(start, self.operators.num_operators, self.coefficient_rate)
        return {"c": c, "z": Normal(start, self.noise_scale).to_event(1)}

    def forward(
        self, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None, *, size: int = 1
    ) -> Tensor:
        """Draw coefficients and a code; `y`, `anchors` and `size` are the model's and unused."""
        warm_up = self.warm_up and self.training
        rate = self.warm_up_rate if warm_up else self.coefficient_rate
        noise = torch.finfo(x.dtype).tiny ** 0.5 if warm_up else self.noise_scale
        with pyro.plate("data", len(x), dim=-1):
            start = self.encoder(x) / self.operators.scale
            prior = coefficient_prior(start, self.operators.num_operators, rate)
            c = pyro.sample("c", prior, infer=self._infer(start))
            return pyro.sample("z", Normal(self.operators(c, start), noise).to_event(1))

    def _infer(self, start: Tensor) -> dict:
        def solve(values: dict[str, Tensor]) -> Tensor:
            points = torch.broadcast_tensors(start, values["z"])
            return self.operators.infer(*points, self.inference_weight)[0]

        return {"maximize": solve}


class AmortisedTransportGuide(TransportGuide):
    """A guide whose coefficients come from a network in training, in the place of the search.

    The solver descends from the network's guess and from zero, and the network learns where the
    better descent ended. A guess alone will not do: the density is a spike of width gamma about
    the paths that reach the code, and the training would make use of every miss, as the bound
    subtracts the density. In evaluation mode the solver searches as it does for the paper's guide.

    Args:
        model: The model; its encoder and operators are the guide's too.
        z_dim: Size of the code.
        hidden_dims: Sizes of the hidden layers.
    """

    def __init__(self, model: VAELLS, z_dim: int, hidden_dims: tuple[int, ...] = (128,)) -> None:
        super().__init__(model)
        self.network: nn.Module = MLP(2 * z_dim, hidden_dims, self.operators.num_operators)

    def _infer(self, start: Tensor) -> dict:
        if not self.training:
            return super()._infer(start)

        def descend(values: dict[str, Tensor]) -> Tensor:
            points = torch.broadcast_tensors(start.detach(), values["z"])
            guess = self.network(torch.cat(points, -1))
            first = torch.stack([guess.detach(), torch.zeros_like(guess)])
            found = self.operators.descend(*points, self.inference_weight, first)
            return _Follow.apply(guess, found)

        return {"maximize": descend, "maximize_with_gradient": True}


class _Follow(torch.autograd.Function):
    """The value found, while the gradient pulls the guess towards it: that of half the square."""

    @staticmethod
    def forward(ctx: Any, guess: Tensor, found: Tensor) -> Tensor:
        """Return what was found."""
        ctx.save_for_backward(guess - found)
        return found.clone()

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        """Return the mean squared distance's gradient, whatever the objective's is."""
        (miss,) = ctx.saved_tensors
        return miss / miss[..., 0].numel(), None
