import json
import math

import pytest
import torch

from pyro_latents.errors import NotFiniteError
from pyro_latents.reproduce import connor, connor_images, connor_starts
from pyro_latents.reproduce.connor import before_training, over_seeds
from pyro_latents.reproduce.connor_figures import bars, orbit
from pyro_latents.reproduce.experiment import Budget, Context, Job
from pyro_latents.reproduce.tables import experiments, reproduce

NAMES = (
    *("swiss-roll", "swiss-roll-aids", "circles", "circles-aids"),
    *("rotated-mnist", "mnist-table", "mnist-paths"),
)
# A few steps on a few points.
MANIFOLD = Budget(
    name="tiny", steps=40, numbers={"validation": 0}, own={"seeds": 2, "starts": ((2, 1),)}
)
IMAGES = Budget(
    name="tiny",
    images=200,
    steps=2,
    numbers={"warm_up": 1, "validation": 0},
    test_images=3,
    particles=2,
    own={"pairs": [(4, 8), (2, 8)], "turned": 10, "classifier_steps": 2},
)


def test_every_experiment_is_there():
    assert {f"connor-{name}" for name in NAMES} <= set(experiments())


@pytest.mark.parametrize(
    ("name", "budget", "data"),
    [
        ("connor-circles", MANIFOLD, None),
        ("connor-circles-aids", MANIFOLD, None),
        ("connor-mnist-table", IMAGES, "digits"),
        ("connor-mnist-paths", IMAGES, "digits"),
        ("connor-rotated-mnist", IMAGES, "rotated-digits"),
    ],
)
def test_each_writes_its_numbers_and_pictures(name, budget, data, tmp_path):
    reproduce(name, out=tmp_path, budget=budget, data=data, processes=1)
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert written["rows"]
    assert written["budget"] == "tiny"
    assert all(len(row) == len(written["columns"]) for row in written["rows"])
    for path in written["figures"] or []:
        assert (tmp_path / path.split("/")[-1]).stat().st_size > 1000


def test_the_papers_budget_is_that_of_the_recipes():
    for budgets in (connor.BUDGETS, connor_images.BUDGETS):
        paper = budgets[-1]
        assert (paper.name, paper.steps, paper.images, paper.numbers) == ("paper", None, None, {})


def test_bars_fill_their_panel():
    figure = bars(torch.tensor([0.01, 0.04]), "norms")
    figure.draw_without_rendering()
    assert 0.04 <= figure.axes[0].get_ylim()[1] < 0.05


def test_an_orbit_stays_in_reach_and_passes_its_point():
    turn = torch.tensor([[[0.0, -0.03], [0.03, 0.0]]])
    begin = torch.tensor([1.0, 0.0])
    points = orbit(turn, begin, 1.2)
    assert (points - begin).norm(dim=1).nan_to_num(9.0).min() < 0.05
    assert torch.allclose(points.norm(dim=1), torch.ones(len(points)), atol=1e-4)


def test_figures_of_seeds_are_summed_up_with_what_they_began_at():
    assert over_seeds([1.0, 3.0, 5.0], [0.0, 1.0]) == [3.0, 1.0, 5.0, 0.5]
    assert over_seeds([2.0]) == [2.0, 2.0, 2.0, None]


def test_an_untrained_model_is_what_the_first_step_finds(tmp_path):
    context = Context(budget=MANIFOLD, out=tmp_path)
    first, second = (
        context.job("vaells-circles", f"run {seed}", seed=seed, numbers={"learning_rate": 1e-12})
        for seed in (0, 1)
    )
    begun, after = before_training(second), second.train().parts.model.encoder.state_dict()
    assert begun.seed != before_training(first).seed
    for name, value in begun.model.encoder.state_dict().items():
        assert torch.allclose(value, after[name], atol=1e-6)


def test_the_objective_chooses_the_start_that_goes_on(tmp_path, monkeypatch):
    rounds = {"seeds": 2, "starts": ((4, 1), (2, 2))}
    context = Context(Budget(name="tiny", own=rounds), tmp_path, processes=1)
    # Of the first round the odd starts are better, of the second the greater.
    objectives = {1: lambda seed: -(seed % 2), 2: lambda seed: -seed}
    asked = []

    def objective(job, epochs):
        asked.append((job.seed, epochs))
        return objectives[epochs](job.seed)

    monkeypatch.setattr(connor_starts, "_objective", objective)
    found = connor_starts.chosen(context, "vaells-circles", "vaells", {})
    assert [job.seed for job in found] == [3, 7]
    assert sorted(seed for seed, epochs in asked if epochs == 2) == [1, 3, 5, 7]


def test_a_start_without_a_finite_loss_is_not_chosen(tmp_path, monkeypatch):
    def train(self, *, epochs=None):
        raise NotFiniteError("the loss is nan at step 3")

    monkeypatch.setattr(Job, "train", train)
    context = Context(Budget(name="tiny"), tmp_path, processes=1)
    job = context.job("vaells-circles", "start 1")
    assert connor_starts._objective(job, epochs=1) == math.inf
