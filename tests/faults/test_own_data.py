"""Data of one's own on the command line: used as any other, and refused in one line."""

import shutil

import numpy as np
import pytest
from PIL import Image

from pyro_latents import zoo
from pyro_latents.cli import main

DENSE = "--networks dense --hidden-dims [8] --batch-size 20 --steps 1 --accelerator cpu"
VAE = f"train vae-digits --out new/run {DENSE}"
EQUIVAE = "train equivae-digits --out new/run --steps 1 --batch-size 20 --accelerator cpu"
VAELLS = "train vaells-digits --out new/run --warm-up 0 --steps 1 --batch-size 9 --accelerator cpu"
COUNT = 60


def grey(side=28, count=COUNT):
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


def write_images(folder, *sizes, mode="L"):
    folder.mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.new(mode, size).save(folder / f"{i}.png")


def archive(path, **arrays):
    np.savez(path / "my.npz", **arrays)


MADE = {
    "a name that is none": (lambda p: None, VAE, "cats", "there is no data set 'cats': there are"),
    "a misspelt name": (lambda p: None, VAE, "digts", "did you mean digits?"),
    "a file that is none": (lambda p: None, VAE, "my.npy", "there is no file or folder 'my.npy'"),
    "words in a file": (
        lambda p: (p / "my.npy").write_text("cats"),
        VAE,
        "my.npy",
        "my.npy cannot be read as an array of numbers",
    ),
    "another file": (
        lambda p: (p / "my.csv").write_text("1,2"),
        VAE,
        "my.csv",
        "my.csv is no data: give a .npy or .npz file",
    ),
    "objects": (
        lambda p: np.save(p / "my.npy", np.array([{}])),
        VAE,
        "my.npy",
        "cannot be read as an array of numbers",
    ),
    "objects in an archive": (
        lambda p: archive(p, x=np.array([{}])),
        VAE,
        "my.npz",
        "cannot be read as an array of numbers",
    ),
    "a range": (
        lambda p: np.save(p / "my.npy", grey().astype(np.float32)),
        VAE,
        "my.npy",
        "has pixels from 0 to 255: images are numbers from 0 to 1",
    ),
    "names of arrays": (
        lambda p: archive(p, a=grey(), b=grey()),
        VAE,
        "my.npz",
        "has a, b: name the data points x",
    ),
    "an empty folder": (lambda p: (p / "cats").mkdir(), VAE, "cats", "has no images"),
    "a broken image": (
        lambda p: (write_images(p / "cats", (28, 28)), (p / "cats/0.png").write_bytes(b"\x89PNG")),
        VAE,
        "cats",
        "0.png cannot be read as an image",
    ),
    "images of two sizes": (
        lambda p: write_images(p / "cats", *[(28, 28)] * 12, (28, 27)),
        VAE,
        "cats",
        "12.png is grey, 27 x 28 and",
    ),
    "no size for the networks": (
        lambda p: np.save(p / "my.npy", grey(32)),
        VAE.replace("dense", "conv"),
        "my.npy",
        "--networks conv is for images of 28 x 28",
    ),
    "vectors for a story of images": (
        lambda p: np.save(p / "my.npy", grey().reshape(COUNT, -1)),
        EQUIVAE,
        "my.npy",
        "equivae is for images, not for",
    ),
    "no labels for a story of classes": (
        lambda p: np.save(p / "my.npy", grey()),
        EQUIVAE,
        "my.npy",
        "these data have no labels",
    ),
    "one of a class": (
        lambda p: archive(p, x=grey(), y=np.minimum(np.arange(COUNT), 1)),
        EQUIVAE,
        "my.npz",
        "class 0 has 1 labelled example: a complementary set needs",
    ),
    "fewer of a class than anchors": (
        lambda p: archive(p, x=grey(), y=np.arange(COUNT) % 12),
        VAELLS,
        "my.npz",
        "training points, fewer than --num-anchors 8",
    ),
}


@pytest.mark.parametrize(("make", "command", "data", "words"), MADE.values(), ids=MADE)
def test_refused(make, command, data, words, tmp_path, refused):
    make(tmp_path)
    refused(f"{command} --data {data}", words)


def test_every_command_on_a_run_of_ones_own(tmp_path, monkeypatch, refused):
    """It is trained, measured and drawn, and again where the file has gone to another place."""
    monkeypatch.chdir(tmp_path)
    np.savez("my.npz", x=grey(20), y=np.arange(COUNT) % 3)
    assert main(f"{VAE} --data my.npz".split()) == 0
    assert zoo.open_run("new/run").story.x_shape == (1, 20, 20)
    (tmp_path / "else").mkdir()
    shutil.move("my.npz", "else/my.npz")
    evaluate = "evaluate new/run --particles 2 --limit-test 3 --likelihood-points 3"
    refused(evaluate, "name the folder that has my.npz now with --data-dir")
    assert main(f"{evaluate} --data-dir else".split()) == 0
    assert main("plot new/run --data-dir else".split()) == 0


def test_paths_and_vectors_without_classes_serve_every_story(tmp_path):
    """VAELLS takes points without labels as one class."""
    points = np.random.default_rng(0).normal(size=(COUNT, 5)).astype(np.float32)
    np.save(tmp_path / "my.npy", points)
    options = {"batch_size": 9, "validation": 0, "candidates": 0}
    run = zoo.recipe("vaells-swiss-roll", data=tmp_path / "my.npy", **options).train(
        tmp_path / "run", steps=1, progress=False, accelerator="cpu"
    )
    assert run.story.x_shape == (5,)
    assert run.parts.model.anchors.shape == (1, 4, 5)
    run.evaluate(particles=2, likelihood_points=3, limit_test=3)
