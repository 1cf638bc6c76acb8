"""What is measured and drawn of a run on other data than those of its training, kept apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pyro_latents.data.own import IN_MEMORY, in_memory
from pyro_latents.data.points import as_tensor
from pyro_latents.data.sources import SOURCES
from pyro_latents.errors import UserError
from pyro_latents.runs.folder import ON, ResultsApart, RunFolder

# Letters of a hash that tell data of one's own of one name apart.
HASHED = 8


def folder_for(folder: RunFolder, data: Any) -> RunFolder:
    """Return where the results of a run on some data go.

    Args:
        folder: The run.
        data: Data as a `Run` takes them; None for those of its training.
    """
    settings = folder.read_config()["settings"]
    if data is None or _name_of(data) == settings.get("data"):
        return folder
    return OnOtherData(folder, data)


class OnOtherData(ResultsApart):
    """A run's files, which are read, and a folder within for its results on other data.

    Args:
        run: The run.
        data: The other data.
    """

    def __init__(self, run: RunFolder, data: Any) -> None:
        self.data = _name_of(data)
        super().__init__(run, run.path / f"{ON}{_label(self.data, data)}")

    def of_training(self) -> RunFolder:
        """The run, with its results on the data of its training."""
        return self.run


def _name_of(data: Any) -> str:
    """What data are called, as a story has it."""
    if not isinstance(data, str | Path):
        return IN_MEMORY
    path = Path(data).expanduser()
    return str(data) if str(data) in SOURCES or not path.exists() else str(path.resolve())


def _label(name: str, data: Any) -> str:
    """What the folder for data is called; no two data of one's own share one."""
    if name in SOURCES:
        return name
    if name != IN_MEMORY:
        return f"{Path(name).stem}-{hashlib.sha256(name.encode()).hexdigest()[:HASHED]}"
    found = hashlib.sha256()
    try:
        for part, (x, _) in sorted(in_memory(data).items()):
            found.update(part.encode() + as_tensor(x).cpu().contiguous().numpy().tobytes())
    except UserError:
        # What is wrong with them is said where they are read.
        return name
    return f"{name}-{found.hexdigest()[:HASHED]}"
