"""Models and guides that train in one process do not share parameters."""

import pyro
import pytest
import torch

from pyro_latents import SVI, zoo
from pyro_latents.data.batches import Batches

STORIES = {story.name: name for name, story in zoo.recipes().items() if "digits" in name}
SECOND = {
    "vae": "flow",
    "triplet-tvae": "flow",
    "pose-tvae": "flow",
    "pose-dtvae": "full-rank",
    "vaells": "amortised",
}


def trainer(name, guide=None):
    recipe = zoo.recipe(name, guide=guide, seed=3)
    batch = Batches(recipe.batches("train"), 8, seed=0).batch(0)
    svi = SVI(recipe.model, recipe.guide, pyro.optim.Adam({"lr": 1e-3}), recipe.loss)
    return recipe, lambda step: _step(svi, batch, step)


def _step(svi, batch, step):
    torch.manual_seed(step)
    return svi.step(*batch)


def weights(recipe):
    parts = (recipe.model, recipe.guide)
    return [p.detach().clone() for part in parts for p in part.parameters()]


@pytest.mark.parametrize("name", STORIES.values(), ids=STORIES.keys())
@pytest.mark.parametrize("other", ["the same guide", "another guide"])
def test_training_beside_another_changes_nothing(name, other):
    story = zoo.recipes()[name].name
    guide = SECOND.get(story) if other == "another guide" else None
    if other == "another guide" and guide is None:
        pytest.skip(f"{story} has one guide")
    recipe, step = trainer(name)
    before = weights(recipe)
    alone = [step(i) for i in range(2)]
    after = weights(recipe)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))

    recipe, step = trainer(name)
    rival, rival_step = trainer(name, guide)
    beside = []
    for i in range(2):
        beside.append(step(i))
        rival_step(100 + i)
    assert beside == alone
    assert all(torch.equal(a, b) for a, b in zip(after, weights(recipe), strict=True))
    moved = weights(rival)
    fresh = weights(zoo.recipe(name, guide=guide, seed=3))
    assert any(not torch.equal(a, b) for a, b in zip(fresh, moved, strict=True))
