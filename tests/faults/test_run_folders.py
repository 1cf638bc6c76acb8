"""Run folders that are damaged, of another version, or of another run."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from faults.conftest import SMALL, contents

from pyro_latents.errors import UserError
from pyro_latents.training.checkpoint import read_checkpoint, write_checkpoint

EVALUATE = "evaluate run --particles 3 --limit-test 4 --likelihood-points 4"
CHECK = "check run --images 4 --draws 2"
COMPARE = "compare run run --particles 3 --points 4"
CALIBRATE = "calibrate run --points 4 --draws 3"
RESUME = f"train vae-digits {SMALL} --epochs 3 --out run --resume"
# Each reads all that a run needs to be rebuilt.
READERS = {
    "evaluate": EVALUATE,
    "check": CHECK,
    "compare": COMPARE,
    "calibrate": CALIBRATE,
    "plot": "plot run",
}


def write(name, content):
    """Put bytes in the place of a file."""
    return lambda run: (run / name).write_bytes(content)


def remove(name):
    return lambda run: (run / name).unlink()


def fold(name):
    """Put a folder in the place of a file."""

    def put(run):
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return put


def configure(**changes):
    """Change entries of the configuration; None removes one, and a dotted name is within."""

    def change(run):
        config = yaml.safe_load((run / "config.yaml").read_text())
        for name, value in changes.items():
            *within, last = name.split("__")
            place = config[within[0]] if within else config
            if value is None:
                del place[last]
            else:
                place[last] = value
        (run / "config.yaml").write_text(yaml.safe_dump(config))

    return change


def save(**changes):
    """Change entries of the checkpoint; a function is applied to what there is."""

    def change(run):
        content = read_checkpoint(run / "checkpoint.ckpt")
        for name, value in changes.items():
            content[name] = value(content[name]) if callable(value) else value
        write_checkpoint(run / "checkpoint.ckpt", content)

    return change


def truncate(run):
    content = (run / "checkpoint.ckpt").read_bytes()
    (run / "checkpoint.ckpt").write_bytes(content[: len(content) // 2])


def fold_the_page(run):
    fold("report.html")(run)
    # Pictures are drawn where there are none.
    (run / "figures").mkdir()
    (run / "figures" / "history.png").write_bytes(b"")


class Harmful:
    def __reduce__(self):
        return Path.mkdir, (Path("harmed"),)


def harm(run):
    torch.save({"parameters": Harmful()}, run / "checkpoint.ckpt")


def not_a_number(parameters):
    return {name: value * torch.nan for name, value in parameters.items()}


def wider(parameters):
    return {name: torch.zeros(3, *value.shape) for name, value in parameters.items()}


def renamed(parameters):
    return {f"old.{name}": value for name, value in parameters.items()}


# What everyone who rebuilds the run is told.
DAMAGES = {
    "no configuration": (remove("config.yaml"), "is not a run: it has no config.yaml"),
    "a configuration that is a folder": (fold("config.yaml"), "is not a run"),
    "an empty configuration": (write("config.yaml", b""), "names no recipe"),
    "a null configuration": (write("config.yaml", b"null"), "names no recipe"),
    "a list for a configuration": (write("config.yaml", b"- recipe"), "names no recipe"),
    "half a configuration": (write("config.yaml", b"{"), "config.yaml is damaged"),
    "bytes for a configuration": (write("config.yaml", bytes(range(256))), "is damaged"),
    "a configuration that runs code": (
        write("config.yaml", b'recipe: !!python/object/apply:os.mkdir ["harmed"]'),
        "config.yaml is damaged",
    ),
    "another file": (write("config.yaml", b"a: 1"), "names no recipe"),
    "no recipe": (configure(recipe=None), "names no recipe"),
    "no guide": (configure(guide=None), "has no guide; train the run anew"),
    "no seed": (configure(seed=None), "has no seed"),
    "no limit": (configure(limit_train=None), "has no limit_train"),
    "no settings": (configure(settings=None), "has no settings"),
    "no training": (configure(training=None), "has no training"),
    "a recipe that is gone": (configure(recipe="vae-digit"), "unknown recipe 'vae-digit'"),
    "a recipe that is a number": (configure(recipe=3), "a recipe that makes no sense, 3"),
    "a guide that is gone": (configure(guide="flows"), "no guide 'flows': did you mean flow?"),
    "a guide of the user's": (configure(guide="MyGuide"), "vae-digits has no guide 'MyGuide'"),
    "a seed that is a word": (configure(seed="one"), "a seed that makes no sense, 'one'"),
    "a seed below zero": (configure(seed=-1), "--seed must be a whole number from 0"),
    "a limit that is a word": (configure(limit_train="few"), "a limit_train that makes no sense"),
    "a limit of nothing": (configure(limit_train=0), "--limit-train must be at least 1"),
    "settings in a list": (configure(settings=[1]), "a settings that makes no sense"),
    "a setting that is new": (configure(settings__z_dims=3), "a setting z_dims that this version"),
    "a setting of no sense": (configure(settings__z_dim=0), "--z-dim must be positive; got 0"),
    "a setting that is a word": (configure(settings__z_dim="x"), "must be a whole number; got"),
    "a choice that is gone": (configure(settings__networks="cnv"), "unknown --networks 'cnv'"),
    "data that are gone": (configure(settings__data="digts"), "no data set 'digts'"),
    "other sizes": (configure(settings__z_dim=3), "does not fit the recipe vae-digits"),
    "another recipe's": (configure(recipe="pose-tvae-digits"), "a setting binarise that this"),
    "no checkpoint": (remove("checkpoint.ckpt"), "has no checkpoint.ckpt yet"),
    "an empty checkpoint": (write("checkpoint.ckpt", b""), "is truncated or damaged"),
    "half a checkpoint": (truncate, "is truncated or damaged"),
    "words for a checkpoint": (write("checkpoint.ckpt", b"hello"), "is truncated or damaged"),
    "a checkpoint that runs code": (harm, "is truncated or damaged"),
    "a checkpoint that is a folder": (fold("checkpoint.ckpt"), "has no checkpoint.ckpt yet"),
    "a checkpoint of something else": (
        lambda run: torch.save({"state_dict": {}}, run / "checkpoint.ckpt"),
        "is not a checkpoint of this version",
    ),
    "a tensor for a checkpoint": (
        lambda run: torch.save(torch.zeros(3), run / "checkpoint.ckpt"),
        "is not a checkpoint of this version",
    ),
    "parameters that are not finite": (save(parameters=not_a_number), "that is not finite"),
    "parameters of other shapes": (save(parameters=wider), "does not fit the recipe"),
    "parameters of other names": (save(parameters=renamed), "does not fit the recipe"),
    "no parameters": (save(parameters={}), "does not fit the recipe"),
    "a list of parameters": (save(parameters=[1]), "is not a checkpoint of this version"),
}

# What concerns one command alone.
ONE = {
    "no history to draw": (remove("history.csv"), "plot run", "history.csv is missing or damaged"),
    "an empty history": (write("history.csv", b""), "plot run", "history.csv is missing or"),
    "a header alone": (write("history.csv", b"epoch,step\n"), "plot run", "is missing or damaged"),
    "a row cut short": (
        write("history.csv", b"epoch,step,loss,validation_loss,learning_rate,seconds\n1,3\n"),
        "plot run",
        "history.csv is missing or damaged",
    ),
    "words for numbers": (
        write(
            "history.csv", b"epoch,step,loss,validation_loss,learning_rate,seconds\n" + b"a," * 6
        ),
        "plot run",
        "history.csv is missing or damaged",
    ),
    "another table": (write("history.csv", b"a,b\n1,2\n"), "plot run", "is missing or damaged"),
    "bytes for a history": (write("history.csv", bytes(range(256))), "plot run", "is missing or"),
    "no history to compare": (remove("history.csv"), COMPARE, "is missing or damaged"),
    "no history to report": (remove("history.csv"), "report run", "is missing or damaged"),
    "half of the metrics": (write("metrics.json", b'{"elbo": -1'), EVALUATE, "is damaged: delete"),
    "half of the metrics, again": (write("metrics.json", b"{"), CALIBRATE, "is damaged: delete"),
    "half of the metrics to report": (write("metrics.json", b"{"), "report run", "is damaged"),
    "no metrics within": (write("metrics.json", b"[]"), EVALUATE, "holds no metrics: delete it"),
    "bytes for metrics": (write("metrics.json", bytes(range(256))), EVALUATE, "is damaged"),
    "metrics that are a folder": (fold("metrics.json"), EVALUATE, "metrics.json: Is a directory"),
    "figures that are a file": (write("figures", b""), "plot run", "figures: "),
    "checks that are a file": (write("checks", b""), CHECK, "checks: "),
    "a page that is a folder": (fold_the_page, "report run", "report.html: Is a directory"),
    "optimisers of other parts": (save(optimizers={}), RESUME, "does not fit its recipe"),
    "optimisers that are a list": (save(optimizers=[1]), RESUME, "is not a checkpoint of this"),
    "no progress": (save(progress={}), RESUME, "is not a checkpoint of this version"),
    "progress of another version": (
        save(progress=lambda old: {**old, "epochs": 3}),
        RESUME,
        "does not fit its recipe",
    ),
    "no checkpoint of a run that is resumed": (truncate, RESUME, "is truncated or damaged"),
    "fewer epochs": (
        lambda run: None,
        RESUME.replace("--epochs 3", "--epochs 1"),
        "has been trained for 6 steps, more than the 3 that are asked for",
    ),
    "fewer steps": (
        lambda run: None,
        RESUME.replace("--epochs 3", "--steps 2"),
        "has been trained for 6 steps, more than the 2 that are asked for",
    ),
    "another size of the code": (
        lambda run: None,
        f"{RESUME} --z-dim 3",
        "was trained with z_dim",
    ),
    "another seed": (lambda run: None, f"{RESUME} --seed 3", "was trained with seed 0, not 3"),
    "another guide": (lambda run: None, f"{RESUME} --guide flow", "was trained with guide paper"),
    "another precision": (
        lambda run: None,
        f"{RESUME} --precision 64-true",
        "was trained with precision 32-true, not 64-true",
    ),
    "another rate": (
        lambda run: None,
        f"{RESUME} --learning-rate 0.1",
        "was trained with learning_rate 0.001, not 0.1",
    ),
    "another recipe": (
        lambda run: None,
        "train pose-tvae-digits --steps 9 --out run --resume",
        "was trained with recipe vae-digits, not pose-tvae-digits",
    ),
    "a run that is there": (
        lambda run: None,
        RESUME.replace("--resume", ""),
        "holds a run already: add --resume",
    ),
    "a folder of something else": (
        lambda run: None,
        RESUME.replace("--out run", "--out ."),
        "exists and is not a run",
    ),
    "a comparison onto a file": (
        write("taken", b"mine"),
        f"{COMPARE} --out run/taken",
        "run/taken cannot be written",
    ),
    "a comparison of other data": (
        lambda run: (
            shutil.copytree(run, "other") and configure(settings__data="mnist")(Path("other"))
        ),
        "compare run other --particles 3 --points 4",
        "are of different data, digits and mnist",
    ),
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run(damage, words, command, run, refused):
    damage(run)
    refused(READERS[command], words)


@pytest.mark.parametrize(("damage", "command", "words"), ONE.values(), ids=ONE)
def test_a_run_that_one_command_cannot_use(damage, command, words, run, refused):
    damage(run)
    refused(command, words)


def test_no_flipped_byte_of_a_checkpoint_is_taken_for_what_was_written(run):
    path = run / "checkpoint.ckpt"
    content, whole = path.read_bytes(), read_checkpoint(path)
    places = random.Random(0).sample(range(len(content)), 60)
    refused = 0
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            found = read_checkpoint(path)
        except UserError:
            refused += 1
            continue
        # A byte between the entries says nothing.
        assert found["progress"] == whole["progress"]
        assert found["parameters"].keys() == whole["parameters"].keys()
        for name, value in whole["parameters"].items():
            assert torch.equal(found["parameters"][name], value)
    assert refused > 40


def test_a_setting_from_before_there_was_one_has_its_default(run, tmp_path):
    configure(settings__binarise=None, settings__halve_every=None)(run)
    from pyro_latents import zoo

    assert zoo.open_run(run).story.halve_every == 15


@pytest.mark.parametrize("name", ["config.yaml", "best.ckpt", "checkpoint.ckpt", "history.csv"])
def test_what_a_killed_training_leaves_is_begun_anew(tmp_path, monkeypatch, name):
    from pyro_latents.cli import main

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f".{name}.a1b2c3").write_bytes(b"recipe: v")
    (folder / "history.csv").write_text("epoch,step")
    assert main(f"train vae-digits {SMALL} --steps 1 --out run --resume".split()) == 0
    assert not list(folder.glob(".*"))


def test_half_written_checkpoints_are_cleared_away(run):
    from pyro_latents.cli import main

    (run / ".checkpoint.ckpt.a1b2c3").write_bytes(b"PK")
    assert main(RESUME.split()) == 0
    assert not list(run.glob(".*"))


def test_results_of_before_are_put_aside(run):
    """What was measured at six steps is not what is reported of nine."""
    from pyro_latents.cli import main

    main("plot run".split())
    main("report run".split())
    old = json.loads((run / "metrics.json").read_text())
    picture = (run / "figures" / "history.png").read_bytes()
    assert main(RESUME.split()) == 0
    assert not (run / "metrics.json").exists()
    aside = contents(run / "at-step-6")
    assert json.loads(aside["metrics.json"]) == old
    assert {"report.html", "figures", "figures/images.png"} <= aside.keys()

    assert main("report run".split()) == 0
    page = (run / "report.html").read_text()
    assert "pyro-latents evaluate run" in page
    assert f"{old['elbo']:.4f}" not in page
    assert (run / "figures" / "history.png").read_bytes() != picture
    assert main(EVALUATE.split()) == 0
    assert json.loads((run / "metrics.json").read_text())["elbo"] != old["elbo"]
