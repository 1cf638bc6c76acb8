import pytest
import torch
from pyro import poutine

from pyro_latents import zoo
from pyro_latents.data.batches import Batches
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.guides.hyperspherical import VonMisesFisherFamily
from pyro_latents.programs import local_parameters

NAMES = ["vae", "hyperspherical-vae", "vamp-vae"]


@pytest.mark.parametrize("name", NAMES)
def test_trains_from_a_plain_loop(name):
    recipe = zoo.recipe(f"{name}-circles", seed=0)
    loader = list(Batches(recipe.batches(), 100, seed=0, drop_last=True))
    with local_parameters(recipe.model, recipe.guide):
        loss = recipe.loss(recipe.model, recipe.guide)
        loss(*loader[0]).backward()
        assert all(p.grad is not None for p in loss.parameters())
        optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
        losses = []
        for step in range(60):
            optimizer.zero_grad()
            value = loss(*loader[step % len(loader)])
            value.backward()
            optimizer.step()
            losses.append(value.item())
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


@pytest.mark.parametrize("name", NAMES)
def test_prior_draws_and_evidence_work(name):
    recipe = zoo.recipe(f"{name}-swiss-roll", seed=0)
    with local_parameters(recipe.model):
        assert recipe.model(size=7).shape == (7, 20)
    evidence = log_evidence(recipe.model, recipe.guide, recipe.splits.test.x[:3], num_particles=20)
    assert bool(torch.isfinite(evidence.log_evidence).all())


def test_the_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs():
    recipe = zoo.recipe("vamp-vae-circles", pseudo_inputs=4)
    z = torch.randn(3, 2)
    with local_parameters(recipe.model, recipe.guide):
        parts = recipe.guide.posterior(recipe.model.prior.pseudo_inputs)["z"]
        expected = parts.log_prob(z[:, None]).logsumexp(1) - torch.tensor(4.0).log()
        model = poutine.condition(recipe.model, {"z": z})
        trace = poutine.trace(model).get_trace(recipe.splits.test.x[:3])
        trace.compute_log_prob()
    assert torch.allclose(trace.nodes["z"]["log_prob"], expected, atol=1e-5)


def test_the_family_on_the_sphere_is_not_flat():
    q = VonMisesFisherFamily(4, 3)(torch.zeros(2, 4))
    assert bool((q.concentration > 1).all())
    assert torch.allclose(q.loc.norm(dim=-1), torch.ones(2))
