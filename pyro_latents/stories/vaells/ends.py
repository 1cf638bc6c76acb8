"""Where paths of VAELLS end, given where they start."""

import pyro
import torch
from pyro.distributions import Categorical, Delta, Normal
from torch import Tensor

from pyro_latents.models.vaells import VAELLS, coefficient_prior

# Random paths for each data point. A tenth of them, with ten anchors, is kept.
CANDIDATES = 500


class EndsOfPaths:
    r"""A guide that sees where the path to an observation starts, and nothing else of it.

    A path of the model starts at an anchor and ends at the code of the observation. What is seen
    is what the model is given beside the observation (its class, or anchors of its own), and
    which of the anchors is the nearest one to its code:

    .. math:: z \sim p(z \mid k^*(z) = k^*(f(x))), \qquad
              k^*(z) = \arg\min_k |z - f(a_k)|

    with `p(z)` the program's: k uniform, c from its prior. What is hidden is how far and which
    way the path went. The nearest anchor is a function of the code, so that random paths which
    end nearest to another one can be thrown away: what is left are draws of the condition, and a
    model that is right passes, up to the error of `f`. Were paths simply begun at the nearest
    anchor, it would not: a path may well end nearest to another anchor than it began at.

    Where no random path ends nearest to that anchor, the data point has those of all.

    Args:
        model: The model.
    """

    def __init__(self, model: VAELLS) -> None:
        self.model = model

    def __call__(
        self, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None
    ) -> Tensor:
        """Draw codes; of x, only the nearest anchor is used."""
        starts = self.model.starts(y, anchors)
        starts = starts.expand(len(x), *starts.shape[-2:])
        rows = torch.arange(len(x), device=x.device)
        z = self._candidates(starts, rows)
        seen = _nearest(self.model.encoder(x) / self.model.operators.scale, starts)
        kept = _nearest(z, starts) == seen
        kept |= ~kept.any(0)
        with pyro.plate("data", len(x), dim=-1):
            choice = Categorical(kept.T.to(z.dtype))
            chosen = pyro.sample("candidate", choice, infer={"is_auxiliary": True})
            return pyro.sample("z", Delta(z[chosen, rows], event_dim=1))

    def _candidates(self, starts: Tensor, rows: Tensor) -> Tensor:
        """Ends of random paths, of shape `candidates batch z_dim`."""
        model = self.model
        k = torch.randint(starts.shape[-2], (CANDIDATES, len(rows)), device=rows.device)
        start = starts[rows, k]
        rate, operators = model.coefficient_rate, model.operators
        c = coefficient_prior(start, operators.num_operators, rate).sample()
        return Normal(operators(c, start), model.noise_scale).sample()


def _nearest(z: Tensor, starts: Tensor) -> Tensor:
    """The nearest start to each code: `*leading batch z_dim` to `*leading batch`."""
    return (z.unsqueeze(-2) - starts).square().sum(-1).argmin(-1)
