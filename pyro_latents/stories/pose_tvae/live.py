"""The live part of the pose stories: a digit's pose is inferred, and moved apart from its code."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_latents.distributions.pose_priors import Affine5Normal, FullNormal
from pyro_latents.guides.refined import unrefined
from pyro_latents.live import Images, Live, Sliders, Step
from pyro_latents.live.codes import code_sliders, inferred, measured, picture
from pyro_latents.models.pose_tvae import PoseTVAE
from pyro_latents.stories.story import Parts
from pyro_latents.warps import Affine5, ThinPlateSpline

# How far a slider of a pose goes at least, and how many standard deviations of what is inferred.
LEAST, DEVIATIONS = 0.4, 3.0
NAMES_OF_FIVE = ("turn", "log width", "log height", "shift x", "shift y")
NAMES_OF_SIX = ("xx", "xy", "shift x", "yx", "yy", "shift y")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def moving_pose(parts: Parts) -> Live:
    """Return the live part: code and pose of a digit, and the digit in both poses."""
    model, guide, test = parts.model, unrefined(parts.guide), parts.splits.test
    codes, poses = (measured(guide, test.x, site) for site in ("z", "u"))

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        found = inferred(guide, x)
        return found["z"], found["u"]

    def decode(z: Tensor, u: Tensor) -> Tensor:
        return torch.cat([model.reference(z), model.probabilities(z, u)])

    return Live(
        "Draw something at any angle, or pick an image: the guide infers its pose u and, apart "
        "from it, its code z. The pose moves what the code draws.",
        [
            picture(test),
            _sliders(model, poses),
            code_sliders("z", "code z, standard normal", codes),
        ],
        [Step(encode, ["x"], ["z", "u"]), Step(decode, ["z", "u"], ["images"])],
        [Images("images", "what the model makes of it", captions=["reference pose", "pose u"])],
    )


def _sliders(model: PoseTVAE, poses: Tensor) -> Sliders:
    """Sliders of the pose, as far as poses `n u_dim` of test points go."""
    middle, spread = poses.mean(0).abs(), poses.std(0)
    reach = (middle + DEVIATIONS * spread).clamp_min(LEAST)
    labels = _labels(model)
    if labels == NAMES_OF_FIVE:
        # A search over turns infers any, counted from zero to a full one.
        reach[0] = poses[:, 0].abs().amax().clamp_min(math.pi)
    return Sliders("u", "pose u", -reach, reach, labels=labels, rest="reference pose")


def _labels(model: PoseTVAE) -> Sequence[str]:
    if isinstance(model.prior, FullNormal):
        return [f"u{i + 1}" for i in range(model.u_dim)]
    if isinstance(model.prior, Affine5Normal) or isinstance(model.warp, Affine5):
        return NAMES_OF_FIVE
    if not isinstance(model.warp, ThinPlateSpline):
        return NAMES_OF_SIX
    return [f"{row} {column}, {axis}" for row in ROWS for column in COLUMNS for axis in "xy"]
