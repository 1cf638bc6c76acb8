import pytest
import torch
from torch import nn

from pyro_latents import zoo
from pyro_latents.training import loop
from pyro_latents.training.checkpoint import read_checkpoint
from pyro_latents.training.hardware import build_fabric
from pyro_latents.training.options import FitOptions
from pyro_latents.training.plan import Phase, Plan, Trial, Weight, falling, halving

FAST = {"warm_up": 3, "network_steps": 2, "operator_steps": 2, "candidates": 0}


def train(out, recipe=None, **options):
    recipe = recipe or zoo.recipe("vaells-swiss-roll", limit_train=90, validation=0, **FAST)
    return recipe.train(out, progress=False, accelerator="cpu", **options)


def state(run):
    checkpoint = read_checkpoint(run.folder.checkpoint_path)
    return checkpoint["parameters"], checkpoint["optimizers"]


def test_a_resumed_run_is_that_which_did_not_stop(tmp_path):
    whole = train(tmp_path / "whole", steps=11)
    train(tmp_path / "parts", steps=6)
    parts = train(tmp_path / "parts", steps=11, resume=True)
    torch.testing.assert_close(state(whole), state(parts), rtol=0, atol=0)


def changes(recipe, tmp_path, steps, monkeypatch):
    """Which parameters each step moved."""
    model = recipe.model
    watched = {
        "decoder": model.decoder[0].weight,
        "anchors": model.anchors,
        "psi": model.operators.psi,
    }

    def snapshot():
        return {name: value.detach().clone() for name, value in watched.items()}

    seen = [snapshot()]
    step = loop.Loop.step

    def watched_step(self, batch):
        loss = step(self, batch)
        seen.append(snapshot())
        return loss

    monkeypatch.setattr(loop.Loop, "step", watched_step)
    train(tmp_path / "run", recipe, steps=steps)
    return [
        {name for name in a if not torch.equal(a[name], b[name])}
        for a, b in zip(seen, seen[1:], strict=False)
    ]


def test_each_phase_moves_its_own_parameters(tmp_path, monkeypatch):
    recipe = zoo.recipe(
        "vaells-swiss-roll", limit_train=90, validation=0, **FAST, try_operators=False
    )
    moved = changes(recipe, tmp_path, 8, monkeypatch)
    assert moved[:3] == [{"decoder"}] * 3
    assert moved[3:5] == [{"decoder", "anchors"}] * 2
    assert moved[5:7] == [{"psi"}] * 2
    assert moved[7] == {"decoder", "anchors"}


def test_a_step_that_makes_the_objective_worse_is_taken_back(tmp_path, monkeypatch):
    rates = {"operator_learning_rate": 1e3, "max_operator_learning_rate": 1e3}
    options = FAST | rates | {"try_operators": True}
    recipe = zoo.recipe("vaells-swiss-roll", limit_train=90, validation=0, **options)
    moved = changes(recipe, tmp_path, 7, monkeypatch)
    assert moved[5:7] == [set(), set()]


class Fixed:
    """An objective whose terms are those of a list, one evaluation after the other."""

    def __init__(self, parameter, values):
        self.parameter, self.values = parameter, list(values)

    def hold(self, model, guide, *args):
        return {"prior": self.parameter.sum()}, None

    def terms_at(self, held, model, guide, *args):
        return {"prior": torch.tensor(self.values.pop(0))}

    def differentiable_loss(self, model, guide, *args):
        return self.parameter.sum()


class Batches:
    """Batches of one number."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def set_epoch(self, epoch, start=0):
        self.start = start

    def __iter__(self):
        return iter([(torch.zeros(1),)] * (self.count - self.start))


class Parts:
    """The smallest parts: one parameter, and a plan."""

    def __init__(self, plan, loss, count=4):
        self.model, self.guide, self.loss, self.plan = nn.Identity(), nn.Identity(), loss, plan
        self.seed, self.count = 0, count

    def loader(self, split, *, rank=0, world_size=1):
        return Batches(self.count) if split == "train" else None

    def to(self, device):
        return self


def build_loop(parts, tmp_path):
    fabric = build_fabric(
        FitOptions(steps=1, accelerator="cpu"), all_parameters=True, folder=tmp_path
    )
    fabric.launch()
    return loop.Loop(fabric, parts, tmp_path)


def tried(parameter, values, largest, tmp_path):
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    phase = Phase(("operators",), trial=Trial("operators", ("prior",), largest=largest))
    plan = Plan(lambda: {"operators": optimizer}, {"all": phase})
    steps = build_loop(Parts(plan, Fixed(parameter, values)), tmp_path)
    rates = []
    for _ in values:
        steps.step((torch.zeros(1),))
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates


@pytest.mark.parametrize(
    ("new", "rate", "moves"),
    [
        (-1.0, 0.1 / 0.99, True),
        (5.0, 0.1 * 0.99, False),
        (float("nan"), 0.1 * 0.99, False),
        (float("inf"), 0.1 * 0.99, False),
    ],
)
def test_a_trial_keeps_improvements_only(new, rate, moves, tmp_path):
    parameter = nn.Parameter(torch.ones(1))
    assert tried(parameter, [new], 1.0, tmp_path) == pytest.approx([rate])
    assert (parameter.item() != 1.0) == moves


def test_the_learning_rate_keeps_within_its_limit(tmp_path):
    rates = tried(nn.Parameter(torch.ones(1)), [-1.0, 9.0], 0.1, tmp_path)
    assert rates == pytest.approx([0.1, 0.099])


def test_weights_and_rates_follow_the_epochs_and_are_whole_at_the_end(tmp_path):
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    weight = Weight(lambda epochs: epochs)
    seen = []

    class Seeing(Fixed):
        def differentiable_loss(self, model, guide, *args):
            seen.append((weight.value.item(), float(optimizer.param_groups[0]["lr"])))
            return parameter.sum()

    plan = Plan(
        lambda: {"all": optimizer},
        weights=[weight],
        schedule=halving(1),
        rates={"all": lambda step: 1.0 if step < 3 else 0.1},
    )
    parts = Parts(plan, Seeing(parameter, []), count=2)
    build_loop(parts, tmp_path).run(FitOptions(steps=4, progress=False))
    weights, rates = zip(*seen, strict=True)
    assert weights == (0.0, 0.5, 1.0, 1.5)
    assert rates == pytest.approx((0.1, 0.1, 0.05, 0.005))
    assert weight.value.item() == 1.0


def test_falling_rates_rise_for_a_tenth_and_end_near_zero():
    rates = [falling(step, 7, 99) for step in range(99)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[9:] == pytest.approx([n / 90 for n in range(90, 0, -1)])


def test_milestones_come_before_their_step_and_the_end_before_the_last_checkpoint(tmp_path):
    parameter = nn.Parameter(torch.ones(1))
    happened = []
    plan = Plan(
        lambda: {"all": torch.optim.SGD([parameter], lr=0.0)},
        milestones={1: lambda: happened.append("milestone")},
        before_keeping=lambda: happened.append((tmp_path / "checkpoint.ckpt").exists()),
    )

    class Noting(Fixed):
        def differentiable_loss(self, model, guide, *args):
            happened.append("step")
            return parameter.sum()

    build_loop(Parts(plan, Noting(parameter, [])), tmp_path).run(
        FitOptions(steps=2, progress=False)
    )
    assert happened == ["step", "milestone", "step", False]
    assert (tmp_path / "checkpoint.ckpt").exists()
