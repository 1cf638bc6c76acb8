r"""The transformation-aware VAE of Giannone et al. (2019): images and a latent map between them.

.. math:: p(x, x_1, x_2, z, T, z_0, z_1, z_2) = \mathcal{N}(z; 0, I) \, \mathcal{N}(T; 0, I) \,
          r(z_0 | z, T_{id}) \, r(z_1 | z, T) \, r(z_2 | z, T^{-1}) \,
          p(x | z_0) \, p(x_1 | z_1) \, p(x_2 | z_2) \qquad (1)

A triplet is an image, the image under some transformation, and the image under its inverse. What
the transformation is, is never told: `T` is inferred from the two views.

Differs from the paper: there `r` is the map itself, `z1 = z + T`; here it has a small normal
noise (``transition_scale``), so that every site has a density and any objective can be used.

The authors' indirect coherence term :math:`\mathcal{F}` is no part of the process, and stands in
the objective: ``TraceMMD_ELBO(..., copies={"z0": "z"})``.

Not reproduced: `z` as a matrix, which the outlook mentions in half a sentence.

=========================== ===============================
paper                       here
=========================== ===============================
:math:`r_\chi(\cdot, T)`    ``transformation``
:math:`p_\theta`            ``decoder`` and ``likelihood``
:math:`\pi(z), \pi(T)`      standard normal
=========================== ===============================

References:
    No Representation without Transformation (Giannone, Masci, Osendorfer, 2019)
"""

from abc import abstractmethod
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood
from pyro_latents.models.vae import VAE
from pyro_latents.nets.precision import uncast

# Of sums of generators by standard normal numbers: how far from zero their eigenvalues lie before
# training, and the greatest length, in units of that of the identity.
START, MAX_LENGTH = 0.5, 2.0


class LatentTransformation(nn.Module):
    r"""A family of invertible maps of codes, :math:`r(z, T)` with :math:`T \in \mathbb{R}^p`.

    The paper asks that there be an identity, and that each map have an inverse of the same form.
    Both hold exactly here: :math:`T_{id} = 0` and :math:`T^{-1} = -T`. What it learns is part of
    the model.

    Args:
        z_dim: Size of the code.
        parameter_dim: Size `p` of the latent transformation.

    Implementing a transformation:
        - ``forward`` accepts any leading dimensions, which broadcast;
        - with ``identity()`` it gives `z` back, and with ``inverse(T)`` it undoes `T`;
        - it is differentiable in both arguments, and moderate for `T` of order one.
    """

    def __init__(self, z_dim: int, parameter_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.parameter_dim = parameter_dim
        self._identity: Tensor
        self.register_buffer("_identity", torch.zeros(parameter_dim), persistent=False)

    @abstractmethod
    def forward(self, z: Tensor, T: Tensor) -> Tensor:
        """Return the codes `*leading z_dim` under transformations `*leading parameter_dim`."""

    def identity(self) -> Tensor:
        """Return the transformation that changes nothing, of shape `parameter_dim`."""
        return self._identity

    def inverse(self, T: Tensor) -> Tensor:
        """Return the transformations that undo the given ones, of the same shape."""
        return -T


class Additive(LatentTransformation):
    """`z + T`, the paper's runs: a commutative group."""

    def __init__(self, z_dim: int) -> None:
        super().__init__(z_dim, z_dim)

    def forward(self, z: Tensor, T: Tensor) -> Tensor:
        """Return `z + T`."""
        return z + T


class Matrix(LatentTransformation):
    r""":math:`\exp(\sum_k T_k G_k) z`, the matrix of the paper's outlook with learned generators.

    The generators :math:`G_k` are shared by all images, so `T` says how far each of a few ways to
    move goes, and the map is invertible whatever they are. A sum longer than ``MAX_LENGTH`` times
    :math:`\sqrt{d}` is shortened to that: nothing holds an implicit `T` back in training, and the
    exponential of a long matrix overflows.

    Differs from the paper, which only names a product `T z`: that has an inverse for almost every
    `T`, but none that a decoder could share with it.

    Args:
        z_dim: Size of the code, `d`.
        generators: How many there are, the size of `T`; as many as the code is large if not given.
    """

    def __init__(self, z_dim: int, generators: int | None = None) -> None:
        count = z_dim if generators is None else generators
        super().__init__(z_dim, count)
        start = START / (count * z_dim) ** 0.5
        self.generators = nn.Parameter(start * torch.randn(count, z_dim, z_dim))

    def forward(self, z: Tensor, T: Tensor) -> Tensor:
        """Return `expm(sum_k T_k G_k) z`, in the precision of the generators."""
        # In mixed precision their sum would be rounded, and the exponential of it is not finite.
        with uncast(z):
            z, T = z.to(self.generators), T.to(self.generators)
            total = (T @ self.generators.flatten(1)).unflatten(-1, (self.z_dim, self.z_dim))
            limit = MAX_LENGTH * self.z_dim**0.5
            length = total.square().sum((-2, -1), keepdim=True).clamp_min(limit**2).sqrt()
            matrix = torch.linalg.matrix_exp(total * (limit / length))
            return (matrix @ z.unsqueeze(-1)).squeeze(-1)


class TripletTVAE(PyroModule):
    """One code, transformed and transformed back, all three decoded.

    Args:
        decoder: Maps `*leading z_dim` to the parameters of the likelihood, `*leading *x_shape`.
        z_dim: Size of the code.
        transformation: `r`.
        likelihood: `p(x | decoder(z))`; Bernoulli pixels if not given.
        transition_scale: Standard deviation of `r(. | z, T)` about its map; with 0, the
            paper's own, it is a point mass, and only draws of it are of use.

    Raises:
        ValueError: if the transformation is of another size, or the scale is negative.

    Example:
        >>> from pyro_latents.nets.mlp import DenseDecoder
        >>> TripletTVAE(DenseDecoder(2, (1, 8, 8)), 2, Additive(2))(size=5).shape
        torch.Size([5, 1, 8, 8])
    """

    num_views = 2

    def __init__(
        self,
        decoder: nn.Module,
        z_dim: int,
        transformation: LatentTransformation,
        *,
        likelihood: Likelihood | None = None,
        transition_scale: float = 0.1,
    ) -> None:
        super().__init__()
        if transformation.z_dim != z_dim:
            raise ValueError(
                f"{type(self).__name__} has codes of size {z_dim}, but its transformation acts on "
                f"codes of size {transformation.z_dim}; give both the same z_dim."
            )
        if transition_scale < 0:
            raise ValueError(f"transition_scale must not be negative; got {transition_scale}.")
        self.decoder = decoder
        self.z_dim = z_dim
        self.transformation = transformation
        self.likelihood = likelihood or Bernoulli()
        self.transition_scale = transition_scale
        self._zero: Tensor
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor | None = None, *views: Tensor, size: int = 1) -> Tensor:
        """Run the generative process.

        Args:
            x: Images, of shape `batch *x_shape`; without them the process draws its own.
            *views: Their views, `x1` and `x2`, each of the same shape; without them, drawn.
            size: The number of draws when nothing is observed.

        Returns:
            The observed or drawn `x`.

        Raises:
            ValueError: if the number of views is neither zero nor that of the model.
        """
        self._check(x, views)
        seen = views or [None] * self.num_views
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", self._standard_normal(self.z_dim))  # pi(z)
            transformations = self.draw_transformations()
            z0 = pyro.sample("z0", self.transition(z, self.transformation.identity()))
            x = pyro.sample("x", self.render(z0), obs=x)  # p(x | z0)
            for i, T in enumerate(transformations, start=1):
                z_i = pyro.sample(f"z{i}", self.transition(z, T))  # r(z1 | z, T), r(z2 | z, T^-1)
                pyro.sample(f"x{i}", self.render(z_i), obs=seen[i - 1])  # p(x1 | z1), p(x2 | z2)
        return x

    def draw_transformations(self) -> list[Tensor]:
        """Sample the transformation of each view: `T`, and its inverse."""
        T = pyro.sample("T", self._standard_normal(self.transformation.parameter_dim))  # pi(T)
        return [T, self.transformation.inverse(T)]

    def transition(self, z: Tensor, T: Tensor) -> TorchDistributionMixin:
        """Return `r(. | z, T)`, of event shape `(z_dim,)`."""
        moved = self.transformation(z, T)
        if self.transition_scale == 0:
            return Delta(moved, event_dim=1)
        return Normal(moved, self.transition_scale).to_event(1)

    def render(self, z: Tensor) -> TorchDistributionMixin:
        """Return `p(x | z)`, the same for every view."""
        return self.likelihood(self.decoder(z))

    def image_model(self) -> VAE:
        """Return the model of one image, with this one's decoder: the VAE it grew from.

        By equation (1) the marginal of `x` is that of a VAE, as `z0` under the identity is `z`
        (up to ``transition_scale``). Marginal likelihoods of images are those of this model.
        """
        # Its own buffers are made here, and follow this model to its device.
        return VAE(self.decoder, self.z_dim, self.likelihood).to(self._zero)

    def _standard_normal(self, dim: int) -> TorchDistributionMixin:
        return Normal(self._zero, 1.0).expand([dim]).to_event(1)

    def _check(self, x: Tensor | None, views: tuple[Tensor, ...]) -> None:
        if len(views) not in (0, self.num_views):
            raise ValueError(
                f"{type(self).__name__} has {self.num_views} views of an image; got {len(views)}."
            )
        shape = None if x is None else tuple(x.shape)
        for i, view in enumerate(views, start=1):
            if tuple(view.shape) != shape:
                raise ValueError(
                    f"{type(self).__name__} expects views of the shape of x, {shape}; got x{i} "
                    f"{tuple(view.shape)}. Transform the batch first."
                )


class SeveralViewsTVAE(TripletTVAE):
    r"""Any number of views, each by a transformation of its own that need have no inverse.

    .. math:: \mathcal{N}(z; 0, I) \, r(z_0 | z, T_{id}) \, p(x | z_0)
              \prod_{i=1}^{V} \mathcal{N}(T_i; 0, I) \, r(z_i | z, T_i) \, p(x_i | z_i)

    This is the paper's outlook, for views such as pixelations. It differs from `TripletTVAE` in
    the sites ``T1``, ..., ``TV`` in the place of one ``T``.

    Args:
        *args: As in `TripletTVAE`; of the transformation only its identity and map are used.
        num_views: The number of views.
        **options: As in `TripletTVAE`.
    """

    def __init__(self, *args: Any, num_views: int = 2, **options: Any) -> None:
        if num_views < 1:
            raise ValueError(f"SeveralViewsTVAE needs a view at least; got {num_views}.")
        super().__init__(*args, **options)
        self.num_views = num_views

    def draw_transformations(self) -> list[Tensor]:
        """Sample the transformation of each view on its own."""
        prior = self._standard_normal(self.transformation.parameter_dim)
        return [pyro.sample(f"T{i}", prior) for i in range(1, self.num_views + 1)]


class SeparateViews(PyroModule):
    r"""VAE+, the baseline: a VAE of all members of a triplet, each with a code of its own.

    .. math:: \prod_{i=0}^{V} \mathcal{N}(z_i; 0, I) \, p(x_i | z_i)

    It differs from `TripletTVAE` in that nothing relates the codes. A step has as many images.

    Args:
        decoder: As in `TripletTVAE`.
        z_dim: Size of the code.
        num_views: The number of views beside the image; with none it is a VAE.
    """

    def __init__(self, decoder: nn.Module, z_dim: int, *, num_views: int = 2) -> None:
        super().__init__()
        self.image = VAE(decoder, z_dim)
        self.num_views = num_views

    def forward(self, x: Tensor | None = None, *views: Tensor, size: int = 1) -> None:
        """Run the generative process; the arguments are those of `TripletTVAE`."""
        names = ["x", *(f"x{i}" for i in range(1, self.num_views + 1))]
        seen = (x, *views) if x is not None else (None,) * len(names)
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            for i, (name, image) in enumerate(zip(names, seen, strict=True)):
                z = pyro.sample(f"z{i}", self.image.prior())
                pyro.sample(name, self.image.likelihood(self.image.decoder(z)), obs=image)

    def image_model(self) -> VAE:
        """Return the model of one image."""
        return self.image
