r"""The posterior of Giannone et al. (2019), equation (2), with a family for each of its parts.

.. math:: q(T, z, z_0, z_1, z_2 | x, x_1, x_2) = q_\phi(z_0 | x) \, q_\phi(z_1 | x_1) \,
          q_\phi(z_2 | x_2) \, q_\psi(z | z_1, z_2) \, q_\xi(T | z_1, z_2) \qquad (2)

One encoder serves all images. The views come first: `z` and `T` are inferred from their codes,
not from the pixels.

========================= ==================================
paper                     here
========================= ==================================
:math:`q_\phi`            ``encoder``, ``view_family``
:math:`q_\psi, h_\psi`    ``z_features``, ``z_family``
:math:`q_\xi, h_\xi`      ``T_features``, ``T_family``
========================= ==================================
"""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FamilyFactory, MeanField, PointMass
from pyro_latents.nets.mlp import DenseEncoder
from pyro_latents.programs import centre

Posteriors = dict[str, TorchDistributionMixin]
# What is done at a site with its distribution: it is sampled, say.
Visit = Callable[[str, TorchDistributionMixin], Tensor]


class TripletGuide(PyroModule):
    """The posterior of a triplet.

    With a `PointMass` for `T` it is the paper's: an implicit distribution, whose draws are the
    network's values at draws of the codes, and which has no density. `MeanField` gives `T` one.
    `Flow` for `z` lets its posterior take any shape.

    Args:
        encoder: Maps `*leading *x_shape` to features, `*leading features_dim`; it has
            ``features_dim``.
        z_dim: Size of the codes.
        transformation_dim: Size of `T`.
        num_views: Of an image; a triplet has two.
        view_family: Of `q(z0 | x)`, `q(z1 | x1)` and `q(z2 | x2)`.
        z_family: Of `q(z | z1, z2)`.
        T_family: Of `q(T | z1, z2)`.
        hidden_dims: Sizes of the hidden layers over the codes; the paper's are two of 1000.
    """

    def __init__(
        self,
        encoder: nn.Module,
        z_dim: int,
        transformation_dim: int,
        *,
        num_views: int = 2,
        view_family: FamilyFactory = MeanField,
        z_family: FamilyFactory = MeanField,
        T_family: FamilyFactory = PointMass,
        hidden_dims: tuple[int, ...] = (1000, 1000),
    ) -> None:
        super().__init__()
        self.num_views = num_views
        self.encoder = encoder
        features_dim: Any = encoder.features_dim
        self.view_family = view_family(features_dim, z_dim)
        self.z_features = DenseEncoder((num_views * z_dim,), hidden_dims)
        self.z_family = z_family(hidden_dims[-1], z_dim)
        self.T_features = DenseEncoder((2 * z_dim,), hidden_dims)
        self.T_family = T_family(hidden_dims[-1], transformation_dim)

    def code_posterior(self, *codes: Tensor) -> TorchDistributionMixin:
        """Return `q(z | z1, z2)` given the codes of the views, each `*leading z_dim`."""
        return self.z_family(self.z_features(torch.cat(codes, dim=-1)))

    def transformation_posterior(self, z1: Tensor, z2: Tensor) -> TorchDistributionMixin:
        """Return `q(T | z1, z2)` given the codes of the views, each `*leading z_dim`."""
        return self.T_family(self.T_features(torch.cat([z1, z2], dim=-1)))

    def forward(self, x: Tensor, *views: Tensor, size: int = 1) -> dict[str, Tensor]:
        """Draw every latent site in the plate of the data.

        Args:
            x: Images, of shape `batch *x_shape`.
            *views: Their views, each of the same shape.
            size: The model's, and unused.

        Raises:
            ValueError: if the number of views is another than the guide's.
        """
        with pyro.plate("data", len(x), dim=-1):
            return self._visit(x, views, pyro.sample)

    def posterior(self, x: Tensor, *views: Tensor) -> Posteriors:
        """Return the distribution of each latent site, given the centres of those before it.

        Args:
            x: As in ``forward``.
            *views: As in ``forward``.
        """
        found: Posteriors = {}

        def visit(name: str, distribution: TorchDistributionMixin) -> Tensor:
            found[name] = distribution
            return centre(distribution)

        self._visit(x, views, visit)
        return found

    def image_guide(self) -> Amortised:
        """Return the guide of one image, for ``model.image_model()``: `q(z | x)`.

        It is `q(z0 | x)`, and shares the encoder and the family of the views.
        """
        return Amortised(self.encoder, z=self.view_family)

    def _visit(self, x: Tensor, views: tuple[Tensor, ...], visit: Visit) -> dict[str, Tensor]:
        """Go through equation (2), and return the value that a visit gave to each site."""
        if len(views) != self.num_views:
            raise ValueError(
                f"{type(self).__name__} infers from {self.num_views} views; got {len(views)}. "
                "The posterior of an image alone is guide.image_guide().posterior(x)."
            )
        # One pass of the encoder over the image and its views, stacked in front.
        features = self.encoder(torch.stack([x, *views]))
        found = {
            f"z{i}": visit(f"z{i}", self.view_family(features[i]))
            for i in range(1, self.num_views + 1)
        }
        codes = list(found.values())
        found["z"] = visit("z", self.code_posterior(*codes))
        for name, T in self._transformations(found["z"], codes).items():
            found[name] = visit(name, T)
        found["z0"] = visit("z0", self.view_family(features[0]))
        return found

    def _transformations(self, z: Tensor, codes: list[Tensor]) -> Posteriors:
        return {"T": self.transformation_posterior(*codes)}


class SeveralViewsGuide(TripletGuide):
    r"""The posterior of any number of views, each with a transformation of its own.

    .. math:: q_\phi(z_0 | x) \, q_\psi(z | z_1, \ldots, z_V)
              \prod_i q_\phi(z_i | x_i) \, q_\xi(T_i | z, z_i)

    It differs from `TripletGuide` in that a transformation is inferred from where it leads from
    and where to, as there is no second view along it.
    """

    def _transformations(self, z: Tensor, codes: list[Tensor]) -> Posteriors:
        posteriors = [self.transformation_posterior(z, code) for code in codes]
        return {f"T{i}": posterior for i, posterior in enumerate(posteriors, start=1)}


class SeparateViewsGuide(PyroModule):
    r"""The posterior of VAE+: :math:`\prod_i q_\phi(z_i | x_i)`, by one encoder.

    Args:
        encoder: As in `TripletGuide`.
        z_dim: Size of the codes.
        family: Of each code.
    """

    def __init__(self, encoder: nn.Module, z_dim: int, family: FamilyFactory = MeanField) -> None:
        super().__init__()
        features_dim: Any = encoder.features_dim
        self.image = Amortised(encoder, z=family(features_dim, z_dim))

    def forward(self, *images: Tensor, size: int = 1) -> dict[str, Tensor]:
        """Draw the code of each image in the plate of the data; `size` is the model's."""
        with pyro.plate("data", len(images[0]), dim=-1):
            found = self.posterior(*images).items()
            return {name: pyro.sample(name, q) for name, q in found}

    def posterior(self, *images: Tensor) -> Posteriors:
        """Return the distribution of the code of each image, `batch *x_shape`."""
        family, features = self.image.families["z"], self.image.encoder(torch.stack(images))
        return {f"z{i}": family(features[i]) for i in range(len(images))}

    def image_guide(self) -> Amortised:
        """Return the guide of one image, for ``model.image_model()``: `q(z | x)`."""
        return self.image
