"""In mixed precision networks compute in half, and what is scored is in single."""

import pytest
import torch
from pyro import poutine

from pyro_latents import zoo

# A code of a set is no draw: the network's own, it keeps its precision.
CODES = {"r", "r_labelled"}
CASES = [
    (recipe, guide)
    for recipe, guides in {
        "vae-digits": ("paper", "full-rank", "low-rank", "delta", "flow", "refined"),
        "triplet-tvae-digits": ("paper", "gaussian-transformation", "flow"),
        "equivae-digits": ("paper",),
        "equivae-semi-digits": ("paper",),
        "pose-tvae-digits": ("paper", "flow"),
        "pose-dtvae-digits": ("paper",),
    }.items()
    for guide in guides
]


@pytest.mark.parametrize(("recipe", "guide"), CASES, ids="-".join)
def test_draws_and_densities_are_in_single_precision(recipe, guide):
    made = zoo.recipe(recipe, guide=guide)
    check(made)


def test_so_are_codes_on_a_sphere():
    check(zoo.recipe("vae-digits", prior="sphere"))


def check(made):
    batch = made.first_batch("train", size=4)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = poutine.trace(made.guide).get_trace(*batch)
        scored = poutine.trace(poutine.replay(made.model, drawn)).get_trace(*batch)
        for trace in (drawn, scored):
            trace.compute_log_prob()
    sites = [
        (name, site)
        for trace in (drawn, scored)
        for name, site in trace.nodes.items()
        if "log_prob" in site
    ]
    assert {site["log_prob"].dtype for _, site in sites} == {torch.float32}
    floating = [(n, s["value"]) for n, s in sites if s["value"].is_floating_point()]
    assert all(value.dtype == torch.float32 for name, value in floating if name not in CODES)
