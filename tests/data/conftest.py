import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_latents.data.folders import VARIABLE


@pytest.fixture
def mnist_dir() -> Path:
    """The root folder of the real data."""
    root = Path(os.environ.get(VARIABLE, ""))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"{VARIABLE} does not name a folder with MNIST/raw")
    return root


@pytest.fixture
def write_idx() -> Callable[[Path, np.ndarray], None]:
    """Writes an IDX file of bytes."""

    def write(path: Path, values: np.ndarray) -> None:
        magic = 2048 + values.ndim
        header = np.array([magic, *values.shape], dtype=">u4").tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header + values.astype(np.uint8).tobytes())

    return write


@pytest.fixture
def tiny_idx(tmp_path: Path, write_idx) -> Callable[[str], Path]:
    """Writes a data set of 30 training and 10 test images in the layout of MNIST."""

    def write(title: str) -> Path:
        rng = np.random.default_rng(0)
        for part, size in (("train", 30), ("t10k", 10)):
            folder = tmp_path / title / "raw"
            images = np.zeros((size, 28, 28))
            images[:, 8:20, 10:18] = rng.integers(0, 256, (size, 12, 8))
            write_idx(folder / f"{part}-images-idx3-ubyte", images)
            write_idx(folder / f"{part}-labels-idx1-ubyte", np.arange(size) % 10)
        return tmp_path

    return write
