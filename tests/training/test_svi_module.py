import pyro
import pytest
import torch
from pyro.distributions import Normal
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule

from pyro_latents import SVI, zoo
from pyro_latents.data.batches import mixed_seed
from pyro_latents.errors import UserError
from pyro_latents.training.svi_module import SVIModule

pytestmark = pytest.mark.filterwarnings("ignore:Encountered")


@pytest.mark.parametrize("svi", [pyro.infer.SVI, SVI], ids=["pyro", "ours"])
def test_the_trainer_and_svi_give_the_same_losses(svi):
    recipe = zoo.recipe("vae-digits", seed=5)
    batch = (torch.rand(12, 1, 28, 28),)
    module = recipe.settings.training_module(recipe)
    of_trainer = module.loss(batch, 0, 0).item()
    torch.manual_seed(mixed_seed(5, 0, 0))
    step = svi(recipe.model, recipe.guide, pyro.optim.Adam({}), recipe.loss).step(*batch)
    assert step / 12 == pytest.approx(of_trainer, rel=1e-6)


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


def test_a_loss_that_is_not_finite_names_the_site():
    module = SVIModule(Broken(), Guide(), Trace_ELBO(), lambda m: None)
    message = (
        r"the loss is nan at step 0: the log-density of site 'w' in the model is -inf\. "
        "Lower --learning-rate"
    )
    with pytest.raises(UserError, match=message):
        module.loss((torch.zeros(3),), 0)


def test_it_is_the_guide_that_is_named_when_it_breaks_first():
    recipe = zoo.recipe("vae-digits")
    module = recipe.settings.training_module(recipe)
    with torch.no_grad():
        recipe.guide.families["z"].head.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="the value of site 'z' in the guide is nan"):
        module.loss((torch.rand(3, 1, 28, 28),), 0)


def test_halving_the_learning_rate():
    recipe = zoo.recipe("vae-digits", halve_every=2, learning_rate=0.1)
    optimizer, schedule = recipe.settings.build_optimizer(recipe.model)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.025]


def test_early_stopping_keeps_the_best_parameters(tmp_path):
    recipe = zoo.recipe("vae-digits", networks="dense", patience=1, learning_rate=0.02)
    run = recipe.train(tmp_path / "run", epochs=60, progress=False, accelerator="cpu")
    rows = run.folder.history_path.read_text().splitlines()[1:]
    losses = [float(row.split(",")[3]) for row in rows]
    assert len(rows) < 60
    assert losses[-1] > min(losses)
    assert run.folder.best_path.exists()


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    recipe = zoo.recipe("vae-digits", networks="dense")
    run = recipe.train(tmp_path / "run", steps=12, tensorboard=True, progress=False)
    assert list((run.path / "tensorboard").glob("events.*"))
