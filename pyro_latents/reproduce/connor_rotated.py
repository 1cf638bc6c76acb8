"""The experiment on turned digits of Connor et al. (2020): figures 5 and 10."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_latents.data.affine import rotate
from pyro_latents.evaluation.registration import rotation_between
from pyro_latents.plots import image_rows
from pyro_latents.reproduce.connor_images import (
    BUDGETS,
    ORBIT_STEPS,
    SHOWN,
    TURNED,
    kept_percent,
    moved,
    orbits,
    own_classifier,
    posterior_draws,
    settings_of,
    trained_run,
)
from pyro_latents.reproduce.experiment import Context, Result, experiment, labels
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vaells.metrics import rank_correlation

ROTATED = ("rotated-mnist", "rotated-digits")


@experiment("connor-rotated-mnist", BUDGETS, takes=ROTATED)
def rotated_mnist(context: Context) -> Result:
    """The operator learned from turned digits turns digits (figures 5 and 10)."""
    run = trained_run(context, context.data or "rotated-mnist")
    parts = run.parts.to("cpu")
    test = parts.splits.test.take(slice(context.budget.own.get("turned", TURNED)))
    upright = test.extras["upright"]
    train = parts.splits.train.take(slice(TURNED))
    c = _coefficients_of_angles(parts, train.extras["upright"])
    images = moved(parts.model, upright, parts.model.operators.psi.detach(), c[None, :, None])
    angles, wanted = _angles(images), torch.linspace(-90, 90, ORBIT_STEPS)
    classifier = own_classifier(context, parts)
    median = angles.median(0).values
    order = c.expand_as(angles).flatten()
    turned = {
        "class kept over half a turn, per cent": images,
        "the same of the test images themselves, turned as far": _turned(upright),
        "the same of their reconstructions": _turned(images[:, ORBIT_STEPS // 2]),
    }
    strips = {str(i): images[i] for i in range(SHOWN)}
    return Result(
        title="The operator learned on turned digits",
        columns=["what", "value"],
        rows=[
            [
                "angle of the decoded image against the coefficient, rank correlation",
                abs(rank_correlation(order, angles.flatten())),
            ],
            ["the same of the median angle of all images", abs(rank_correlation(c, median))],
            ["median angle between the ends, degrees", (median[-1] - median[0]).abs().item()],
            [
                "images within 20 degrees of the angle that is wanted, per cent",
                100 * (angles - wanted).abs().le(20).double().mean().item(),
            ],
            *((what, kept_percent(classifier, x, labels(test))) for what, x in turned.items()),
        ],
        settings=settings_of(parts, context) | {"images": len(test)},
        figures=[
            context.save(image_rows(strips), "connor-rotated-mnist-orbits"),
            posterior_draws(context, parts, test.x[:SHOWN], "connor-rotated-mnist-draws"),
        ],
        notes=[
            "Images are moved to where the median angle of training images is -90 to 90 degrees, "
            "in steps of 15; what stands beside them is turned by the same angles. Angles are of "
            "the most similar turn of the reconstruction; the class is that which a classifier "
            "sees, trained apart on real images turned at random."
        ],
    )


def _coefficients_of_angles(parts: Parts, x: Tensor) -> Tensor:
    """The coefficients at which the median angle of images is -90 to 90 degrees, in even steps."""
    reach = _quarter_turn(parts, x)
    c = reach * torch.linspace(-1.5, 1.5, 3 * ORBIT_STEPS)
    found = _angles(moved(parts.model, x, parts.model.operators.psi.detach(), c[None, :, None]))
    median = found.median(0).values
    median = median * torch.sign(median[-1] - median[0] + 1e-6)
    wanted = torch.linspace(-90, 90, ORBIT_STEPS)
    # The nearest of many steps: medians go in steps themselves, and may turn back.
    return c[(median - wanted[:, None]).abs().argmin(1)]


def _quarter_turn(parts: Parts, x: Tensor) -> float:
    """The coefficient that turns images by 90 degrees if they go on as they begin to turn."""
    psi = parts.model.operators.psi.detach()[0]
    speed = torch.linalg.eigvals(psi).imag.abs().max()
    norm = torch.linalg.matrix_norm(psi, 2)
    # A quarter turn of the fastest rotation, or a norm of three where nothing rotates.
    reach = float(torch.minimum(torch.pi / 2 / speed, 3 / norm).clamp_max(1e6))
    median = _angles(orbits(parts, x, 0, reach / 2)).median(0).values
    c = torch.linspace(-0.5, 0.5, ORBIT_STEPS) * reach
    turned = (c * median).sum() / c.square().sum()
    # An operator that turns nothing is followed no further than it would take to see it turn.
    return min(90 / max(abs(turned.item()), 1e-6), 10 * reach)


def _angles(images: Tensor) -> Tensor:
    """By how many degrees each image of an orbit is turned against the middle one."""
    middle = images[:, images.shape[1] // 2]
    turned = [
        rotation_between(middle, image, max_angle=180.0, steps=121) for image in images.unbind(1)
    ]
    return torch.stack(turned, 1)


def _turned(x: Tensor) -> Tensor:
    """Images turned by minus to plus 90 degrees, as the orbits of a rotation would be."""
    angle = torch.linspace(-torch.pi / 2, torch.pi / 2, ORBIT_STEPS).to(x)
    return rotate(x[:, None], angle.expand(len(x), -1))
