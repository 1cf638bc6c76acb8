"""Recipes of the pose-u T-VAE and DTVAE."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.figure import Figure
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Splits
from pyro_latents.distributions.pose_priors import (
    Affine5Normal,
    FittedNormal,
    FullNormal,
    IdentityNormal,
    NoPrior,
    PosePrior,
)
from pyro_latents.errors import UserError
from pyro_latents.evaluation.codes import codes
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.metrics import Metrics
from pyro_latents.fields import NotNegative, Positive
from pyro_latents.guides.families import (
    FAMILIES,
    Family,
    FamilyFactory,
    Flow,
    MeanField,
    PointMass,
)
from pyro_latents.guides.pose_polar import PolarDTVAE, PolarLocaliser
from pyro_latents.guides.pose_search import TurnSearch
from pyro_latents.guides.pose_tvae import DTVAE, TVAE, JointTVAE, PoseGuide, pose_family
from pyro_latents.guides.refined import Refined, unrefined
from pyro_latents.live import Live
from pyro_latents.models.pose_tvae import PoseTVAE
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.stories.pose_tvae.figures import figures
from pyro_latents.stories.pose_tvae.live import moving_pose
from pyro_latents.stories.pose_tvae.metrics import svm_scores
from pyro_latents.stories.story import Parts, Story, by_muon
from pyro_latents.stories.transformation import Transformation
from pyro_latents.warps import Affine5, Affine6, Border, ThinPlateSpline, Warp

PRIORS: dict[str, Callable[[int], PosePrior]] = {
    "none": NoPrior,
    "identity": IdentityNormal,
    "fitted": FittedNormal,
}
# Units of the single hidden layer that the DTVAE regresses the pose with: the thesis'.
LOCALISER_DIM = 128


@dataclass(frozen=True, kw_only=True)
class PoseTVAEStory(Story):
    """The T-VAE of Vivé's thesis: appendix A, with Adam in the place of Adadelta by default.

    Args:
        z_dim: Size of the code; 8 and 20 in table 1.
        warp: The spatial transformer: the full matrix, its five-parameter form, or a thin plate
            spline over 3 x 3 control points.
        border: What the transformer reads outside of an image: ``zeros``, or the nearest of its
            pixels (``replicate``), as the layer does that the thesis names, as far as is known.
        pose_prior: The prior of the pose: none, a normal around the identity or with a fitted
            mean, the affine one on rotation, scales and translations, or one of full covariance.
        pose_rank: Latent numbers of the full prior, from 1 to the warp's parameters; 0 for the
            other priors.
        hidden_dim: Units in each of the two hidden layers of encoder and decoder.
        start: Where the guide's pose starts: at the ``identity``, or where all pixels read near
            the middle (``collapsed``), as from layers that know of no identity.
        num_turns: Turns that each image's pose is chosen from (`TurnSearch`); 1 for no search, as
            in the thesis. It needs an angle without a prior.
    """

    name = "pose-tvae"
    paper = "Vivé, thesis"
    guides = ("paper", "point-mass", *FAMILIES, "refined")
    former = {"adadelta": False}

    epochs: Positive[int] = 50
    batch_size: Positive[int] = 200
    validation: NotNegative[int] = 0
    z_dim: Positive[int] = 20
    warp: Literal["affine6", "affine5", "tps"] = "affine6"
    border: Border = "replicate"
    pose_prior: Literal["none", "identity", "fitted", "affine5", "full"] = "none"
    pose_rank: int = 0
    hidden_dim: Positive[int] = 256
    start: Literal["identity", "collapsed"] = "identity"
    num_turns: Positive[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_images()
        if self.num_turns > 1 and (self.warp, self.pose_prior) != ("affine5", "none"):
            raise UserError(
                "--num-turns searches over the angle of a pose without a prior: "
                "add --num-turns 1, or --warp affine5 --pose-prior none."
            )
        linked = self.warp == "affine5" or self.pose_prior in ("affine5", "full")
        if self.start == "collapsed" and linked:
            raise UserError(
                "--start collapsed is for a pose that is a matrix or control points: add --warp "
                "affine6 or --warp tps, and --pose-prior none, identity or fitted."
            )
        if self.pose_prior == "affine5" and self.warp == "tps":
            raise UserError("--pose-prior affine5 is for affine warps: add --warp affine5.")
        most = self.build_warp().num_parameters
        if self.pose_prior != "full" and self.pose_rank:
            raise UserError("--pose-rank is that of a full prior: add --pose-prior full.")
        if self.pose_prior == "full" and not 1 <= self.pose_rank <= most:
            raise UserError(
                f"--pose-prior full has a --pose-rank from 1 to {most}, the parameters of "
                f"--warp {self.warp}; got {self.pose_rank}."
            )

    def build_warp(self) -> Warp:
        """Return the spatial transformer."""
        size = self.x_shape[-2], self.x_shape[-1]
        if self.warp == "tps":
            return ThinPlateSpline(size, border=self.border)
        # The prior `affine5` has five parameters of its own and links them to the matrix.
        if self.warp == "affine6" or self.pose_prior == "affine5":
            return Affine6(size, border=self.border)
        return Affine5(size, border=self.border)

    def build_prior(self, num_parameters: int) -> PosePrior:
        """Return the prior of the pose for a warp of so many parameters."""
        if self.pose_prior == "affine5":
            return Affine5Normal()
        if self.pose_prior == "full":
            return FullNormal(num_parameters, self.pose_rank)
        return PRIORS[self.pose_prior](num_parameters)

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
        z = FAMILIES.get(name, MeanField)
        u = PointMass if name == "point-mass" or self.pose_prior == "none" else z
        guide = self.build_pose_guide(model, z, u)
        if self.num_turns == 1:
            return guide
        return TurnSearch(guide, model.pixels, num_turns=self.num_turns)

    def build_pose_guide(self, model: PoseTVAE, z: FamilyFactory, u: FamilyFactory) -> PoseGuide:
        """Return the T-VAE, of families for code and pose; a flow makes the two dependent."""
        encoder = DenseEncoder(self.x_shape, [self.hidden_dim] * 2)
        kind, size = TVAE, encoder.features_dim
        if z is Flow:
            kind, size = JointTVAE, size + model.u_dim
        code = z(size, self.z_dim)
        return kind(encoder, z=code, u=self.build_pose_family(u, encoder, model))

    def build_pose_family(
        self, factory: FamilyFactory, encoder: DenseEncoder, model: PoseTVAE
    ) -> Family:
        """Return the family of the pose on an encoder's features, where it is to start."""
        start = None if self.start == "identity" else model.warp.collapsed
        return pose_family(factory, encoder.features_dim, model.prior, start=start)

    def build_transformation(self, parts: Parts) -> Transformation:
        """Return the pose; the identity is the reference pose, whatever an image's own is."""
        model, guide = parts.model, parts.guide

        def apply(x: Tensor, u: Tensor | None) -> Tensor:
            z = codes(guide, x)
            return model.reference(z) if u is None else model.probabilities(z, u)

        def infer(x: Tensor) -> Tensor:
            return codes(guide, x, site="u")

        return Transformation("u", model.u_dim, ("an image in that pose",), infer, apply)

    def figures(self, parts: Parts) -> dict[str, Figure]:
        """Draw images in several poses and in the reference pose, and what every story draws."""
        return {**figures(parts), **super().figures(parts)}

    def live(self, parts: Parts) -> Live:
        """Return the pose and the code, which move a digit each in its own way."""
        return moving_pose(parts)

    def metrics(self, parts: Parts, batches: BatchMaker, sampling: ImportanceSampling) -> Metrics:
        """Add the test accuracy of a linear SVM on the means of `z`, in per cent."""
        found = super().metrics(parts, batches, sampling)
        train, test = parts.splits.train, batches.examples
        if train.y is None or test.y is None:
            return found
        guide = unrefined(parts.guide)
        known, asked = codes(guide, train.x.to(test.device)), codes(guide, test.x)
        scores = svm_scores(known, train.y, asked, test.y, folds=0)
        return {**found, "svm_accuracy": scores.test}


@dataclass(frozen=True, kw_only=True)
class PoseDTVAEStory(PoseTVAEStory):
    """The DTVAE of Vivé's thesis, with the numbers of the T-VAE.

    Args:
        localiser: What the pose is regressed with: the thesis' single ``dense`` layer, or a
            network whose angle turns along with the image by construction (``polar``,
            `PolarDTVAE`), for any turn and without a search.
    """

    name = "pose-dtvae"

    localiser: Literal["dense", "polar"] = "dense"

    def __post_init__(self) -> None:
        super().__post_init__()
        own = (self.warp, self.pose_prior, self.num_turns)
        if self.localiser == "polar" and own != ("affine5", "none", 1):
            raise UserError(
                "--localiser polar infers the angle of a pose without a prior, in one pass: add "
                "--warp affine5 --pose-prior none --num-turns 1."
            )

    def build_pose_guide(self, model: PoseTVAE, z: FamilyFactory, u: FamilyFactory) -> PoseGuide:
        """Return the double transformer, of families for code and pose."""
        localiser = DenseEncoder(self.x_shape, [LOCALISER_DIM])
        encoder = DenseEncoder(self.x_shape, [self.hidden_dim] * 2)
        parts: dict[str, Any] = dict(
            z=z(encoder.features_dim, self.z_dim),
            u=self.build_pose_family(u, localiser, model),
            warp=model.warp,
            pose=model.prior.pose,
        )
        if self.localiser == "polar":
            polar = PolarLocaliser(self.x_shape)
            return PolarDTVAE(localiser, encoder, polar=polar, **parts)
        return DTVAE(localiser, encoder, **parts)


RECIPES: dict[str, PoseTVAEStory] = {}
for _kind in (PoseTVAEStory, PoseDTVAEStory):
    # The embedded digits are 1,797 small images: smaller batches and more epochs.
    RECIPES[f"{_kind.name}-digits"] = _kind(data="digits", epochs=200, batch_size=100)
    RECIPES[f"{_kind.name}-mnist"] = _kind(data="mnist")
    RECIPES[f"{_kind.name}-rotated-mnist"] = _kind(
        data="rotated-mnist", warp="affine5", num_turns=8
    )
# Muon comes to a higher bound in three fifths of the steps (`benchmarks/time_to_bound.py`).
QUICKER = {"pose-tvae-mnist": by_muon(4e-3, epochs=30)}
