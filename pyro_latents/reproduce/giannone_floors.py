"""What a transfer figure of Giannone et al. (2019) stands beside: frames, and codes of pixels.

The paper leaves open how images of 40x40 pixels meet an encoder of 28x28, how many neighbours
vote, and how far the views of training move. Here there are two frames, and all is chosen on
affNIST made from the validation digits of MNIST, which nothing is trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from pyro_latents.data.affine import move
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.sources import load
from pyro_latents.errors import UserError
from pyro_latents.evaluation.knn import knn_accuracies, whitened
from pyro_latents.reproduce.experiment import Budget, Context, Result, experiment, labels
from pyro_latents.reproduce.giannone import TAKES, held_out

FRAME = 28  # pixels a side, of the paper's encoder
CANVAS = 40  # of affNIST
# How much smaller an image is in each frame: the middle of the canvas, or all of it.
FRAMES = {"middle": 1.0, "shrunken": FRAME / CANVAS}
COUNTS = (1, 3, 5, 10)
SIZES = (10, 100)  # of the codes, in table 1
BUDGETS = (
    Budget(name="quick", own={"labelled": 10_000, "tested": 2_000}),
    Budget(name="hours", own={"labelled": 20_000, "tested": 10_000}),
    Budget(name="paper", own={"labelled": 60_000, "tested": 10_000}),
)

Encoder = Callable[[Tensor], Tensor]


class Known(NamedTuple):
    """Labelled images, and images to classify."""

    labelled: Examples
    asked: Examples


def reads(context: Context) -> list[str]:
    """Return the data that an experiment with transfer reads."""
    data = context.data or "fashion-mnist"
    return [data, transfer_source(data)]


def transfer_source(data: str) -> str:
    """Return the name of the data that models were not trained on, and are probed with."""
    return "rotated-digits" if data == "digits" else "affnist"


def transfer_data(data: str, context: Context, frame: str, *, validation: bool) -> Known:
    """Return labelled images that the models were not trained on, and others to classify.

    They are affNIST for the paper's data sets, and turned digits for the embedded ones, in a
    frame of the size that the encoder takes. To classify are those made from validation or from
    test digits; with test digits all others have labels.
    """
    apart = held_out(data) if validation else 0
    source = load(transfer_source(data), context.data_dir, validation=apart)
    known = sized(context, source, validation=validation)
    return Known(*(on_frame(part, frame) for part in known))


def sized(context: Context, splits: Splits, *, validation: bool) -> Known:
    """Return as many labelled images, and images to classify, as the budget has."""
    own, asked = context.budget.own, splits.validation if validation else splits.test
    return Known(splits.train.take(slice(own["labelled"])), asked.take(slice(own["tested"])))


def on_frame(examples: Examples, frame: str) -> Examples:
    """Return images on a frame of the encoder's size: the middle of larger ones, or all of them.

    The middle keeps the scale of the strokes, and cuts more than a tenth of the ink off half of
    the digits of affNIST. What is shrunken is whole; models of it are trained on images that are
    as small. Images that have the size already are shrunken within it.
    """
    factor, (height, width) = FRAMES[frame], examples.x.shape[-2:]
    if min(height, width) < FRAME:
        raise UserError(f"images of {height}x{width} pixels are too small for {FRAME}x{FRAME}.")
    if (height, width) == (FRAME, FRAME) and factor == 1:
        return examples
    matrix = factor * torch.eye(2, device=examples.device)
    x = torch.cat([move(x, matrix, size=(FRAME, FRAME)) for x in examples.x.split(10_000)])
    return Examples(x, examples.y, provenance=examples.provenance)


def pixels(x: Tensor) -> Tensor:
    """Return images as codes, `batch pixels`."""
    return x.flatten(1)


def principal_components(x: Tensor, size: int) -> Encoder:
    """Return the projection on the first principal components of images."""
    pca = PCA(size, svd_solver="covariance_eigh").fit(pixels(x).numpy(force=True))
    mean, axes = torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_.T)
    return lambda images: (pixels(images).cpu() - mean) @ axes


def accuracies(
    encode: Encoder, known: Known, counts: tuple[int, ...], *, whiten: bool = False
) -> list[float]:
    """Return the accuracies (%) of nearest neighbours on codes, by how many of them vote."""
    codes = [encode(part.x) for part in known]
    labelled, asked = whitened(*codes) if whiten else codes
    return knn_accuracies(
        labelled, labels(known.labelled), asked, labels(known.asked), neighbours=counts
    )


@experiment("giannone-floors", BUDGETS, takes=TAKES, reads=reads)
def floors(context: Context) -> Result:
    """Nearest neighbours on affNIST in codes that need no network: the floor of table 1."""
    sources = [context.data] if context.data else ["mnist", "fashion-mnist"]
    rows = []
    for frame in FRAMES:
        # Of both sources they are the same images.
        probed = [transfer_data(sources[0], context, frame, validation=v) for v in (True, False)]
        for source in sources:
            splits = load(source, context.data_dir, validation=held_out(source))
            fitted = on_frame(splits.train, frame).x
            encoders: dict[str, Encoder] = {"pixels": pixels} if source == sources[0] else {}
            for size in SIZES:
                encoders[f"PCA {size}, {source}"] = principal_components(fitted, size)
            for name, encode in encoders.items():
                rows += _rows(frame, name, encode, probed)
    return Result(
        title="Accuracy (%) on affNIST of nearest neighbours in codes that need no network",
        columns=[
            *("frame", "codes", "whitened"),
            *(f"validation, k={count}" for count in COUNTS),
            *("k", "test", "seconds"),
        ],
        rows=rows,
        settings={
            **{f"{name} images": number for name, number in context.budget.own.items()},
            "transfer_data": probed[1].asked.provenance,
            "chosen": "k of each row, by its column of validation digits",
        },
        notes=[
            f"middle: the middle {FRAME}x{FRAME} of {CANVAS}x{CANVAS} pixels; shrunken: all of "
            "them, smaller. Principal components are fitted on the training images of the named "
            "data in the same frame. On validation digits the labelled are those that are neither "
            "validation nor test digits; on test digits, all that are not test digits."
        ],
    )


def _rows(frame: str, name: str, encode: Encoder, probed: list[Known]) -> list[list[object]]:
    """A row of plain codes, and one of whitened ones; pixels are not whitened."""
    rows: list[list[object]] = []
    for whiten in (False, True) if encode is not pixels else (False,):
        began = time.perf_counter()
        watched = accuracies(encode, probed[0], COUNTS, whiten=whiten)
        best = COUNTS[int(np.argmax(watched))]
        (test,) = accuracies(encode, probed[1], (best,), whiten=whiten)
        seconds = round(time.perf_counter() - began)
        rows.append([frame, name, "yes" if whiten else "no", *watched, best, test, seconds])
    return rows
