r"""The posterior of Giannone et al. (2019), equation (2), with a family for each of its parts.

.. math:: q(T, z, z_0, z_1, z_2 | x, x_1, x_2) = q_\phi(z_0 | x) \, q_\phi(z_1 | x_1) \,
          q_\phi(z_2 | x_2) \, q_\psi(z | z_1, z_2) \, q_\xi(T | z_1, z_2) \qquad (2)

One encoder serves all images. The views come first: `z` and `T` are inferred from their codes,
not from the pixels.

| paper | here |
| --- | --- |
| :math:`q_\phi` | ``encoder``, ``view_family`` |
| :math:`q_\psi, h_\psi` | ``z_features``, ``z_family`` |
| :math:`q_\xi, h_\xi` | ``T_features``, ``T_family`` |
"""

import pyro
import torch
from pyro.distributions import Distribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FamilyFactory, MeanField, PointMass
from pyro_latents.nets.mlp import DenseEncoder


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
        view_family: Of `q(z0 | x)`, `q(z1 | x1)` and `q(z2 | x2)`.
        z_family: Of `q(z | z1, z2)`.
        T_family: Of `q(T | z1, z2)`.
        hidden_dims: Sizes of the hidden layers over the codes; the paper's are two of 1000.
    """

    num_views = 2

    def __init__(
        self,
        encoder: nn.Module,
        z_dim: int,
        transformation_dim: int,
        *,
        view_family: FamilyFactory = MeanField,
        z_family: FamilyFactory = MeanField,
        T_family: FamilyFactory = PointMass,
        hidden_dims: tuple[int, ...] = (1000, 1000),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.view_family = view_family(encoder.features_dim, z_dim)
        self.z_features = DenseEncoder((self.num_views * z_dim,), hidden_dims)
        self.z_family = z_family(hidden_dims[-1], z_dim)
        self.T_features = DenseEncoder((2 * z_dim,), hidden_dims)
        self.T_family = T_family(hidden_dims[-1], transformation_dim)

    def posterior(self, x: Tensor) -> Distribution:
        """Return `q(z0 | x)`, the code of an image alone, for `batch *x_shape`."""
        return self.view_family(self.encoder(x))

    def code_posterior(self, *codes: Tensor) -> Distribution:
        """Return `q(z | z1, z2)` given the codes of the views, each `*leading z_dim`."""
        return self.z_family(self.z_features(torch.cat(codes, dim=-1)))

    def transformation_posterior(self, z1: Tensor, z2: Tensor) -> Distribution:
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
        if len(views) != self.num_views:
            raise ValueError(
                f"{type(self).__name__} infers from {self.num_views} views; got {len(views)}. "
                "The posterior of an image alone is guide.posterior(x)."
            )
        draws: dict[str, Tensor] = {}
        with pyro.plate("data", len(x), dim=-1):
            # One pass of the encoder over the image and its views, stacked in front.
            features = self.encoder(torch.stack([x, *views]))
            for i in range(1, self.num_views + 1):
                draws[f"z{i}"] = pyro.sample(f"z{i}", self.view_family(features[i]))
            codes = list(draws.values())
            draws["z"] = pyro.sample("z", self.code_posterior(*codes))
            draws |= self.draw_transformations(draws["z"], codes)
            draws["z0"] = pyro.sample("z0", self.view_family(features[0]))
        return draws

    def draw_transformations(self, z: Tensor, codes: list[Tensor]) -> dict[str, Tensor]:
        """Sample `T` given the codes of the views."""
        return {"T": pyro.sample("T", self.transformation_posterior(*codes))}

    def image_guide(self) -> Amortised:
        """Return the guide of one image, for ``model.image_model()``: `q(z | x)`."""
        return Amortised(self.encoder, z=self.view_family)


class SeveralViewsGuide(TripletGuide):
    r"""The posterior of any number of views, each with a transformation of its own.

    .. math:: q_\phi(z_0 | x) \, q_\psi(z | z_1, \ldots, z_V)
              \prod_i q_\phi(z_i | x_i) \, q_\xi(T_i | z, z_i)

    It differs from `TripletGuide` in that a transformation is inferred from where it leads from
    and where to, as there is no second view along it.

    Args:
        encoder: As in `TripletGuide`, as are all arguments not named here.
        z_dim: As in `TripletGuide`.
        transformation_dim: As in `TripletGuide`.
        num_views: The number of views.
        view_family: As in `TripletGuide`.
        z_family: As in `TripletGuide`.
        T_family: As in `TripletGuide`.
        hidden_dims: As in `TripletGuide`.
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
        # Set past nn.Module, which is not initialised yet: the networks below depend on it.
        object.__setattr__(self, "num_views", num_views)
        super().__init__(
            encoder,
            z_dim,
            transformation_dim,
            view_family=view_family,
            z_family=z_family,
            T_family=T_family,
            hidden_dims=hidden_dims,
        )

    def draw_transformations(self, z: Tensor, codes: list[Tensor]) -> dict[str, Tensor]:
        """Sample the transformation of each view given `z` and the view's code."""
        return {
            f"T{i}": pyro.sample(f"T{i}", self.transformation_posterior(z, code))
            for i, code in enumerate(codes, start=1)
        }
