"""What is hidden stays hidden, and a model that is right passes."""

import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from scipy.stats import kstest
from torch import nn

from pyro_latents import zoo
from pyro_latents.checks import IMAGE_STATISTICS, VECTOR_STATISTICS, Statistic, replicates
from pyro_latents.checks.splits import HonestSplit, Unseen, prior_guide, right_half
from pyro_latents.data.batches import Batches, Plain
from pyro_latents.data.examples import Examples
from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.models.vaells import VAELLS
from pyro_latents.programs import evaluation_mode, local_parameters
from pyro_latents.stories.vaells.metrics import EndsOfPaths
from pyro_latents.transport import TransportOperators

LEVEL = 0.001
TINY = {"limit_train": 60, "validation": 30}
TRIPLETS = {"z_dim": 3, "batch_size": 30, **TINY}


def first_batch(maker, size):
    return Batches(maker, size, seed=0, shuffle=False).batch(0)


def drawn(split, batch):
    torch.manual_seed(0)
    with torch.no_grad():
        return pyro.poutine.trace(split.guide).get_trace(*batch)


def values(trace, names):
    return {name: trace.nodes[name]["value"] for name in names}


@pytest.mark.parametrize(
    ("options", "site", "sites"),
    [
        ({}, "x2", ["z1", "z", "T", "z0"]),
        ({"views": "pixelations", "num_views": 3}, "x3", ["z1", "z2", "z", "T1", "T2", "z0"]),
    ],
)
def test_the_last_view_is_not_seen(options, site, sites):
    recipe = zoo.recipe("triplet-tvae-digits", **TRIPLETS, **options)
    with local_parameters(recipe.model, recipe.guide), evaluation_mode(recipe.model, recipe.guide):
        split = recipe.story.honest_split(recipe, points=3, seed=0)
        split.guide.steps = 3
        assert split.site == site
        x, *views = first_batch(split.batches, 3)
        found = drawn(split, (x, *views))
        again = drawn(split, (x, *views[:-1], 1 - views[-1]))
        other = drawn(split, (x, 1 - views[0], *views[1:]))
    assert sorted(pyro.poutine.util.prune_subsample_sites(found).stochastic_nodes) == sorted(sites)
    for name, value in values(found, sites).items():
        torch.testing.assert_close(value, again.nodes[name]["value"])
    assert not torch.equal(found.nodes["z1"]["value"], other.nodes["z1"]["value"])


def test_replicates_are_of_the_hidden_view():
    recipe = zoo.recipe("triplet-tvae-digits", **TRIPLETS)
    with local_parameters(recipe.model, recipe.guide), evaluation_mode(recipe.model, recipe.guide):
        split = recipe.story.honest_split(recipe, points=4, seed=0)
        split.guide.steps = 2
        ink = {"ink": IMAGE_STATISTICS["ink"]}
        found = replicates(
            split.model, split.guide, split.batches, ink, draws=3, site="x2", progress=False
        )
    views = first_batch(split.batches, 4)
    expected = IMAGE_STATISTICS["ink"](views[2])
    # The pixels are binarised.
    torch.testing.assert_close(found.observed["ink"], expected, atol=0.03, rtol=0)
    assert found.replicated["ink"].shape == (3, 4)


def test_without_noise_in_the_transition_nothing_is_hidden():
    recipe = zoo.recipe("triplet-tvae-digits", transition_scale=0.0, **TRIPLETS)
    assert recipe.story.honest_split(recipe, points=4, seed=0) is None


@pytest.mark.parametrize("name", ["equivae-digits", "equivae-semi-digits"])
def test_a_member_is_drawn_from_its_set_alone(name):
    recipe = zoo.recipe(name, width=2, m_max=2)
    test = recipe.splits.test.take(slice(4))
    with local_parameters(recipe.model, recipe.guide), evaluation_mode(recipe.model, recipe.guide):
        split = recipe.story.honest_split(recipe, points=4, seed=0)
        x, y, sets = first_batch(split.batches, 4)
        assert sets.shape == (4, 2, 1, 28, 28)
        torch.testing.assert_close(y, test.y)
        found, again = drawn(split, (x, y, sets)), drawn(split, (1 - x, y, sets))
        replayed = pyro.poutine.trace(pyro.poutine.replay(split.model, found))
        codes = replayed.get_trace(x, y, sets).nodes["r"]["value"]
    torch.testing.assert_close(found.nodes["v"]["value"], again.nodes["v"]["value"])
    torch.testing.assert_close(
        codes, recipe.model.embed(sets.flatten(0, 1)).view(4, 2, -1).mean(1)
    )


@pytest.mark.parametrize("name", ["vae-digits", "pose-tvae-digits", "pose-dtvae-digits"])
def test_single_images_are_halved(name):
    recipe = zoo.recipe(name)
    split = recipe.story.honest_split(recipe, points=2, seed=0)
    assert split.check == "right half given left"
    assert split.part is right_half


def test_vectors_have_no_halves():
    recipe = zoo.recipe("vae-swiss-roll")
    assert recipe.story.honest_split(recipe, points=4, seed=0) is None
    assert recipe.story.image_pair(recipe) is None


def test_statistics_of_whole_images_are_not_those_of_a_part():
    statistics = {"ink": IMAGE_STATISTICS["ink"], "all": Statistic(torch.sum, "", whole=True)}
    half = HonestSplit("", print, print, None, part=right_half).statistics(statistics)
    assert list(half) == ["ink"]
    image = torch.cat([torch.zeros(1, 1, 4, 2), torch.ones(1, 1, 4, 2)], -1)
    assert half["ink"](image) == 1
    assert list(HonestSplit("", print, print, None).statistics(statistics)) == ["ink", "all"]


@pytest.mark.usefixtures("float64")
def test_unseen_sites_have_no_density():
    def model(x):
        a = pyro.sample("a", pyro.distributions.Normal(0.0, 1.0))
        b = pyro.sample("b", pyro.distributions.Normal(a, 1.0))
        pyro.sample("x", pyro.distributions.Normal(b, 1.0), obs=x)

    trace = pyro.poutine.trace(Unseen(["b", "x", "c"])(model)).get_trace(torch.tensor(1.0))
    alone = pyro.distributions.Normal(0.0, 1.0).log_prob(trace.nodes["a"]["value"])
    torch.testing.assert_close(trace.log_prob_sum(), alone)


@pytest.mark.usefixtures("float64")
def test_data_of_the_model_pass_a_guide_that_sees_nothing():
    torch.manual_seed(0)
    pca = LinearGaussian()
    x = pca.model(size=400)
    guide = prior_guide(pca.model)
    for scale, passes in ((1.0, True), (2.0, False)):
        found = replicates(
            pca.model, guide, Plain(Examples(scale * x)), VECTOR_STATISTICS, progress=False
        )
        assert (kstest(found.u_values()["mean"].numpy(), "uniform").pvalue > LEVEL) == passes


@pytest.fixture
def rotations():
    """Points on paths that turn, each the code of itself, so that the encoder is exact."""
    operators = TransportOperators(1, 2)
    operators.psi.data = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    anchors = torch.tensor([[[1.0, 0.0], [-2.0, 0.5], [0.0, 3.0]]])
    likelihood = Normal(1e-4, 1)
    of_paths = {"noise_scale": 0.2, "coefficient_rate": 1.0}
    return VAELLS(nn.Identity(), nn.Identity(), operators, likelihood, anchors, **of_paths).eval()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("rate", "passes"), [(1.0, True), (4.0, False)])
def test_ends_of_paths_of_the_model_pass(rotations, rate, passes):
    torch.manual_seed(0)
    model = rotations
    x = model(size=300).detach()
    statistics = {"across": Statistic(lambda x: x[..., 0], "")}
    model.coefficient_rate.fill_(rate)
    guide = EndsOfPaths(model)
    found = replicates(model, guide, Plain(Examples(x)), statistics, draws=100, progress=False)
    assert found.log_weight is None
    u = found.u_values()["across"].numpy()
    assert (kstest(u, "uniform").pvalue > LEVEL) == passes


@pytest.mark.usefixtures("float64")
def test_ends_are_nearest_to_the_start_that_is_seen(rotations):
    x = torch.tensor([[1.0, 0.1], [-2.0, 0.4], [0.3, 2.9]])
    with torch.no_grad():
        trace = pyro.poutine.trace(pyro.plate("draws", 50, dim=-2)(EndsOfPaths(rotations)))
        z = trace.get_trace(x).nodes["z"]["value"]
    near = torch.cdist(z, rotations.anchors[0]).argmin(-1)
    assert (near == torch.arange(3)).all()
