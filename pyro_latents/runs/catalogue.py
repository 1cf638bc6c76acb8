"""What `pyro-latents list` shows, without the seconds that importing torch takes."""

from collections.abc import Iterator
from typing import NamedTuple

# Packages of others add recipes by entry points of this group.
ENTRY_POINTS = "pyro_latents.recipes"

_OF_CODES = "mean-field, full-rank, low-rank, delta, flow"
_VAE = f"paper, {_OF_CODES}, refined"
_TRIPLET = "paper, gaussian-transformation, full-rank, flow"
_POSE = f"paper, point-mass, {_OF_CODES}, refined"
_GIANNONE = "Giannone et al. 2019"
_CONNOR = "Connor, Canal and Rozell 2020"
_MNIST = ("digits", "mnist", "fashion-mnist")
_ROTATED = ("digits", "mnist", "rotated-mnist")
_NUMBERS = ("digits", "mnist", "svhn", "street-mnist")
_MANIFOLDS = ("swiss-roll", "circles")


class Entry(NamedTuple):
    """The recipes of a story: their names begin with its name or others, and end with the data."""

    story: str
    data: tuple[str, ...]
    guides: str
    paper: str
    kinds: tuple[str, ...] = ()


# What the stories themselves say; a test compares the two.
ENTRIES = (
    Entry("vae", _MNIST, _VAE, "Kingma and Welling 2014"),
    Entry(
        "vaells-baselines",
        _MANIFOLDS,
        "paper",
        f"{_CONNOR}, section 4",
        ("vae", "hyperspherical-vae", "vamp-vae"),
    ),
    Entry("triplet-tvae", _MNIST, _TRIPLET, _GIANNONE),
    Entry("triplet-tvae", _MNIST[1:2], _TRIPLET, _GIANNONE, ("triplet-tvae-matrix",)),
    Entry("vae-plus", _MNIST[1:], f"paper, {_OF_CODES}", _GIANNONE),
    Entry("pose-tvae", _ROTATED, _POSE, "Vivé, thesis"),
    Entry("pose-dtvae", _ROTATED, _POSE, "Vivé, thesis"),
    Entry(
        "vaells",
        (*_MANIFOLDS, "rotated-mnist", "rotated-digits", "mnist", "digits"),
        "paper, amortised",
        _CONNOR,
    ),
    Entry("equivae", _NUMBERS, f"paper, {_OF_CODES}", "Feige 2019"),
    Entry("equivae-semi", _NUMBERS, f"paper, {_OF_CODES}", "Feige 2019"),
)


def rows() -> Iterator[tuple[str, ...]]:
    """Return the name, story, data, guides and paper of every recipe of this package."""
    for entry in ENTRIES:
        for data in entry.data:
            for kind in entry.kinds or (entry.story,):
                yield f"{kind}-{data}", entry.story, data, entry.guides, entry.paper
