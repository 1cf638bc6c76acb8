import math
from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_map

from pyro_latents import zoo
from pyro_latents.data.batches import Batches
from pyro_latents.data.sources import load
from pyro_latents.errors import UserError
from pyro_latents.programs import local_parameters
from pyro_latents.stories.equivae.batches import Mixed, WithClassSets
from pyro_latents.stories.equivae.semi_supervised import RECIPES, SemiSupervisedStory

SMALL = {"width": 4, "r_dim": 4, "v_dim": 3, "batch_size": 50}


def test_the_recipes_and_the_sizes_of_the_paper():
    data = ("digits", "mnist", "street-mnist", "svhn")
    assert sorted(RECIPES) == [f"equivae-semi-{name}" for name in data]
    settings = RECIPES["equivae-semi-mnist"]
    assert (settings.r_dim, settings.v_dim, settings.m_max, settings.labels) == (8, 8, 4, 100)
    assert (settings.label_weight, settings.epochs) == (1.0, 20)
    svhn = RECIPES["equivae-semi-svhn"]
    assert (svhn.r_dim, svhn.m_max, svhn.epochs, svhn.labels) == (16, 10, 20, 1000)
    stand_in = RECIPES["equivae-semi-street-mnist"]
    assert replace(stand_in, data="svhn", validation=svhn.validation) == svhn


def test_labelled_and_unlabelled_points_are_kept_apart():
    recipe = zoo.recipe("equivae-semi-digits", labels=40)
    maker = recipe.batches("train")
    assert isinstance(maker, Mixed)
    assert isinstance(recipe.batches("test"), WithClassSets)
    labelled = recipe.story.labelled(recipe.splits)
    assert torch.bincount(labelled.y).tolist() == [4] * 10
    assert maker.examples.y is None
    assert len(maker) % recipe.story.batch_size == 0
    known = {tuple(image.flatten().tolist()) for image in labelled.x}
    assert not known & {tuple(image.flatten().tolist()) for image in maker.examples.x}


def test_every_labelled_point_is_seen_in_an_epoch():
    recipe = zoo.recipe("equivae-semi-digits", labels=50)
    batches = Batches(recipe.batches("train"), 50, seed=0, drop_last=True)
    seen = torch.cat([x_labelled for _, _, x_labelled, *_ in batches])
    assert len(seen.flatten(1).unique(dim=0)) == 50


def test_the_split_is_known_by_its_name():
    story = RECIPES["equivae-semi-digits"]
    splits = load("digits", validation=180)
    # The same points in every split: their contents cannot tell.
    same = replace(splits, validation=splits.train, test=splits.train)
    kinds = [type(story.build_batches(split, same)) for split in ("train", "validation", "test")]
    assert kinds == [Mixed, WithClassSets, WithClassSets]


def test_the_choice_of_labels_follows_its_seed():
    splits = load("digits", validation=180)
    chosen = [
        replace(RECIPES["equivae-semi-digits"], label_seed=seed).labelled(splits)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(chosen[0].x, chosen[1].x)
    assert not torch.equal(chosen[0].x, chosen[2].x)


@pytest.mark.parametrize(
    ("epochs", "weight", "gradient"),
    [(0.5, 0, 0), (1.0, 0, 0), (2.0, 0.5, 0), (5.0, 1, 0.5), (9.0, 1, 1)],
)
def test_the_schedule(epochs, weight, gradient):
    recipe = zoo.recipe(
        "equivae-semi-digits",
        limit_train=300,
        labels=50,
        warm_up=1,
        ramp=2,
        label_delay=3,
        label_ramp=2,
        **SMALL,
    )
    plan, loss = recipe.plan, recipe.loss
    steps = len(recipe.loader("train"))
    assert steps == 5
    assert plan.phase_of(int(epochs * steps)) == ("both" if weight else "labelled")
    for weighed in plan.weights:
        weighed.value.fill_(weighed.at(epochs))
    assert loss.unlabelled_weight == weight
    assert loss.label_gradient == gradient


def test_without_a_schedule_both_kinds_count_from_the_start():
    recipe = zoo.recipe(
        "equivae-semi-digits", warm_up=0, ramp=0, label_delay=0, label_ramp=0, **SMALL
    )
    plan = recipe.plan
    assert plan.phase_of(0) == "both"
    assert [weighed.at(0.0) for weighed in plan.weights] == [1, 1]


@pytest.mark.parametrize("label_posterior", ["network", "shared", "distance"])
@pytest.mark.parametrize("phase", ["labelled", "both"])
def test_every_parameter_has_a_gradient_in_every_phase(phase, label_posterior):
    recipe = zoo.recipe("equivae-semi-digits", label_posterior=label_posterior, **SMALL)
    plan, batch = recipe.plan, recipe.loader("train").batch(0)
    recipe.loss.label_gradient.zero_()
    loss = plan.phases[phase].loss or recipe.loss
    with local_parameters(recipe.model, recipe.guide):
        loss.differentiable_loss(recipe.model, recipe.guide, *batch).backward()
    named = [*recipe.model.named_parameters(), *recipe.guide.named_parameters()]
    assert not [name for name, parameter in named if parameter.grad is None]
    assert plan.steps_use_all_parameters


def test_without_the_label_term_a_warm_up_leaves_the_classifier_out():
    recipe = zoo.recipe("equivae-semi-digits", label_weight=0.0, **SMALL)
    assert not recipe.plan.steps_use_all_parameters


FORMATS = {
    "float64": (torch.float64, torch.float32, False),
    "64-true": (torch.float64, torch.float64, False),
    "bf16-true": (torch.bfloat16, torch.bfloat16, False),
    "bf16-mixed": (torch.float32, torch.float32, True),
}


@pytest.mark.parametrize(("dtype", "default", "mixed"), FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("label_posterior", ["network", "distance"])
@pytest.mark.parametrize("phase", ["labelled", "both"])
def test_steps_in_every_number_format(phase, label_posterior, dtype, default, mixed):
    small = {**SMALL, "batch_size": 20, "dropout": 0.0, "label_dropout": 0.0}
    recipe = zoo.recipe("equivae-semi-digits", label_posterior=label_posterior, **small)
    batch, plan = recipe.loader("train").batch(0), recipe.plan
    bound = plan.phases[phase].loss or recipe.loss
    programs = recipe.model, recipe.guide

    def value(*given):
        torch.manual_seed(0)
        with local_parameters(*programs):
            return bound.differentiable_loss(*programs, *given) / len(given[0])

    expected = value(*batch).item()
    for program in programs:
        program.to(dtype)
    batch = tree_map(lambda given: given.to(dtype) if given.is_floating_point() else given, batch)
    torch.set_default_dtype(default)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = value(*batch)
        loss.backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert loss.item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("label_posterior", ["network", "shared", "distance"])
def test_a_run_is_trained_and_measured(label_posterior, tmp_path):
    schedule = dict(warm_up=1, ramp=1, label_delay=0, label_ramp=0)
    recipe = zoo.recipe(
        "equivae-semi-digits",
        limit_train=200,
        labels=30,
        label_posterior=label_posterior,
        **SMALL,
        **schedule,
    )
    run = recipe.train(tmp_path / "run", epochs=3, progress=False)
    metrics = run.evaluate(particles=50, likelihood_points=10, limit_test=40)
    assert math.isfinite(metrics["elbo"])
    assert 0 <= metrics["distance_error"] <= 100
    assert ("error_rate" in metrics) == (label_posterior != "distance")
    assert {path.name for path in run.plot()} == {
        "images.png",
        "styles.png",
        "history.png",
    }


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["equivae-digits", "equivae-semi-digits"])
def test_training_in_other_number_formats(name, precision, tmp_path):
    labels = {"labels": 40, "warm_up": 0.5, "ramp": 0.5} if "semi" in name else {}
    recipe = zoo.recipe(name, limit_train=140, validation=50, **labels, **SMALL)
    run = recipe.train(
        tmp_path / "run", steps=2, precision=precision, accelerator="cpu", progress=False
    )
    means = run.parts.model.class_means
    assert means.isfinite().all()
    assert means.any(1).all()


def test_a_resumed_run_goes_on_exactly(tmp_path):
    def recipe():
        return zoo.recipe("equivae-semi-digits", limit_train=300, labels=20, **SMALL)

    schedule = dict(progress=False)
    whole = recipe().train(tmp_path / "whole", steps=7, **schedule)
    recipe().train(tmp_path / "parts", steps=4, **schedule)
    parts = recipe().train(tmp_path / "parts", steps=7, resume=True, **schedule)
    for a, b in zip(whole.recipe.model.parameters(), parts.recipe.model.parameters(), strict=True):
        assert torch.equal(a, b)


ERRORS = {
    "labels": (dict(labels=0), "--labels must be positive; got 0"),
    "weight": (dict(labelled_weight=0.0), "--labelled-weight must be positive; got 0.0"),
    "ramp": (dict(ramp=-1.0), "--ramp must not be negative; got -1.0"),
    "dropout": (dict(label_dropout=1.0), "--label-dropout must be at least 0 and below 1"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(options, message):
    with pytest.raises(UserError, match=message):
        SemiSupervisedStory(data="digits", **options)


def test_a_class_with_one_label_is_named():
    recipe = zoo.recipe("equivae-semi-digits", labels=15)
    with pytest.raises(UserError, match="class 5 has 1 labelled example"):
        recipe.batches("train")


def test_labels_leave_points_without():
    recipe = zoo.recipe("equivae-semi-digits", limit_train=120, labels=90)
    with pytest.raises(UserError, match="--labels 90 leaves no batch of 50 unlabelled points"):
        recipe.batches("train")
