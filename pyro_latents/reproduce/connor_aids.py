"""What each aid of the recipes for synthetic manifolds does, which the paper does not have."""

from __future__ import annotations

from typing import Any

from pyro_latents.reproduce.connor import (
    BUDGETS,
    OVER_SEEDS,
    before_training,
    from_curves,
    of_roll,
    over_seeds,
)
from pyro_latents.reproduce.connor_starts import chosen
from pyro_latents.reproduce.experiment import Context, Job, Result, experiment

# Options that take an aid away, or add one, by what a table calls the training. All but the first
# have one start for each seed.
BEST = "the recipe, the best of its starts"
ROLL: dict[str, dict[str, Any]] = {
    BEST: {},
    "the recipe": {},
    "one draw of the first operator": {"candidates": 0},
    "codes as the encoder has them": {"even_codes": False},
    "paths from random starts alone": {"search": "local"},
    "steps of the operators on trial": {"try_operators": True, "operator_learning_rate": 5e-5},
    "none of the three": {"candidates": 0, "even_codes": False, "search": "local"},
}
CIRCLES: dict[str, dict[str, Any]] = {
    BEST: {},
    "the recipe": {},
    "codes as the encoder has them": {"even_codes": False},
    "linear networks to begin with": {"linear_start": True},
    "rates that stay": {"schedule": "halve"},
    "steps of the operators on trial": {"try_operators": True, "operator_learning_rate": 4e-4},
}


@experiment("connor-swiss-roll-aids", BUDGETS, takes=())
def swiss_roll_aids(context: Context) -> Result:
    """The recipe of the swiss roll without each of its aids."""
    rows = []
    for name, options in _rows_of(context, ROLL):
        jobs = _jobs(context, "swiss-roll", name, options)
        found = [of_roll(parts.to("cpu")) for parts in context.train(jobs)]
        begun = [of_roll(before_training(job)) for job in jobs]
        paths, before = ([each["path"] for each in group] for group in (found, begun))
        error = sum(each["mse"] for each in found) / len(found)
        rows.append([name, *over_seeds(paths, before), f"{error:.5f}"])
    return Result(
        title="Rank correlation of the lengths of paths with the distance along the roll",
        columns=["training", *OVER_SEEDS, "MSE"],
        rows=rows,
        settings={"options": ROLL, "seeds": len(begun), "budget": context.budget.name},
        notes=[
            "The mean over four anchors, and all test points. Of its starts, one of which all "
            "other rows have, the best is that with the lowest training objective."
        ],
    )


@experiment("connor-circles-aids", BUDGETS, takes=())
def circles_aids(context: Context) -> Result:
    """The recipe of the circles without its aid, and with others."""
    rows = []
    for name, options in _rows_of(context, CIRCLES):
        jobs = _jobs(context, "circles", name, options)
        found = [from_curves(parts.to("cpu")) for parts in context.train(jobs)]
        begun = [from_curves(before_training(job)) for job in jobs]
        for what in found[0]:
            values, before = ([each[what] for each in group] for group in (found, begun))
            rows.append([name, what, *over_seeds(values, before)])
    return Result(
        title="Codes of two circles, in per cent",
        columns=["training", "what", *OVER_SEEDS],
        rows=rows,
        settings={"options": CIRCLES, "seeds": len(begun), "budget": context.budget.name},
        notes=["What is measured is said at `connor-circles`."],
    )


def _rows_of(
    context: Context, rows: dict[str, dict[str, Any]]
) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a budget: without several starts there is no best one."""
    several = "starts" in context.budget.own
    return [(name, options) for name, options in rows.items() if several or name != BEST]


def _jobs(context: Context, data: str, name: str, options: dict[str, Any]) -> list[Job]:
    """Trainings of every seed; the best of the starts are those of the paper's figures."""
    recipe, words = f"vaells-{data}", f"vaells {data}"
    if name == BEST:
        return chosen(context, recipe, words, options)
    own = " ".join(f"{name} {value}" for name, value in options.items()).replace("_", " ")
    return [
        context.job(recipe, f"{words} {own} {seed}", seed=seed, numbers=options, cost=1.0)
        for seed in context.seeds
    ]
