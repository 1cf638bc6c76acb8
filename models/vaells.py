r"""VAELLS: a variational auto-encoder with learned latent structure (Connor et al., 2020).

.. math::
    p(x, z, c, k) = p_\theta(x | z) \,
        \mathcal{N}\big(z; T_\Psi(c) f_\phi(a_k), \gamma_p^2 I\big) \,
        \prod_m \frac{\rho_p}{2} e^{-\rho_p |c_m|} \, \frac{1}{N_a},
    \qquad T_\Psi(c) = \exp\Big(\sum_m c_m \Psi_m\Big)

(equations (1), (5) and (7)): a code lies on a path that starts at the encoding of an anchor point
and follows the learned transport operators. The coefficients c are marginalised by their maximum
(`pyro_latents.losses.TraceMax_ELBO`), the anchors by a sum or by the closest one (equation (12)).

===================== =========================================================
paper                 here
===================== =========================================================
:math:`f_\phi`        ``encoder``
:math:`g_\theta`      ``decoder``
:math:`\Psi`          ``operators.psi``
:math:`a_k`           ``anchors``
:math:`\gamma_p`      ``noise_scale``
:math:`\rho_p`        ``coefficient_rate``: the spread of c is its inverse
:math:`\zeta_p`       ``inference_weight``
===================== =========================================================

The width :math:`\gamma_p` and the rate :math:`\rho_p` are the prior's own; the guide has others
(`pyro_latents.guides.vaells`). In the objective of appendix A they are :math:`\rho_p = \zeta_5`
and :math:`\gamma_p = \zeta_4^{-1/2}`, and the likelihood's width is :math:`\zeta_1^{-1/2}`: what
is written here is what is trained (`pyro_latents.stories.vaells.plan`).

Differs from the paper: the sites z and c are in latent units divided by ``operators.scale``, as in
the authors' runs, so that the entries of z are near 1 when coefficients are inferred.

References:
    Variational Autoencoder with Learned Latent Structure (Connor, Canal, Rozell, 2020),
    https://arxiv.org/abs/2006.10597
"""

from typing import Any

import pyro
import torch
from pyro.distributions import Categorical, ImproperUniform, Laplace, Normal, constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Likelihood
from pyro_latents.errors import UserError
from pyro_latents.transport import TransportOperators


class VAELLS(PyroModule):
    """Codes on paths that start at encoded anchors and follow transport operators.

    Args:
        encoder: The f that encodes anchors: `*leading *x_shape` to `*leading z_dim`.
        decoder: Maps `*leading z_dim` to the parameters of the likelihood.
        operators: The transport operators; the guide shares them, and the encoder.
        likelihood: `p(x | decoder(z))`.
        anchors: Anchor points, of shape `num_classes num_anchors *x_shape`; one class if the data
            have none.
        inference_weight: The L1 weight in the search for coefficients between anchors and codes.
        coefficient_rate: The rate of the Laplace prior of the coefficients.
        noise_scale: The standard deviation of a code around its path in the prior.
        closest_anchor: Whether objectives by maxima have the anchor with the best path alone in
            the place of the sum. Equation (12) has no 1/N_a then, which the weight 0 of the site
            k in `TraceMax_ELBO` says.
        learn_anchors: Whether the anchors are parameters.

    Attributes:
        coefficient_rate: The rate, a tensor that is saved with the parameters: it may be fitted
            (`pyro_latents.stories.vaells.fit`).
        noise_scale: The same of the width.
    """

    coefficient_rate: Tensor
    noise_scale: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        operators: TransportOperators,
        likelihood: Likelihood,
        anchors: Tensor,
        *,
        inference_weight: float = 1e-6,
        coefficient_rate: float = 0.01,
        noise_scale: float = 1.0,
        closest_anchor: bool = True,
        learn_anchors: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.operators = operators
        self.likelihood = likelihood
        self.inference_weight = inference_weight
        self.register_buffer("coefficient_rate", torch.tensor(coefficient_rate))
        self.register_buffer("noise_scale", torch.tensor(noise_scale))
        self.closest_anchor = closest_anchor
        if learn_anchors:
            self.anchors = nn.Parameter(anchors.clone())
        else:
            self.register_buffer("anchors", anchors.clone())

    def forward(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        anchors: Tensor | None = None,
        *,
        size: int = 1,
    ) -> Tensor:
        """Run the generative process.

        Args:
            x: Observations, of shape `batch *x_shape`; without them the process draws its own.
            y: Classes, of shape `batch`: each data point has the anchors of its class. Without
                them every data point has the anchors of all classes.
            anchors: Anchors of each data point's own, of shape `batch num_anchors *x_shape`, in
                the place of the model's.
            size: The number of draws when nothing is given.

        Returns:
            The observed or drawn `x`.
        """
        given = next((t for t in (x, y, anchors) if t is not None), None)
        size = size if given is None else len(given)
        starts = self.starts(y, anchors)

        def best_path(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return self.best_path(starts, values["z"])

        def path(values: dict[str, Tensor]) -> Tensor:
            begin, end = torch.broadcast_tensors(start, values["z"])
            return self.operators.infer(begin, end, self.inference_weight)[0]

        # The closest anchor is found with its coefficients, equation (12); or all are summed.
        closest = self.closest_anchor
        of_anchor: Any = {"maximize": best_path} if closest else {"enumerate": "parallel"}
        of_path: Any = {"maximize": best_path if closest else path}
        with pyro.plate("data", size, dim=-1):
            choice = Categorical(logits=starts.new_zeros(starts.shape[-2]))
            k = pyro.sample("k", choice, infer=of_anchor)  # k ~ U{1..N_a}, eq. (7)
            start = select(starts, k)
            prior = coefficient_prior(start, self.operators.num_operators, self.coefficient_rate)
            c = pyro.sample("c", prior, infer=of_path)  # c ~ Laplace(0, 1 / rho_p)
            loc = self.operators(c, start)
            z = pyro.sample("z", Normal(loc, self.noise_scale).to_event(1))  # eq. (5)
            return pyro.sample("x", self.observation(z), obs=x)  # x ~ N(g(z), sigma^2)

    def reconstruct(self, x: Tensor, y: Tensor | None = None, anchors: Any = None) -> Tensor:
        """Run `p(x | z)` alone, with a flat prior of the code: it can be scored, not drawn.

        The arguments are those of `forward`; anchors and classes are not looked at.
        """
        with pyro.plate("data", len(x), dim=-1):
            flat = ImproperUniform(constraints.real_vector, (), (self.operators.z_dim,))
            return pyro.sample("x", self.observation(pyro.sample("z", flat)), obs=x)

    def code(self, x: Tensor) -> Tensor:
        """Return the codes of observations in the units of the operators, `*leading z_dim`."""
        return self.encoder(x) / self.operators.scale

    def observation(self, z: Tensor) -> TorchDistributionMixin:
        """Return `p(x | z)`, of codes in the units of the operators."""
        return self.likelihood(self.decoder(self.operators.scale * z))

    def starts(self, y: Tensor | None = None, anchors: Tensor | None = None) -> Tensor:
        """Where paths start: encoded anchors, `num_anchors z_dim` or `batch num_anchors z_dim`.

        Args:
            y: Classes, as in `forward`.
            anchors: Anchors of each data point's own, as in `forward`.
        """
        if anchors is not None:
            return self.code(anchors)
        encoded = self.code(self.anchors)
        if y is None or len(encoded) == 1:
            return encoded.flatten(0, 1)
        if bool((y >= len(encoded)).any()):
            raise UserError(
                f"VAELLS has anchors of {len(encoded)} classes; got the label {int(y.max())}."
            )
        return encoded[y]

    def best_path(self, starts: Tensor, end: Tensor) -> dict[str, Tensor]:
        """Find the anchor whose inference objective is lowest, and the coefficients from there.

        Args:
            starts: Where paths may start, as `starts` returns them.
            end: Codes, of shape `*leading batch z_dim`.

        Returns:
            The sites ``k`` and ``c``, by name.
        """
        starts, end = torch.broadcast_tensors(starts, end.unsqueeze(-2))
        c, objective = self.operators.infer(starts, end, self.inference_weight)
        k = objective.argmin(-1)
        best = k[..., None, None].expand(*k.shape, 1, c.shape[-1])
        return {"k": k, "c": c.gather(-2, best).squeeze(-2)}


def coefficient_prior(start: Tensor, num_operators: int, rate: float | Tensor) -> Laplace:
    """Independent Laplace coefficients for each starting point, of shape `*batch z_dim`."""
    shape = (*start.shape[:-1], num_operators)
    # Apart from the start, on which it does not depend: Pyro asks for the graph of the model.
    loc = torch.zeros((), dtype=start.dtype, device=start.device)
    return Laplace(loc, 1 / rate).expand(shape).to_event(1)


def select(starts: Tensor, k: Tensor) -> Tensor:
    """The k-th start of each data point; k may have dimensions in front of the plate's."""
    if starts.dim() == 2:
        return starts[k]
    return starts[torch.arange(len(starts), device=k.device), k]
