import pyro
import pytest
import torch
from pyro.distributions import Normal
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule

from pyro_latents import SVI, zoo
from pyro_latents.data.batches import mixed_seed
from pyro_latents.errors import UserError
from pyro_latents.runs.recipe import _ONE_AT_A_TIME
from pyro_latents.training.step import Objective
from pyro_latents.training.steps import Steps

pytestmark = pytest.mark.filterwarnings("ignore:Encountered")

SMALL = {"networks": "dense", "hidden_dims": (16,)}


def train(recipe, out, **options):
    return recipe.train(out, progress=False, accelerator="cpu", **options)


@pytest.mark.parametrize("svi", [pyro.infer.SVI, SVI], ids=["pyro", "ours"])
def test_the_trainer_and_svi_give_the_same_losses(svi):
    recipe = zoo.recipe("vae-digits", seed=5)
    batch = (torch.rand(12, 1, 28, 28),)
    objective = Objective(recipe.model, recipe.guide, recipe.loss, recipe.seed)
    objective.seeds = (0, 0)
    terms = objective(*batch)
    torch.manual_seed(mixed_seed(5, 0, 0))
    step = svi(recipe.model, recipe.guide, pyro.optim.Adam({}), recipe.loss).step(*batch)
    assert step == pytest.approx(sum(terms.values()).item(), rel=1e-6)


def test_losses_of_double_precision_keep_their_digits(tmp_path):
    recipe = zoo.recipe("vae-digits", **SMALL)
    train(recipe, tmp_path / "run", epochs=1, precision="64-true")
    first = (tmp_path / "run" / "history.csv").read_text().splitlines()[1].split(",")
    for loss in map(float, first[2:4]):
        assert loss != torch.tensor(loss, dtype=torch.float32).item()


class Broken(PyroModule):
    """A model whose second latent variable overflows."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(self.weight, 1.0))
            w = pyro.sample("w", Normal(0.0, (1e3 * (1 + z * 0)).exp(), validate_args=False))
            pyro.sample("x", Normal(w, 1.0), obs=x)


class Guide(PyroModule):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Normal(0.0, 1.0))
            pyro.sample("w", Normal(0.0, 1.0))


def test_a_site_that_is_not_finite_is_named():
    objective = Objective(Broken(), Guide(), Trace_ELBO(), 0)
    site = objective.broken_site(torch.zeros(3))
    assert site == "the log-density of site 'w' in the model is -inf"


def test_it_is_the_guide_that_is_named_when_it_breaks_first():
    recipe = zoo.recipe("vae-digits", **SMALL)
    with torch.no_grad():
        recipe.guide.families["z"].head.weight.fill_(torch.nan)
    objective = Objective(recipe.model, recipe.guide, recipe.loss, 0)
    objective.seeds = (7, 0)
    with pytest.raises(UserError, match="at step 7: the value of site 'z' in the guide is nan"):
        objective(torch.rand(3, 1, 28, 28))


@pytest.mark.parametrize("when", [13, 61], ids=["before a look", "after looks"])
def test_a_loss_that_is_not_finite_names_its_step(tmp_path, monkeypatch, when):
    recipe = zoo.recipe("vae-digits", **SMALL)
    weight = (
        recipe.model.decoder[0].weight
        if hasattr(recipe.model.decoder, "__getitem__")
        else (next(recipe.model.decoder.parameters()))
    )
    begin = Steps.begin

    def breaking(self, step):
        if step == when:
            with torch.no_grad():
                weight.fill_(torch.nan)
        return begin(self, step)

    monkeypatch.setattr(Steps, "begin", breaking)
    with pytest.raises(UserError, match=rf"the loss is nan at step {when}: .* 'x' in the model"):
        train(recipe, tmp_path / "run", steps=120)


def test_halving_the_learning_rate(tmp_path):
    recipe = zoo.recipe("vae-digits", **SMALL, halve_every=2, learning_rate=0.01)
    run = train(recipe, tmp_path / "run", epochs=5)
    rates = [float(row["learning_rate"]) for row in run.folder.read_history()]
    assert rates == [0.01, 0.01, 0.005, 0.005, 0.0025]


def test_early_stopping_keeps_the_best_parameters(tmp_path):
    recipe = zoo.recipe("vae-digits", networks="dense", patience=1, learning_rate=0.02)
    run = train(recipe, tmp_path / "run", epochs=60)
    losses = [float(row["validation_loss"]) for row in run.folder.read_history()]
    assert len(losses) < 60
    assert losses[-1] > min(losses)
    assert run.folder.best_path.exists()


def test_early_stopping_counts_alike_in_a_run_that_was_cut(tmp_path):
    options = {"networks": "dense", "patience": 2, "learning_rate": 0.02}
    whole = train(zoo.recipe("vae-digits", **options), tmp_path / "whole", epochs=60)
    for steps in (5, 17, 31, 40):
        train(zoo.recipe("vae-digits", **options), tmp_path / "cut", steps=steps, resume=True)
    cut = train(zoo.recipe("vae-digits", **options), tmp_path / "cut", epochs=60, resume=True)
    mine, theirs = (run.folder.read_history() for run in (cut, whole))
    for row in mine + theirs:
        del row["seconds"]
    assert mine == theirs


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    recipe = zoo.recipe("vae-digits", **SMALL)
    run = train(recipe, tmp_path / "run", steps=12, tensorboard=True)
    assert list((run.path / "tensorboard").glob("events.*"))


def test_a_recipe_is_trained_once(tmp_path):
    recipe = zoo.recipe("vae-digits", **SMALL)
    train(recipe, tmp_path / "run", steps=2)
    with pytest.raises(UserError, match="this recipe has been trained"):
        train(recipe, tmp_path / "other", steps=2)


def test_two_trainings_in_one_process_are_refused(tmp_path):
    with _ONE_AT_A_TIME, pytest.raises(UserError, match="another training runs in this"):
        train(zoo.recipe("vae-digits", **SMALL), tmp_path / "run", steps=2)


def test_an_epoch_is_a_line_where_there_is_no_terminal(tmp_path, capsys):
    zoo.recipe("vae-digits", **SMALL).train(tmp_path / "run", steps=20, accelerator="cpu")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_validation_leaves_the_parameters_and_their_modes_alone(tmp_path):
    with_validation = train(zoo.recipe("vae-digits", **SMALL), tmp_path / "with", steps=30)
    rows = with_validation.folder.read_history()
    assert rows[0]["validation_loss"]
    assert not rows[-1]["validation_loss"]
