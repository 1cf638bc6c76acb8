"""What `pyro-latents list` shows, without the seconds that importing torch takes."""

from collections.abc import Iterator
from dataclasses import dataclass

# Packages of others add recipes by entry points of this group.
ENTRY_POINTS = "pyro_latents.recipes"

_OF_CODES = "mean-field, full-rank, low-rank, delta, flow"
_VAE = f"paper, {_OF_CODES}, refined"
_POSE = f"paper, point-mass, {_OF_CODES}, refined"
_CONNOR = "Connor, Canal and Rozell 2020"


@dataclass(frozen=True)
class Entry:
    """The recipes of a story: their data by name, and what they have in common."""

    story: str
    paper: str
    guides: str
    recipes: dict[str, str]


# What the stories themselves say; a test compares the two.
ENTRIES = (
    Entry(
        "vae",
        "Kingma and Welling 2014",
        _VAE,
        {"vae-digits": "digits", "vae-mnist": "mnist", "vae-fashion-mnist": "fashion-mnist"},
    ),
    Entry(
        "vaells-baselines",
        f"{_CONNOR}, section 4",
        "paper",
        {
            f"{kind}-{data}": data
            for data in ("swiss-roll", "circles")
            for kind in ("vae", "hyperspherical-vae", "vamp-vae")
        },
    ),
    Entry(
        "triplet-tvae",
        "Giannone et al. 2019",
        "paper, gaussian-transformation, full-rank, flow",
        {f"triplet-tvae-{data}": data for data in ("digits", "mnist", "fashion-mnist")},
    ),
    Entry(
        "vae-plus",
        "Giannone et al. 2019",
        _VAE,
        {f"vae-plus-{data}": data for data in ("mnist", "fashion-mnist")},
    ),
    *(
        Entry(
            story,
            "Vivé, thesis",
            _POSE,
            {f"{story}-{data}": data for data in ("digits", "mnist", "rotated-mnist")},
        )
        for story in ("pose-tvae", "pose-dtvae")
    ),
    Entry(
        "vaells",
        _CONNOR,
        "paper, amortised",
        {
            f"vaells-{data}": data
            for data in (
                "swiss-roll",
                "circles",
                "rotated-mnist",
                "rotated-digits",
                "mnist",
                "digits",
            )
        },
    ),
    *(
        Entry(
            story,
            "Feige 2019",
            f"paper, {_OF_CODES}",
            {f"{story}-{data}": data for data in ("digits", "mnist", "svhn")},
        )
        for story in ("equivae", "equivae-semi")
    ),
)


def rows() -> Iterator[tuple[str, ...]]:
    """Return the name, story, data, guides and paper of every recipe of this package."""
    for entry in ENTRIES:
        for name, data in entry.recipes.items():
            yield name, entry.story, data, entry.guides, entry.paper
