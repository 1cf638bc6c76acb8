r"""The guides of VAELLS: paths from the encoding of the observation.

.. math:: q(z, c | x) = \mathcal{N}\big(z; T_\Psi(c) f_\phi(x), \gamma_q^2 I\big) \,
          \prod_m \frac{\zeta_3}{2} e^{-\zeta_3 |c_m|}

(equations (5) and (6)), with the encoder and the transport operators of the model, and a width
:math:`\gamma_q = \zeta_2^{-1/2}` and a rate :math:`\zeta_3` of its own. The site c is marginalised
by its maximum, found by a search or by descent from a network's guess.

References:
    Variational Autoencoder with Learned Latent Structure (Connor, Canal, Rozell, 2020),
    https://arxiv.org/abs/2006.10597
"""

from typing import Any

import pyro
import torch
from pyro.distributions import Delta, Distribution, Normal, TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.models.vaells import VAELLS, coefficient_prior
from pyro_latents.nets.mlp import MLP

# In the warm-up the paper samples coefficients in a "very limited" way: of this rate in the
# authors' runs.
WARM_UP_RATE = 100.0
# Of the network for the coefficients.
HIDDEN = (128,)


class TransportGuide(PyroModule):
    """The paper's guide: coefficients between encoding and code by the solver.

    Args:
        model: The model; its encoder and operators are the guide's too.
        coefficient_rate: The rate of the Laplace distribution of the coefficients, zeta_3.
        noise_scale: The standard deviation of a code around its path.
    """

    # The L1 weight in the search for coefficients, zeta_q: the same in all tables.
    inference_weight = 1e-6

    def __init__(
        self, model: VAELLS, *, coefficient_rate: float = 1.0, noise_scale: float = 1e-3
    ) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.operators = model.operators
        self.coefficient_rate = coefficient_rate
        self.noise_scale = noise_scale

    def posterior(
        self, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None
    ) -> dict[str, Distribution]:
        """Return the coefficients' distribution, and that of the code at c = 0, their centre."""
        start = self._start(x)
        return {"c": self._coefficients(start), "z": self._code(start)}

    def forward(
        self, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None, *, size: int = 1
    ) -> Tensor:
        """Draw coefficients and a code; `y`, `anchors` and `size` are the model's and unused."""
        with pyro.plate("data", len(x), dim=-1):
            start = self._start(x)
            c = pyro.sample("c", self._coefficients(start), infer=self._infer(start))
            return pyro.sample("z", self._code(self.operators(c, start)))

    def _start(self, x: Tensor) -> Tensor:
        return self.encoder(x) / self.operators.scale

    def _coefficients(self, start: Tensor) -> TorchDistribution:
        return coefficient_prior(start, self.operators.num_operators, self.coefficient_rate)

    def _code(self, loc: Tensor) -> TorchDistribution:
        return Normal(loc, self.noise_scale).to_event(1)

    def _infer(self, start: Tensor) -> Any:
        def search(values: dict[str, Tensor]) -> Tensor:
            begin, end = torch.broadcast_tensors(start, values["z"])
            return self.operators.infer(begin, end, self.inference_weight)[0]

        return {"maximize": search}


class WarmUpGuide(TransportGuide):
    """The guide of the warm-up of appendix B: coefficients near zero, and a code without noise.

    Its code has no density: it is for objectives that score the likelihood alone.

    Args:
        model: The model; its encoder and operators are the guide's too.
    """

    def __init__(self, model: VAELLS) -> None:
        super().__init__(model, coefficient_rate=WARM_UP_RATE)

    def _code(self, loc: Tensor) -> TorchDistribution:
        return Delta(loc, event_dim=1)


class AmortisedTransportGuide(TransportGuide):
    """A guide whose coefficients come from a network, in the place of the search.

    The solver descends from the network's guess and from zero, and the network learns where the
    better descent ended: its loss is half the squared distance of its guess from there, one more
    term of the objective. A guess alone will not do: the density is a spike of width gamma about
    the paths that reach the code, and the training would make use of every miss, as the bound
    subtracts the density. A descent that falls short of the best path makes that bound too high as
    well: models are measured by programs with explicit coefficients, and not by this guide.

    Args:
        model: The model; its encoder and operators are the guide's too.
        coefficient_rate: As of `TransportGuide`.
        noise_scale: As there.
    """

    def __init__(
        self, model: VAELLS, *, coefficient_rate: float = 1.0, noise_scale: float = 1e-3
    ) -> None:
        super().__init__(model, coefficient_rate=coefficient_rate, noise_scale=noise_scale)
        operators = model.operators
        self.network: nn.Module = MLP(2 * operators.z_dim, HIDDEN, operators.num_operators)

    def _infer(self, start: Tensor) -> Any:
        def guess(values: dict[str, Tensor]) -> Tensor:
            begin, end = torch.broadcast_tensors(start.detach(), values["z"])
            return self.network(torch.cat([begin, end], -1))

        def descend(values: dict[str, Tensor]) -> Tensor:
            begin, end = torch.broadcast_tensors(start, values["z"])
            first = guess(values)
            both = torch.stack([first, torch.zeros_like(first)])
            return self.operators.descend(begin, end, self.inference_weight, both)

        def miss(values: dict[str, Tensor], found: Tensor) -> Tensor:
            return 0.5 * (guess(values) - found).square().sum(-1)

        return {"maximize": descend, "maximize_loss": miss}
