"""Calls in Python that make no sense: a `ValueError` of one line, and no folder is left."""

import threading

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import yaml
from faults.conftest import contents
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.utils._pytree import tree_map

from pyro_latents import zoo
from pyro_latents.data.batches import Batches, Plain
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.calibration import calibrate
from pyro_latents.evaluation.evidence import ImportanceSampling, log_evidence
from pyro_latents.losses import TraceMax_ELBO, TraceMMD_ELBO
from pyro_latents.stories.equivae.recipes import EquiVAEStory
from pyro_latents.stories.equivae.semi_supervised import SemiSupervisedStory
from pyro_latents.stories.pose_tvae.recipes import PoseTVAEStory
from pyro_latents.stories.triplet_tvae.recipes import TripletTVAEStory
from pyro_latents.stories.vae import VAEStory
from pyro_latents.stories.vaells.recipes import VAELLSStory
from pyro_latents.training.options import FitOptions
from pyro_latents.transport.coefficients import infer_coefficients

QUIET = {"progress": False, "accelerator": "cpu"}


def small(**changes):
    numbers = {"networks": "dense", "hidden_dims": (8,), "batch_size": 20, "validation": 20}
    return zoo.recipe("vae-digits", **{**numbers, "limit_train": 60, **changes})


class Improper(nn.Module):
    """A model whose prior has no draws, or which has a latent variable for all data points."""

    def __init__(self, *, wide=False):
        super().__init__()
        self.wide = wide

    def forward(self, x):
        if self.wide:
            scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(1), 1.0).to_event(1)
            if not self.wide:
                prior = dist.ImproperUniform(dist.constraints.real_vector, (), (1,))
            z = pyro.sample("z", prior)
            noise = scale if self.wide else 1.0
            pyro.sample("x", dist.Normal(z.expand(*z.shape[:-1], 2), noise).to_event(1), obs=x)


class Guide(nn.Module):
    def __init__(self, *, wide=False):
        super().__init__()
        self.wide = wide

    def forward(self, x):
        if self.wide:
            pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :1], 1.0).to_event(1))


X = torch.zeros(4, 2)
PSI, POINTS = torch.zeros(1, 2, 2), torch.zeros(3, 2)
# What is called, and what it is answered with.
CALLS = {
    "no such recipe": (lambda: zoo.recipe("vae-minst"), "did you mean vae-mnist"),
    "no such setting": (lambda: small(zdim=3), "no setting 'zdim': did you mean z_dim?"),
    "no such guide": (lambda: small(guide="flwo"), "no guide 'flwo': did you mean flow?"),
    "a number for a guide": (lambda: small(guide=3), "a guide is the name of one or a program"),
    "a word for a size": (lambda: small(z_dim="ten"), "--z-dim must be a whole number; got 'ten'"),
    "half a dimension": (lambda: small(z_dim=2.5), "--z-dim must be a whole number; got 2.5"),
    "true for a size": (lambda: small(z_dim=True), "--z-dim must be a whole number; got True"),
    "none for a size": (lambda: small(z_dim=None), "--z-dim must be a whole number; got None"),
    "a list for a size": (lambda: small(z_dim=[1]), "--z-dim must be a whole number"),
    "a size for a list": (lambda: small(hidden_dims=8), "--hidden-dims must be several values"),
    "words for sizes": (lambda: small(hidden_dims=("a",)), "--hidden-dims must be a whole number"),
    "a word for a rate": (lambda: small(learning_rate="fast"), "--learning-rate must be a number"),
    "a tensor for a rate": (
        lambda: small(learning_rate=torch.tensor(1e-3)),
        "--learning-rate must be a number",
    ),
    "no rate": (lambda: small(learning_rate=np.nan), "--learning-rate must be finite; got nan"),
    "one for a flag": (lambda: small(binarise=1), "--binarise must be true or false; got 1"),
    "a number for data": (lambda: small(data=3), "data are a name, a path, an array, "),
    "a seed below zero": (lambda: small(seed=-1), "--seed must be a whole number from 0"),
    "half a seed": (lambda: small(seed=1.5), "--seed must be a whole number from 0"),
    "no seed": (lambda: small(seed=None), "--seed must be a whole number from 0"),
    "a limit of a half": (lambda: small(limit_train=1.5), "--limit-train must be a whole number"),
    "a word for a limit": (lambda: small(limit_train="x"), "--limit-train must be a whole number"),
    "networks": (lambda: VAEStory(data="digits", networks="cnv"), "unknown --networks 'cnv'"),
    "a likelihood": (lambda: VAEStory(data="digits", likelihood="bernouli"), "mean bernoulli?"),
    "a prior": (lambda: VAEStory(data="digits", prior="sphre"), "unknown --prior 'sphre'"),
    "data": (lambda: VAEStory(data="digts"), "no data set 'digts': did you mean digits?"),
    "a coherence": (lambda: TripletTVAEStory(data="digits", coherence="indirect"), "--coherence"),
    "views": (lambda: TripletTVAEStory(data="digits", views="pixelation"), "mean pixelations?"),
    "an optimiser": (lambda: VAEStory(data="digits", optimizer="moun"), "mean muon?"),
    "a schedule": (lambda: VAEStory(data="digits", schedule="fal"), "mean fall?"),
    "a warp": (lambda: PoseTVAEStory(data="digits", warp="affine7"), "unknown --warp 'affine7'"),
    "a prior of poses": (lambda: PoseTVAEStory(data="digits", pose_prior="ful"), "mean full?"),
    "a search": (lambda: VAELLSStory(data="circles", search="gobal"), "unknown --search 'gobal'"),
    "a decoder": (lambda: EquiVAEStory(data="digits", decoder="dens"), "unknown --decoder 'dens'"),
    "a label posterior": (
        lambda: SemiSupervisedStory(data="digits", label_posterior="net"),
        "unknown --label-posterior 'net': did you mean network?",
    ),
    "no steps": (lambda: small().train("run", steps=0), "--steps must be at least 1; got 0"),
    "words for steps": (lambda: small().train("run", steps="x"), "--steps must be a whole number"),
    "half a step": (lambda: small().train("run", steps=1.5), "--steps must be a whole number"),
    "true for epochs": (lambda: small().train("run", epochs=True), "--epochs must be a whole"),
    "both": (lambda: small().train("run", steps=1, epochs=1), "give either --epochs or --steps"),
    "words for devices": (lambda: FitOptions(steps=1, devices="x"), "--devices must be a whole"),
    "a number for a name": (
        lambda: FitOptions(steps=1, precision=32),
        "--precision must be a word",
    ),
    "a word for a flag": (lambda: FitOptions(steps=1, eager="yes"), "--eager must be true or"),
    "an empty guide": (
        lambda: small(guide=lambda x: None).train("run", steps=1, **QUIET),
        "the guide does not sample 'z', latent in the model",
    ),
    "no folder": (lambda: zoo.open_run("nowhere"), "nowhere is not there"),
    "a name that is taken": (
        lambda: zoo.register("vae-digits", VAEStory(data="digits")),
        "'vae-digits' exists already",
    ),
    "a story that is none": (lambda: zoo.register("mine", "story"), "a recipe is a story"),
    "no particles": (lambda: ImportanceSampling(particles=0), "--particles must be at least 1"),
    "half a particle": (lambda: ImportanceSampling(particles=2.5), "--particles must be a whole"),
    "no samples": (
        lambda: log_evidence(Improper(wide=True), Guide(wide=True), X, num_particles=0),
        "num_particles must be at least 1; got 0",
    ),
    "a site outside of the plate": (
        lambda: log_evidence(Improper(wide=True), Guide(wide=True), X, num_particles=3),
        "'scale'",
    ),
    "a prior without draws": (
        lambda: calibrate(Improper(), Guide(), X, num_draws=3),
        "the model's prior cannot be drawn from",
    ),
    "a variable of all points": (
        lambda: calibrate(Improper(wide=True), Guide(wide=True), X, num_draws=3),
        "'scale'",
    ),
    "a weight of no site": (
        lambda: TraceMax_ELBO(model_weights={"zz": 3.0}).differentiable_loss(
            *zoo_pair(), torch.rand(4, 1, 28, 28)
        ),
        "a weight names 'zz', which is no site of the model",
    ),
    "a discrepancy of no site": (
        lambda: TraceMMD_ELBO(mmd_scale={"zz": 3.0}).differentiable_loss(
            *zoo_pair(), torch.rand(4, 1, 28, 28)
        ),
        "'zz'",
    ),
    "an infinite weight": (
        lambda: TraceMMD_ELBO(mmd_scale={"z": np.inf}),
        "finite weights >= 0; got z: inf",
    ),
    "points that are none": (
        lambda: infer_coefficients(PSI, POINTS * np.nan, POINTS, 0.1),
        "finite",
    ),
    "points of another size": (
        lambda: infer_coefficients(PSI, torch.zeros(3, 5), POINTS, 0.1),
        "shape",
    ),
    "a weight below zero": (lambda: infer_coefficients(PSI, POINTS, POINTS, -1.0), "negative"),
    "a search of several": (
        lambda: infer_coefficients(torch.zeros(2, 2, 2), POINTS, POINTS, 0.1, search="global"),
        "global",
    ),
    "fewer labels": (
        lambda: Examples(torch.zeros(3, 1), torch.zeros(2)),
        "one y for each of the 3",
    ),
    "an empty batch": (
        lambda: Batches(Plain(Examples(X)), 0, seed=0),
        "must be at least 1; got 0",
    ),
    "another rank": (
        lambda: Batches(Plain(Examples(X)), 2, seed=0, rank=2, world_size=2),
        "rank must be in 0..1; got 2",
    ),
}


def zoo_pair():
    recipe = small()
    return recipe.model, recipe.guide


@pytest.mark.parametrize(("call", "words"), CALLS.values(), ids=CALLS)
def test_a_call_that_makes_no_sense(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        call()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not contents(tmp_path)


def test_a_recipe_is_trained_once(tmp_path):
    recipe = small()
    recipe.train(tmp_path / "one", steps=2, **QUIET)
    for options in ({}, {"resume": True}):
        with pytest.raises(ValueError, match="this recipe has been trained, and would not begin"):
            recipe.train(tmp_path / "two", steps=2, **options, **QUIET)
    assert not (tmp_path / "two").exists()
    assert recipe.train(tmp_path / "one", steps=3, resume=True, **QUIET).folder.step() == 3


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    numbers = {
        "z_dim": np.int64(3),
        "hidden_dims": (np.int32(8),),
        "learning_rate": np.float32(0.5),
        "seed": np.int64(4),
        "limit_train": np.int16(60),
    }
    run = small(**numbers).train(tmp_path / "run", steps=np.int64(1), **QUIET)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["settings"]["z_dim"] == 3
    assert config["settings"]["hidden_dims"] == [8]
    assert (config["seed"], config["limit_train"], config["training"]["steps"]) == (4, 60, 1)
    assert zoo.open_run(run.path).story.learning_rate == 0.5


def test_two_trainings_at_once_are_refused(tmp_path):
    """The second, in another thread, is told; the first ends as if it had been alone."""
    alone = small().train(tmp_path / "alone", steps=9, **QUIET)
    first, told = small(), []

    def train_second():
        with pytest.raises(ValueError, match="another training runs in this process") as raised:
            small(seed=1).train(tmp_path / "second", steps=9, **QUIET)
        told.append(raised.value)

    def within_a_step(*_):
        thread = threading.Thread(target=train_second)
        thread.start()
        thread.join()

    first.model.register_forward_pre_hook(within_a_step)
    together = first.train(tmp_path / "first", steps=9, **QUIET)
    assert told
    assert not (tmp_path / "second").exists()
    mine, theirs = (run.folder.read_parameters() for run in (together, alone))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_an_automatic_guide_is_measured_whole():
    """It is for the batch that it has seen: more particles than fit at once are drawn in turn."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.expand(*z.shape[:-1], 2), 1.0).to_event(1), obs=x)

    guide = AutoNormal(model)
    guide(X)
    assert torch.isfinite(log_evidence(model, guide, X, num_particles=1500).log_evidence).all()


def test_points_of_integers_are_not_cut():
    psi = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    start, end = torch.tensor([[1, 0]]), torch.tensor([[0, 1]])
    found, _ = infer_coefficients(psi, start, end, 1e-6)
    exact, _ = infer_coefficients(psi, start.float(), end.float(), 1e-6)
    assert torch.equal(found, exact)


@pytest.mark.parametrize("name", ["equivae-digits", "equivae-semi-digits", "vae-digits"])
def test_double_precision(name):
    recipe = zoo.recipe(name, limit_train=300, validation=0)
    recipe.model.double()
    recipe.guide.double()
    x, *rest = recipe.first_batch("train", size=50)
    batch = tree_map(lambda a: a.double() if a.is_floating_point() else a, (x, *rest))
    loss = recipe.loss.differentiable_loss(recipe.model, recipe.guide, *batch)
    assert loss.dtype == torch.float64
    assert torch.isfinite(loss)
