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

    The seed is that of the linear map, which all splits share, and of the points.

    Raises:
        UserError: if the number of validation points is negative.
    """

    def sample(size: int, linear_map: Tensor, generator: torch.Generator) -> Examples:
        return _roll(torch.rand(size, generator=generator), linear_map, generator)

    return _splits(sample, 1_000, validation, seed, num_classes=0)


def swiss_roll_anchors(num_anchors: int = 4, *, seed: int = 0) -> Examples:
    """Points spread evenly along the swiss roll of that seed, free of noise.

    They lie at 10 % to 90 % of the roll's range of angles.
    """
    return _roll(torch.linspace(0.1, 0.9, num_anchors), _linear_map(seed)[0])


def circles(validation: int = 200, *, seed: int = 0) -> Splits:
    """400 points to train and to test of two concentric circles, labelled by their circle.

    Label 0 is the inner circle. The circles alternate, so that the beginning of a split has as
    many of each. Arguments and errors are those of `swiss_roll`.
    """

    def sample(size: int, linear_map: Tensor, generator: torch.Generator) -> Examples:
        angle = 2 * math.pi * torch.rand(size, generator=generator)
        return _circle(angle, torch.arange(size) % len(CIRCLE_RADII), linear_map, generator)

    return _splits(sample, 400, validation, seed, num_classes=len(CIRCLE_RADII))


def circle_anchors(num_per_circle: int = 3, *, seed: int = 0) -> Examples:
    """Points spread evenly around both circles of that seed, free of noise."""
    angle = 2 * math.pi * torch.arange(num_per_circle) / num_per_circle
    y = torch.arange(len(CIRCLE_RADII)).repeat_interleave(num_per_circle)
    return _circle(angle.repeat(len(CIRCLE_RADII)), y, _linear_map(seed)[0])


def _splits(
    sample: Callable[[int, Tensor, torch.Generator], Examples],
    size: int,
    validation: int,
    seed: int,
    num_classes: int,
) -> Splits:
    if validation < 0:
        raise UserError(f"--validation must not be negative; got {validation}.")
    drawn = _linear_map(seed)
    # The validation points come last, so that their number does not change the others.
    train, test, held_out = (sample(count, *drawn) for count in (size, size, validation))
    return Splits(train, held_out, test, num_classes)


def _linear_map(seed: int) -> tuple[Tensor, torch.Generator]:
    """W, of shape `x_dim latent_dim`, and the generator whose first draw it is."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(X_DIM, LATENT_DIM, generator=generator) - 1, generator


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
