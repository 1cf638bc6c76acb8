"""Print the first training losses of every recipe to the last digit, and what a change moved.

Each training is `recipe.train` on one thread of the CPU, from seed 0, with so little data that it
crosses the ends of epochs. Beside its losses, in nats per data point, stand those of validation
and a digest of all parameters afterwards. Recipes are trained with the paper's guide and with
another one where they have it, and once more with other settings where the first steps would not
show all that a training does: phases, weights that change, learning rates that are halved. A
recipe whose data are not at hand is left out, and named on the error stream.

    python benchmarks/first_losses.py [RECIPE ...] [--data-dir DIR] --out before.json
        [--guides paper|two|all] [--precision 64-true]
    python benchmarks/first_losses.py [RECIPE ...] [--data-dir DIR] --against before.json
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from csv import DictReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_latents import zoo
from pyro_latents.errors import UserError
from pyro_latents.runs.recipe import Run
from pyro_latents.training.history import Progress

# Of an epoch: the last, incomplete one must be left out.
BATCHES = 7.5
VALIDATION = 64

# Every phase of VAELLS in twenty steps, and every change of weight of the EquiVAE.
PHASES = {"warm_up": 8, "network_steps": 4, "operator_steps": 4, "candidates": 2}
RISING = {"warm_up": 0.5, "ramp": 0.5, "label_delay": 0.5, "label_ramp": 0.5}
# SVHN's recipes have networks of their own, which need not wait for its data.
ON_DIGITS = {"data": "digits", "validation": 180}

Settings = dict[str, Any]
Found = dict[str, dict[str, dict[str, Any]]]

# By recipe and name: settings other than the recipe's own.
VARIANTS: dict[str, dict[str, Settings]] = {
    "vae-digits": {
        "halved": {"halve_every": 1},
        "clipped": {"gradient_clip": 1.0},
        "binarised": {"binarise": True},
        "dense": {"networks": "dense"},
        "normal": {"likelihood": "normal"},
    },
    "triplet-tvae-digits": {
        "matrix": {"transformation": "matrix"},
        "kl": {"coherence": "kl"},
        "marginal": {"coherence": "marginal"},
        "pixelations": {"views": "pixelations", "num_views": 3},
    },
    "pose-tvae-digits": {
        "tps": {"warp": "tps"},
        "turns": {"warp": "affine5", "num_turns": 4},
        "full-3": {"pose_prior": "full", "pose_rank": 3},
        "affine5-prior": {"warp": "affine5", "pose_prior": "affine5"},
    },
    "pose-dtvae-digits": {"fitted": {"pose_prior": "fitted"}},
    "vaells-swiss-roll": {
        "phases": PHASES,
        "scale": {**PHASES, "latent_scale": 0.0},
        "joint": {"network_steps": 0, "operator_steps": 0},
    },
    "vaells-circles": {"phases": PHASES, "warm-up": {"warm_up": 8}},
    "vaells-rotated-digits": {"phases": PHASES, "scale": {**PHASES, "latent_scale": 0.0}},
    "vaells-rotated-mnist": {"phases": PHASES},
    "vaells-digits": {"phases": PHASES},
    "vaells-mnist": {"phases": PHASES},
    "equivae-digits": {"deform": {"deform": 0.1}},
    "equivae-svhn": {"digits": ON_DIGITS},
    "equivae-semi-digits": {
        "schedule": RISING,
        "shared": {**RISING, "label_posterior": "shared"},
        "distance": {**RISING, "label_posterior": "distance"},
    },
    "equivae-semi-mnist": {"schedule": RISING},
    "equivae-semi-svhn": {"digits": {**ON_DIGITS, **RISING, "labels": 100}},
}


@contextmanager
def recorded() -> Iterator[list[Tensor]]:
    """Hand out the list that the losses of training steps are added to, in their order.

    This is the one place that knows the training loop: it gives the loss of each step, and of
    nothing else, to `Progress.count`.
    """
    losses: list[Tensor] = []
    count = Progress.count

    def counted(self: Progress, loss: Tensor) -> None:
        losses.append(loss)
        count(self, loss)

    Progress.count = counted  # type: ignore[method-assign]
    try:
        yield losses
    finally:
        Progress.count = count  # type: ignore[method-assign]


def cases(name: str, which: str) -> Iterator[tuple[str, str, Settings]]:
    """The trainings of a recipe: name, guide and settings of each."""
    guides = list(zoo.recipes()[name].guides)
    # A guide that is refined at evaluation trains as the paper's does.
    others = [guide for guide in guides[1:] if guide != "refined"][-1:]
    chosen = {"all": guides, "two": guides[:1] + others, "paper": guides[:1]}[which]
    yield from ((name, guide, {}) for guide in chosen)
    for label, settings in VARIANTS.get(name, {}).items():
        few = guides if which == "all" else guides[:1]
        yield from ((f"{name} {label}", guide, settings) for guide in few)


def train_on_little(
    name: str, guide: str, settings: Settings, data_dir: str | None, out: Path, **options: Any
) -> Run:
    """Train a recipe on so little data that some steps cross the ends of epochs."""
    known = zoo.recipes()[name]
    settings = {"validation": min(known.validation, VALIDATION), **settings}
    # Labelled points are no part of the batches of the others.
    labels = settings.get("labels", getattr(known, "labels", 0))
    limit = int(BATCHES * settings.get("batch_size", known.batch_size)) + labels
    recipe = zoo.recipe(name, guide=guide, data_dir=data_dir, limit_train=limit, **settings)
    return recipe.train(out, accelerator="cpu", progress=False, **options)


def first_losses(
    name: str, guide: str, settings: Settings, *, data_dir: str | None, **options: Any
) -> dict[str, Any]:
    """Train for some steps and return the losses, and what became of the parameters."""
    with recorded() as losses, tempfile.TemporaryDirectory() as folder:
        run = train_on_little(name, guide, settings, data_dir, Path(folder) / "run", **options)
        rows = list(DictReader((run.path / "history.csv").open()))
    return {
        "losses": [loss.item() for loss in losses],
        "validation": [float(r["validation_loss"]) for r in rows if r["validation_loss"]],
        **summary([run.recipe.model, run.recipe.guide]),
    }


def summary(programs: Iterable[nn.Module]) -> dict[str, Any]:
    """The norm, digest and number of the parameters, whatever their names and order are."""
    parameters = {id(p): p.detach() for program in programs for p in program.parameters()}
    digests = sorted(
        hashlib.sha256(
            repr(tuple(p.shape)).encode() + p.contiguous().numpy().tobytes()
        ).hexdigest()
        for p in parameters.values()
    )
    squares = [p.double().square().sum().item() for p in parameters.values()]
    return {
        "norm": torch.tensor(squares, dtype=torch.float64).sum().sqrt().item(),
        "sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "parameters": sum(p.numel() for p in parameters.values()),
    }


def difference(new: dict[str, Any], old: dict[str, Any]) -> str:
    """What differs between two trainings in words, nothing if nothing does."""
    said = []
    for kind in ("losses", "validation"):
        for number, (a, b) in enumerate(zip(new[kind], old[kind], strict=False)):
            if a != b:
                largest = max(abs(a - b) for a, b in zip(new[kind], old[kind], strict=False))
                said.append(
                    f"{kind} from {number} on, {a!r} was {b!r}: by {abs(a - b):.2g} there and "
                    f"{largest:.2g} at most"
                )
                break
    if len(new["losses"]) == len(old["losses"]) and new["sha256"] != old["sha256"]:
        said.append(
            f"parameters ({new['parameters']}, were {old['parameters']}), their norm by "
            f"{abs(new['norm'] - old['norm']):.2g} of {old['norm']:.6g}"
        )
    return "; ".join(said)


def compare(found: Found, before: Found) -> int:
    """Print what differs from an earlier run on the error stream; return in how many trainings."""
    differ = same = 0
    for case, guides in found.items():
        for guide, new in guides.items():
            old = before.get(case, {}).get(guide)
            text = "not there before" if old is None else difference(new, old)
            if text:
                print(f"{case}, {guide}: {text}", file=sys.stderr)
            differ, same = differ + bool(text and old), same + (not text)
    print(f"{same} trainings are the same to the last digit, {differ} are not.", file=sys.stderr)
    return differ


def main() -> None:
    """Train everything and print the losses as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="all of them by default")
    parser.add_argument("--data-dir")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guides", choices=("paper", "two", "all"), default="two")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--against", type=Path, help="what was printed before a change")
    parser.add_argument("--out", type=Path, help="a file, in the place of the output stream")
    given = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(given.against.read_text()) if given.against else None
    found: Found = {}
    for name in given.recipes or zoo.recipes():
        for case, guide, settings in cases(name, given.guides):
            try:
                one = first_losses(
                    name,
                    guide,
                    settings,
                    steps=given.steps,
                    data_dir=given.data_dir,
                    precision=given.precision,
                )
            except UserError as error:
                print(f"{case}, {guide}: left out, {error}", file=sys.stderr)
                continue
            found.setdefault(case, {})[guide] = one
    text = json.dumps(found, indent=1)
    if given.out:
        given.out.write_text(text + "\n")
    else:
        print(text)
    if before is not None:
        sys.exit(1 if compare(found, before) else 0)


if __name__ == "__main__":
    main()
