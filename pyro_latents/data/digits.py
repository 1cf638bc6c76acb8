"""The handwritten digits that ship with scikit-learn: real data without a download."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.folders import held_out

SHAPE = (1, 28, 28)
# The proportions of the frame are MNIST's, so that a digit can be turned without losing ink.
INK, MARGIN = 20, 4
NUM_TEST = 360
SPLIT_SEED = 0


def digits(validation: int = 180) -> Splits:
    """The 1,797 digits of scikit-learn, enlarged from 8x8 to 20x20 in a frame of 28x28.

    The splits are the same on every call: 360 digits for testing, ``validation`` for validation
    and the rest for training, each with the classes in the proportions of the whole. Training
    digits are in an order in which every beginning is stratified as well.

    Raises:
        UserError: if the validation set leaves nothing to train on.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    y = torch.from_numpy(raw.target).long()
    images = torch.from_numpy(raw.images).float().unsqueeze(1) / 16
    enlarged = F.interpolate(images, size=(INK, INK), mode="bicubic", align_corners=False)
    x = F.pad(enlarged.clamp(0, 1), (MARGIN,) * 4)

    whole = Examples(x, y, provenance="scikit-learn digits, 8x8 enlarged to 20x20 in 28x28")
    order = stratified_order(y)
    # Validation digits come right after those for testing.
    rest = whole.take(order[NUM_TEST:].roll(-validation))
    return Splits(*held_out(rest, validation, "digits"), whole.take(order[:NUM_TEST]), 10)


def stratified_order(y: Tensor) -> Tensor:
    """A fixed random order in which every stretch has the classes in their proportions.

    Each label's digits are shuffled and spread evenly over the whole.
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    order = torch.randperm(len(y), generator=generator)
    order = order[y[order].argsort(stable=True)]
    counts = y.bincount()
    rank = torch.arange(len(y)) - (counts.cumsum(0) - counts)[y[order]]
    place = (rank + 0.5) / counts[y[order]]
    return order[place.argsort(stable=True)]
