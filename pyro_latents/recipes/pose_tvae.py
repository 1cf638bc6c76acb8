"""Recipes of the pose-u T-VAE and DTVAE."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.data.batches import BatchMaker, Plain
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.distributions.pose_priors import (
    Affine5Normal,
    FittedNormal,
    FullNormal,
    IdentityNormal,
    NoPrior,
    PosePrior,
)
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.linear_svm import svm_scores
from pyro_latents.guides.families import (
    FAMILIES,
    Family,
    FamilyFactory,
    Flow,
    MeanField,
    PointMass,
)
from pyro_latents.guides.pose_search import TurnSearch
from pyro_latents.guides.pose_tvae import (
    DTVAE,
    TVAE,
    JointTVAE,
    PoseFirst,
    centre,
    pose_family,
)
from pyro_latents.guides.refined import Refined, unrefined
from pyro_latents.models.pose_tvae import PoseTVAE
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.recipes.settings import Settings
from pyro_latents.warps import Affine5, Affine6, ThinPlateSpline, Warp

if TYPE_CHECKING:
    from pyro_latents.recipes.recipe import Recipe

NAMED_PRIORS: dict[str, type[NoPrior | IdentityNormal]] = {
    "none": NoPrior,
    "identity": IdentityNormal,
    "fitted": FittedNormal,
}
ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class PoseTVAESettings(Settings):
    """The T-VAE of Vivé's thesis: appendix A, with Adam in the place of Adadelta.

    Args:
        z_dim: Size of the code; 8 and 20 in table 1.
        warp: The spatial transformer: the full matrix, its five-parameter form, or a thin plate
            spline.
        pose_prior: The prior of the pose: ``none``, ``identity``, ``fitted``, ``affine5``, or
            ``full-K`` with K latent numbers, such as ``full-3``.
        num_control: Control points a side of the thin plate spline.
        hidden_dim: Units in each of the two hidden layers of encoder and decoder.
        num_turns: Turns that each image's pose is chosen from (`TurnSearch`); 1 for no search, as
            in the thesis. It needs an angle without a prior.
    """

    story: ClassVar[str] = "pose-tvae"
    paper: ClassVar[str] = "Vivé, thesis"
    guides: ClassVar[tuple[str, ...]] = ("paper", "point-mass", *FAMILIES, "refined")

    epochs: int = 50
    batch_size: int = 200
    validation: int = 0
    z_dim: int = 20
    warp: Literal["affine6", "affine5", "tps"] = "affine6"
    pose_prior: str = "none"
    num_control: int = 3
    hidden_dim: int = 256
    num_turns: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("z_dim", "hidden_dim", "num_turns"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"--{name.replace('_', '-')} must be positive; got {getattr(self, name)}."
                )
        if self.num_control < 2:
            raise UserError(f"--num-control must be at least 2; got {self.num_control}.")
        if self.num_turns > 1 and (self.warp, self.pose_prior) != ("affine5", "none"):
            raise UserError(
                "--num-turns searches over the angle of a pose without a prior: "
                "add --num-turns 1, or --warp affine5 --pose-prior none."
            )
        self.build_prior(self.build_warp().num_parameters)

    def build_warp(self) -> Warp:
        """Return the spatial transformer."""
        size = self.x_shape[-2], self.x_shape[-1]
        if self.warp == "tps":
            return ThinPlateSpline(size, self.num_control)
        # The prior `affine5` has five parameters of its own and links them to the matrix.
        if self.warp == "affine6" or self.pose_prior == "affine5":
            return Affine6(size)
        return Affine5(size)

    def build_prior(self, num_parameters: int) -> PosePrior:
        """Return the prior of the pose for a warp of so many parameters.

        Raises:
            UserError: if there is no such prior, or it does not fit the warp.
        """
        name, _, rank = self.pose_prior.partition("-")
        if self.pose_prior in NAMED_PRIORS:
            return NAMED_PRIORS[self.pose_prior](num_parameters)
        if self.pose_prior == "affine5":
            if self.warp == "tps":
                raise UserError("--pose-prior affine5 is for affine warps: add --warp affine5.")
            return Affine5Normal()
        if name == "full" and rank.isdecimal() and 1 <= int(rank) <= num_parameters:
            return FullNormal(num_parameters, int(rank))
        raise UserError(
            f"unknown --pose-prior {self.pose_prior!r}: give {', '.join(NAMED_PRIORS)}, affine5, "
            f"or full-K with K from 1 to {num_parameters}."
        )

    def build_model(self, splits: Callable[[], Splits]) -> PoseTVAE:
        """Return the model with a dense decoder."""
        warp = self.build_warp()
        decoder = DenseDecoder(self.z_dim, self.x_shape, [self.hidden_dim] * 2)
        return PoseTVAE(decoder, warp, self.build_prior(warp.num_parameters), z_dim=self.z_dim)

    def build_guide(self, name: str, model: nn.Module) -> PyroModule:
        """Return the story's guide, with one family for both sites.

        Without a prior (``none``) the pose is a point mass in every guide: a density of it would
        be rewarded for its spread. ``refined`` is the paper's, improved for each data point at
        evaluation.
        """
        assert isinstance(model, PoseTVAE)
        if name == "refined":
            return Refined(model, self.build_guide("paper", model), refining=False)
        guide = self._build_posterior(name, model)
        return guide if self.num_turns == 1 else TurnSearch(guide, model, num_turns=self.num_turns)

    def _build_posterior(self, name: str, model: PoseTVAE) -> TVAE | PoseFirst:
        """The T-VAE; a flow makes code and pose dependent."""
        encoder = self._encoder()
        z, u = self._families(name, model.prior)
        if z is Flow:
            code = z(encoder.features_dim + model.u_dim, self.z_dim)
            return JointTVAE(encoder, z=code, u=self._pose(u, encoder, model.prior))
        code = z(encoder.features_dim, self.z_dim)
        return TVAE(encoder, z=code, u=self._pose(u, encoder, model.prior))

    def build_loss(self) -> ELBO:
        """Return the bound of equation (9), its divergences analytic where they can be."""
        return TraceMeanField_ELBO(max_plate_nesting=1)

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return the images as they are."""
        return Plain(examples)

    def metrics(
        self, recipe: "Recipe", batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Add the test accuracy of a linear SVM on the means of `z`, in per cent."""
        found = super().metrics(recipe, batches, sampling)
        train, test = recipe.splits.train, batches.examples
        if train.y is None or test.y is None:
            return found
        before, after = (codes(recipe.guide, part.x.to(test.device)) for part in (train, test))
        scores = svm_scores(before, train.y, after, test.y, folds=0)
        return {**found, "svm_accuracy": scores.test}

    def _encoder(self) -> DenseEncoder:
        return DenseEncoder(self.x_shape, [self.hidden_dim] * 2)

    def _families(self, name: str, prior: PosePrior) -> tuple[FamilyFactory, FamilyFactory]:
        """The families of `z` and of `u`."""
        z = FAMILIES.get(name, MeanField)
        u = PointMass if name == "point-mass" or isinstance(prior, NoPrior) else z
        return z, u

    def _pose(self, factory: FamilyFactory, network: DenseEncoder, prior: PosePrior) -> Family:
        return pose_family(factory, network.features_dim, prior)


@dataclass(frozen=True, kw_only=True)
class PoseDTVAESettings(PoseTVAESettings):
    """The DTVAE of Vivé's thesis, with the settings of the T-VAE.

    Args:
        localiser_dim: Units of the single hidden layer that the pose is regressed with.
    """

    story: ClassVar[str] = "pose-dtvae"

    localiser_dim: int = 128

    def _build_posterior(self, name: str, model: PoseTVAE) -> DTVAE:
        localiser = DenseEncoder(self.x_shape, [self.localiser_dim])
        encoder = self._encoder()
        z, u = self._families(name, model.prior)
        return DTVAE(
            localiser,
            encoder,
            z=z(encoder.features_dim, self.z_dim),
            u=self._pose(u, localiser, model.prior),
            warp=model.warp,
            prior=model.prior,
        )


def codes(guide: nn.Module, x: Tensor) -> Tensor:
    """Return the means of `q(z | x)`, of shape `batch z_dim`; a draw where a flow has no mean.

    Of a refined guide they are the encoder's.
    """
    encoder = unrefined(guide)
    with torch.no_grad():
        return torch.cat([centre(encoder.posterior(part)["z"]) for part in x.split(ROWS)])


STORIES = (PoseTVAESettings, PoseDTVAESettings)
RECIPES: dict[str, PoseTVAESettings] = {}
for _kind in STORIES:
    # The embedded digits are 1,797 small images: smaller batches and more epochs.
    RECIPES[f"{_kind.story}-digits"] = _kind(data="digits", epochs=200, batch_size=100)
    RECIPES[f"{_kind.story}-mnist"] = _kind(data="mnist")
    RECIPES[f"{_kind.story}-rotated-mnist"] = _kind(
        data="rotated-mnist", warp="affine5", num_turns=8
    )
