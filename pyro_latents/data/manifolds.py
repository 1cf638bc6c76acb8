r"""Points of known plane manifolds, mapped linearly to 20 dimensions (Connor et al., 2020).

.. math:: x = W u + \epsilon, \quad W_{ij} \sim U(-1, 1), \quad \epsilon \sim N(0, \sigma^2 I)

with :math:`u` in the plane, on a swiss roll (appendix C) or on one of two concentric circles
(appendix D). The papers name the numbers of training points; the curves, the noise and the scale
are those of the authors' released code. ``extras["latent"]`` holds u, ``extras["position"]``
where u is along its curve: the angle in radians.

References:
    Variational Autoencoder with Learned Latent Structure (Connor, Canal, Rozell, 2020),
    https://arxiv.org/abs/2006.10597
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_latents.data.examples import Examples, Splits
from pyro_latents.errors import UserError

LATENT_DIM, X_DIM = 2, 20
SHAPE = (X_DIM,)
NOISE_SCALE = 0.01
CIRCLE_RADII = (0.5, 1.0)
# The authors divide the points of the roll, noise included, by ten; the circles stay as they are.
ROLL_SHRINKAGE = 10.0


def swiss_roll(validation: int = 500, *, seed: int = 0) -> Splits:
    """1,000 points to train and to test of a swiss roll, one and a half turns; no labels.

    Args:
        validation: The number of validation points.
        seed: Of the linear map, which all splits share, and of the points.

    Raises:
        UserError: if the number of points is negative.
    """
    generator = torch.Generator().manual_seed(seed)
    linear_map = _linear_map(generator)
    return _splits(
        lambda size: _roll(torch.rand(size, generator=generator), linear_map, generator),
        1_000,
        validation,
        num_classes=0,
    )


def swiss_roll_anchors(num_anchors: int = 4, *, seed: int = 0) -> Examples:
    """Points spread evenly along the swiss roll of that seed, free of noise.

    They lie at 10 % to 90 % of the roll's range of angles.

    Args:
        num_anchors: The number of anchors.
        seed: Of the linear map; that of `swiss_roll`.
    """
    linear_map = _linear_map(torch.Generator().manual_seed(seed))
    return _roll(torch.linspace(0.1, 0.9, num_anchors), linear_map)


def circles(validation: int = 200, *, seed: int = 0) -> Splits:
    """400 points to train and to test of two concentric circles, labelled by their circle.

    Label 0 is the inner circle. The circles alternate, so that the beginning of a split has as
    many of each.

    Args:
        validation: The number of validation points.
        seed: Of the linear map, which all splits share, and of the points.

    Raises:
        UserError: if the number of points is negative.
    """
    generator = torch.Generator().manual_seed(seed)
    linear_map = _linear_map(generator)

    def sample(size: int) -> Examples:
        angle = 2 * math.pi * torch.rand(size, generator=generator)
        y = torch.arange(size) % len(CIRCLE_RADII)
        return _circle(angle, y, linear_map, generator)

    return _splits(sample, 400, validation, num_classes=len(CIRCLE_RADII))


def circle_anchors(num_per_circle: int = 3, *, seed: int = 0) -> Examples:
    """Points spread evenly around both circles of that seed, free of noise.

    Args:
        num_per_circle: The number of anchors on each circle.
        seed: Of the linear map; that of `circles`.
    """
    linear_map = _linear_map(torch.Generator().manual_seed(seed))
    angle = 2 * math.pi * torch.arange(num_per_circle) / num_per_circle
    y = torch.arange(len(CIRCLE_RADII)).repeat_interleave(num_per_circle)
    return _circle(angle.repeat(len(CIRCLE_RADII)), y, linear_map)


def _splits(
    sample: Callable[[int], Examples], size: int, validation: int, *, num_classes: int
) -> Splits:
    if validation < 0:
        raise UserError(f"--validation must not be negative; got {validation}.")
    # The validation points come last, so that their number does not change the others.
    train, test, held_out = (sample(count) for count in (size, size, validation))
    return Splits(train, held_out, test, num_classes)


def _linear_map(generator: torch.Generator) -> Tensor:
    """W, of shape `x_dim latent_dim`: the first draw of every manifold's generator."""
    return 2 * torch.rand(X_DIM, LATENT_DIM, generator=generator) - 1


def _roll(
    fraction: Tensor, linear_map: Tensor, generator: torch.Generator | None = None
) -> Examples:
    angle = 1.5 * math.pi * (1 + 2 * fraction)
    latent = angle.unsqueeze(-1) * _directions(angle)
    x = _embedded(latent, linear_map, generator)
    extras = {"latent": latent / ROLL_SHRINKAGE, "position": angle}
    return Examples(x / ROLL_SHRINKAGE, extras=extras, provenance="swiss roll, synthetic")


def _circle(
    angle: Tensor, y: Tensor, linear_map: Tensor, generator: torch.Generator | None = None
) -> Examples:
    latent = torch.tensor(CIRCLE_RADII)[y].unsqueeze(-1) * _directions(angle)
    x = _embedded(latent, linear_map, generator)
    extras = {"latent": latent, "position": angle}
    return Examples(x, y, extras, provenance="concentric circles, synthetic")


def _directions(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def _embedded(latent: Tensor, linear_map: Tensor, generator: torch.Generator | None) -> Tensor:
    """Points in the space of the data, with noise if there is a generator."""
    x = latent @ linear_map.T
    if generator is None:
        return x
    return x + NOISE_SCALE * torch.randn(x.shape, generator=generator)
