import pytest
import torch
from torch import nn

from pyro_latents import zoo
from pyro_latents.losses import LikelihoodLoss, TraceMax_ELBO
from pyro_latents.training.phases import Phase, PhasedModule, Trial
from pyro_latents.training.run_folder import read_checkpoint

FAST = {"warm_up": 3, "network_steps": 2, "operator_steps": 2, "candidates": 0}


def train(out, recipe=None, **options):
    recipe = recipe or zoo.recipe("vaells-swiss-roll", limit_train=90, validation=0, **FAST)
    return recipe.train(out, progress=False, accelerator="cpu", **options)


def state(run):
    checkpoint = read_checkpoint(run.folder.checkpoint_path)
    return checkpoint["state_dict"], checkpoint["optimizer_states"]


def test_a_resumed_run_is_that_which_did_not_stop(tmp_path):
    whole = train(tmp_path / "whole", steps=11)
    train(tmp_path / "parts", steps=6)
    parts = train(tmp_path / "parts", steps=11, resume=True)
    torch.testing.assert_close(state(whole), state(parts), rtol=0, atol=0)


class Snapshots(PhasedModule):
    """Keeps the parameters after each step."""

    def training_step(self, batch, batch_idx):
        result = super().training_step(batch, batch_idx)
        model = self.elbo.model
        self.seen = getattr(self, "seen", [])
        self.seen.append(
            {
                "decoder": model.decoder[0].weight.detach().clone(),
                "anchors": model.anchors.detach().clone(),
                "psi": model.operators.psi.detach().clone(),
            }
        )
        return result


def changes(recipe, tmp_path, steps, monkeypatch):
    """Which parameters each step moved."""
    kept = []
    monkeypatch.setattr("pyro_latents.training.phases.PhasedModule", Snapshots)
    build = type(recipe.settings).training_module

    def training_module(self, recipe):
        kept.append(build(self, recipe))
        return kept[-1]

    monkeypatch.setattr(type(recipe.settings), "training_module", training_module)
    start = {
        "decoder": recipe.model.decoder[0].weight.detach().clone(),
        "anchors": recipe.model.anchors.detach().clone(),
        "psi": recipe.model.operators.psi.detach().clone(),
    }
    train(tmp_path / "run", recipe, steps=steps)
    seen = [start, *kept[0].seen]
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
    options = FAST | {"operator_learning_rate": 1e3, "max_operator_learning_rate": 1e3}
    recipe = zoo.recipe("vaells-swiss-roll", limit_train=90, validation=0, **options)
    moved = changes(recipe, tmp_path, 7, monkeypatch)
    assert moved[5:7] == [set(), set()]


class Fixed:
    """An objective whose terms are those of a list, one evaluation after the other."""

    def __init__(self, parameter, values):
        self.parameter, self.values = parameter, list(values)

    def hold(self, model, guide, *args):
        return {"prior": self.parameter.sum() * 0 + self.parameter.sum()}, None

    def terms_at(self, held, model, guide, *args):
        return {"prior": torch.tensor(self.values.pop(0))}


@pytest.mark.parametrize(
    ("new", "rate", "moves"),
    [
        (-1.0, 0.1 / 0.99, True),
        (5.0, 0.1 * 0.99, False),
        (float("nan"), 0.1 * 0.99, False),
        (float("inf"), 0.1 * 0.99, False),
    ],
)
def test_a_trial_keeps_improvements_only(new, rate, moves):
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    loss = Fixed(parameter, [new])
    module = PhasedModule(
        nn.Identity(),
        nn.Identity(),
        TraceMax_ELBO(),
        phase_of=lambda step: phase,
        build_optimizers=lambda m: {},
    )
    module._mean_over_ranks = lambda value: value
    phase = Phase(LikelihoodLoss(), ["operators"])
    phase = Phase(loss, ["operators"], ("operators", Trial(("prior",), largest=1.0)))
    terms, held = loss.hold(None, None)
    terms["prior"].backward()
    module._try(phase, phase.tried[1], optimizer, terms, held, ())
    assert (parameter.item() != 1.0) == moves
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_the_learning_rate_keeps_within_its_limits():
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    loss = Fixed(parameter, [-1.0, 9.0])
    phase = Phase(
        loss, ["operators"], ("operators", Trial(("prior",), largest=0.1, smallest=0.0995))
    )
    module = PhasedModule(
        nn.Identity(),
        nn.Identity(),
        TraceMax_ELBO(),
        phase_of=lambda step: phase,
        build_optimizers=lambda m: {},
    )
    module._mean_over_ranks = lambda value: value
    rates = []
    for _ in range(2):
        terms, held = loss.hold(None, None)
        terms["prior"].backward()
        module._try(phase, phase.tried[1], optimizer, terms, held, ())
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.0995])
