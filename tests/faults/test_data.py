"""Data that are missing, broken, or of another kind: told before anything is made."""

import gzip
import shutil

import numpy as np
import pytest
import scipy.io

from pyro_latents.cli import main

POINTS = 40
IMAGES, LABELS = "MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte"
MNIST = (
    "train vae-mnist --networks dense --hidden-dims [8] --validation 10 --batch-size 10 --steps 1 "
    "--accelerator cpu --data-dir data --out new/run"
)
SVHN = (
    "train equivae-svhn --limit-train 40 --validation 10 --steps 1 --accelerator cpu "
    "--data-dir data --out new/run"
)


def images(count=POINTS, side=28, magic=2051):
    header = b"".join(n.to_bytes(4, "big") for n in (magic, count, side, side))
    return header + bytes(count * side * side)


def labels(count=POINTS, label=None, magic=2049):
    values = [i % 10 if label is None else label for i in range(count)]
    return magic.to_bytes(4, "big") + count.to_bytes(4, "big") + bytes(values)


@pytest.fixture
def mnist(tmp_path):
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels())
    return tmp_path / "data"


def write(name, content):
    return lambda data: (data / name).write_bytes(content)


def remove(name):
    def take(data):
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return take


def fold(name):
    def put(data):
        (data / name).unlink()
        (data / name).mkdir()

    return put


def become_a_file(data):
    shutil.rmtree(data)
    data.write_bytes(b"")


OF_MNIST = {
    "no folder": (lambda data: shutil.rmtree(data), "MNIST not found in data"),
    "a file for the folder": (become_a_file, "MNIST not found in data"),
    "an empty folder": (remove("MNIST"), "MNIST not found in data"),
    "no images": (remove(IMAGES), "there is no data/MNIST/raw/train-images-idx3-ubyte"),
    "no labels": (remove(LABELS), "there is no data/MNIST/raw/train-labels-idx1-ubyte"),
    "no test images": (remove(IMAGES.replace("train", "t10k")), "there is no data/MNIST/raw/t10k"),
    "a folder for the images": (fold(IMAGES), "MNIST not found in data"),
    "an empty file": (write(IMAGES, b""), "train-images-idx3-ubyte is truncated"),
    "half a header": (write(IMAGES, images()[:6]), "train-images-idx3-ubyte is truncated"),
    "half of the images": (write(IMAGES, images()[:999]), "is truncated: it has 999 bytes"),
    "more than there should be": (write(IMAGES, images() + b"0"), "is too long: it has"),
    "none at all": (write(IMAGES, images(0)), "is empty: it has 16 bytes"),
    "a compressed file": (write(IMAGES, gzip.compress(images())), "Unpack it if it is compressed"),
    "words": (write(IMAGES, b"<html>404 Not Found</html>"), "not with the 2051 of an IDX file"),
    "labels for images": (write(IMAGES, labels()), "begins with 2049, not with the 2051"),
    "images for labels": (write(LABELS, images()), "begins with 2051, not with the 2049"),
    "other sides": (write(IMAGES, images(side=32)), "holds images of 32x32 pixels, not 28x28"),
    "fewer labels": (write(LABELS, labels(7)), "has 7 labels for the 40 images"),
    "half of the labels": (write(LABELS, labels()[:20]), "train-labels-idx1-ubyte is truncated"),
    "labels of an eleventh class": (write(LABELS, labels(label=10)), "train-labels-idx1-ubyte"),
    "a negative size": (
        write(IMAGES, images()[:4] + b"\xff\xff\xff\xff" + images()[8:]),
        "train-images-idx3-ubyte is truncated",
    ),
}


@pytest.mark.parametrize(("damage", "words"), OF_MNIST.values(), ids=OF_MNIST)
def test_mnist(damage, words, mnist, refused):
    damage(mnist)
    refused(MNIST, words)


def test_more_validation_than_there_is(mnist, refused):
    refused(f"{MNIST} --validation 40", "--validation must be in 0..39 for MNIST")


def test_a_run_whose_data_have_moved(mnist, refused, tmp_path, monkeypatch):
    """It is measured where the data are now, by the option or the variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYRO_LATENTS_DATA", raising=False)
    assert main(MNIST.split()) == 0
    shutil.move(mnist, tmp_path / "elsewhere")
    evaluate = "evaluate new/run --particles 2 --limit-test 3 --likelihood-points 3"
    refused(evaluate, "Name its folder with --data-dir or PYRO_LATENTS_DATA")
    assert main(f"{evaluate} --data-dir elsewhere".split()) == 0
    for command in (
        "plot new/run",
        "compare new/run new/run --points 3 --particles 2 --out new/c",
    ):
        assert main(f"{command} --data-dir elsewhere".split()) == 0
    monkeypatch.setenv("PYRO_LATENTS_DATA", str(tmp_path / "elsewhere"))
    assert main(evaluate.split()) == 0
    assert (
        main(
            MNIST.replace("--steps 1", "--steps 1 --resume").replace("data ", "elsewhere ").split()
        )
        == 0
    )


def svhn(**changes):
    content = {
        "X": np.zeros((32, 32, 3, POINTS), np.uint8),
        "y": np.arange(1, POINTS + 1)[:, None] % 10 + 1,
        **changes,
    }
    return {name: value for name, value in content.items() if value is not None}


OF_SVHN = {
    "no file": (None, "SVHN not found in data"),
    "words": (b"<html>404 Not Found</html>", "train_32x32.mat"),
    "an empty file": (b"", "train_32x32.mat"),
    "no images": (svhn(X=None), "train_32x32.mat"),
    "no labels": (svhn(y=None), "train_32x32.mat"),
    "other sides": (svhn(X=np.zeros((28, 28, 3, POINTS), np.uint8)), "must hold X of 32x32x3xN"),
    "grey images": (svhn(X=np.zeros((32, 32, POINTS), np.uint8)), "train_32x32.mat"),
    "numbers for bytes": (svhn(X=np.zeros((32, 32, 3, POINTS))), "must hold X of 32x32x3xN bytes"),
    "fewer labels": (svhn(y=np.ones((3, 1), int)), "and as many labels y"),
    "labels of a twelfth class": (svhn(y=np.full((POINTS, 1), 12)), "train_32x32.mat"),
    "words for labels": (svhn(y=np.array([["a"]] * POINTS)), "train_32x32.mat"),
}


@pytest.mark.parametrize(("content", "words"), OF_SVHN.values(), ids=OF_SVHN)
def test_svhn(content, words, tmp_path, refused):
    data = tmp_path / "data"
    data.mkdir()
    scipy.io.savemat(data / "test_32x32.mat", svhn())
    if isinstance(content, dict):
        scipy.io.savemat(data / "train_32x32.mat", content)
    elif content is not None:
        (data / "train_32x32.mat").write_bytes(content)
    refused(SVHN, words)
