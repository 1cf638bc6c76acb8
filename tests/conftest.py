import os
from pathlib import Path

import pyro
import pytest
import torch

# More than one for `.ci/other-processors` alone.
THREADS = int(os.environ.get("PYRO_LATENTS_TEST_THREADS", "1"))


@pytest.fixture(autouse=True)
def _reproducible():
    """Each test has its own seed state, one thread, validation, and an empty parameter store."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    pyro.enable_validation(True)
    pyro.clear_param_store()


@pytest.fixture
def float64():
    """Run a numerical test in double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the MNIST files, for the tests that need the real ones."""
    folder = os.environ.get("PYRO_LATENTS_DATA")
    if not folder or not (Path(folder) / "MNIST" / "raw").is_dir():
        pytest.skip("PYRO_LATENTS_DATA names no folder with the MNIST files")
    return Path(folder)
