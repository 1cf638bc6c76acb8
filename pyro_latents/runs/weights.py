"""Weights that come with the package: runs that are read here, and whose results go elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.runs.folder import PREFIX, WEIGHTS, ResultsApart, RunFolder, read_weights
from pyro_latents.text import did_you_mean

PACKAGED = Path(__file__).parents[1] / "weights"
# The card of weights, as people read it (`runs.card` writes it).
MARKDOWN = "card.md"
_VERSIONED = re.compile(r"(.+)-v(\d+)")


def pretrained_names() -> list[str]:
    """Return the names of all weights that come with the package, old versions included."""
    found = [path.parent.name for path in PACKAGED.glob("*/config.yaml")]
    return sorted(found, key=_order)


def newest(name: str) -> str | None:
    """Return the name with its version: the newest if it has none; None if there is no such."""
    known = pretrained_names()
    if name in known:
        return name
    versions = [full for full in known if _order(full)[0] == name]
    return versions[-1] if versions else None


def packaged(name: str) -> Path:
    """Return where weights are, by their name or that of all their versions.

    Raises:
        UserError: if there are none.
    """
    full = newest(name)
    if full is None:
        near = did_you_mean(name, pretrained_names(), "`pyro-latents pretrained` lists them.")
        raise UserError(f"there are no pretrained weights {name!r}: {near}")
    return PACKAGED / full


def pretrained_card(name: str) -> str:
    """Return the card of pretrained weights, in Markdown: what they are, and what they come to.

    Args:
        name: Of the weights, with or without their version.

    Raises:
        UserError: if there are no such weights, with the near names.
    """
    return (packaged(name) / MARKDOWN).read_text()


def pretrained_folder(name: str, out: str | Path | None = None) -> PretrainedFolder:
    """Return the folder of weights by name; ``out`` is for results, ``runs/NAME`` by default.

    Raises:
        UserError: if there are no such weights, or another run is where the results would go.
    """
    source = packaged(name)
    return PretrainedFolder(source, Path("runs", source.name) if out is None else Path(out))


def folder_of(path: str | Path) -> RunFolder:
    """Return the folder of a run: one that a training wrote, or weights that have its name.

    Weights are named alone, as in ``vae-mnist``, or by the place of their results, as in
    ``runs/vae-mnist-v1``.
    """
    path = Path(path)
    if not path.exists() and len(path.parts) == 1 and newest(path.name):
        return pretrained_folder(path.name)
    if path.name in pretrained_names() and not RunFolder(path).config_path.exists():
        return pretrained_folder(path.name, path)
    return RunFolder(path)


class PretrainedFolder(ResultsApart):
    """Weights of the package, and a folder of the user's for what is measured and drawn of them.

    Weights of another guide for a frozen model have the guide's parameters alone, and the model's
    are those of the weights that their configuration names.

    Args:
        source: The folder of the weights, which is only read.
        results: The folder for results, which is made once there are some.
    """

    def __init__(self, source: Path, results: Path) -> None:
        super().__init__(RunFolder(source), results)
        self.source = source
        if RunFolder(results).config_path.exists():
            raise UserError(
                f"{results} holds a run already: give the results of {source.name} another out."
            )
        if not self.reference_path.exists():
            self.reference_path = self.run.reference_path

    def read_metrics(self) -> dict[str, float]:
        """Return what was measured of the run: here, and before the weights were packaged."""
        return {**self.run.read_metrics(), **super().read_metrics()}

    def _stored(self) -> tuple[Path, dict[str, Tensor]]:
        path = self.source / WEIGHTS
        return path, read_weights(path, self._model())

    def _model(self) -> dict[str, Tensor]:
        """The parameters of the model that the guide was trained for, if it is another's."""
        origin = self.read_config().get("model_from")
        if origin is None:
            return {}
        base = read_weights(self.source.parent / origin["run"] / WEIGHTS)
        return {name: value for name, value in base.items() if name.startswith(PREFIX)}


def _order(name: str) -> tuple[str, int]:
    """The name without its version, and the version."""
    found = _VERSIONED.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 0)
