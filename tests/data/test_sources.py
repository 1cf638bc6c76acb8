import pytest
import torch

from pyro_latents.data.sources import SHAPES, SOURCES, load
from pyro_latents.errors import UserError

EMBEDDED = ["digits", "rotated-digits", "swiss-roll", "circles"]


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sources_need_no_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYRO_LATENTS_DATA", raising=False)
    splits = load(name)
    assert len(splits.validation) == SOURCES[name].validation
    assert splits.provenance


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "rotated-mnist", "affnist"])
def test_sources_of_files_read_the_data_folder(name, tiny_idx):
    root = tiny_idx("FashionMNIST" if name == "fashion-mnist" else "MNIST")
    splits = load(name, root, validation=5)
    assert splits.shape == SHAPES[name]
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [25, 5, 10]
    assert splits.num_classes == 10


@pytest.mark.parametrize("name", EMBEDDED)
def test_shapes_are_known_without_loading(name):
    assert load(name, limit_train=2).shape == SHAPES[name]


def test_the_environment_names_the_data_folder(tiny_idx, monkeypatch):
    monkeypatch.setenv("PYRO_LATENTS_DATA", str(tiny_idx("MNIST")))
    assert len(load("mnist", validation=0).train) == 30


def test_the_argument_goes_before_the_environment(tiny_idx, monkeypatch):
    monkeypatch.setenv("PYRO_LATENTS_DATA", "/nowhere")
    assert len(load("mnist", tiny_idx("MNIST"), validation=0).train) == 30


def test_the_default_folder_is_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYRO_LATENTS_DATA", raising=False)
    with pytest.raises(UserError, match="MNIST not found in data: there is no data/MNIST/raw"):
        load("mnist")


def test_limit_train_keeps_the_first_and_nothing_else_changes():
    whole, limited = load("digits"), load("digits", limit_train=20)
    assert torch.equal(limited.train.x, whole.train.x[:20])
    assert torch.equal(limited.test.x, whole.test.x)
    assert limited.train.x.untyped_storage().nbytes() < 100_000


def test_limit_train_beyond_the_data_keeps_all():
    assert len(load("circles", limit_train=10_000).train) == 400


def test_rejects_a_limit_below_one():
    with pytest.raises(UserError, match="--limit-train must be at least 1; got 0"):
        load("digits", limit_train=0)


def test_rejects_an_unknown_name_with_the_near_ones():
    with pytest.raises(UserError, match="no data set 'mnits': did you mean mnist."):
        load("mnits")
    with pytest.raises(UserError, match="no data set 'cifar': there are digits, rotated-digits, "):
        load("cifar")


def test_loads_onto_a_device():
    assert load("swiss-roll", device="meta").test.device == torch.device("meta")


def test_reading_the_registry_imports_no_data_library():
    import subprocess
    import sys

    code = (
        "import sys, pyro_latents.data.sources; "
        "print(sorted({'torchvision', 'sklearn', 'scipy', 'pyro'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
