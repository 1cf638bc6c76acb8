import math

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.guides.vaells_evidence import (
    Defended,
    EvidenceGuide,
    likelihood_of_code,
    paths_to,
)
from pyro_latents.models.vaells import VAELLS, coefficient_prior
from pyro_latents.transport import TransportOperators, transport

F64 = torch.float64
X_DIM = 4
SPIRAL = torch.tensor([[[-0.1, -1.0], [0.9, -0.1]]], dtype=F64)


@pytest.fixture(autouse=True)
def _seeded():
    pyro.set_rng_seed(0)


def build(*, rate=0.7, noise=0.3, x_scale=0.4, latent_scale=1.0, psi=SPIRAL, classes=1):
    """A model in the plane whose decoder is linear, in double precision."""
    operators = TransportOperators(len(psi), 2, scale=latent_scale)
    model = VAELLS(
        nn.Linear(X_DIM, 2),
        nn.Linear(2, X_DIM),
        operators,
        Normal(x_scale, event_dims=1),
        torch.randn(classes, 3, X_DIM),
        noise_scale=noise,
        coefficient_rate=rate,
    ).to(F64)
    operators.psi.data = psi.clone()
    return model


def quadrature(model, x, y=None, reach=20.0, nodes=8_001):
    """log p(x): the sum over anchors and the integral over c on a grid, z in closed form."""
    scale, weight, bias = model.operators.scale, model.decoder.weight, model.decoder.bias
    c = torch.linspace(-reach, reach, nodes, dtype=F64)[:, None]
    loading = scale * weight
    covariance = loading @ loading.T * model.noise_scale**2
    covariance += model.likelihood.scale**2 * torch.eye(X_DIM, dtype=F64)
    starts = model.starts(y).expand(len(x), -1, -1)
    terms = []
    for k in range(starts.shape[1]):
        moved = transport(model.operators.psi, c[:, None], starts[:, k])
        normal = torch.distributions.MultivariateNormal(moved @ loading.T + bias, covariance)
        rate = model.coefficient_rate
        terms.append(normal.log_prob(x) + (rate / 2).log() - rate * c.abs())
    step = math.log(2 * reach / (nodes - 1))
    return torch.cat(terms).logsumexp(0) + step - math.log(starts.shape[1])


@pytest.mark.parametrize("numbers", [{}, {"noise": 0.05}, {"latent_scale": 4.0}])
def test_the_evidence_is_that_of_quadrature(numbers):
    model = build(**numbers)
    with torch.no_grad():
        x = model(size=4)
        expected = quadrature(model, x)
    found = log_evidence(model, EvidenceGuide(model), x, num_particles=1_500)
    assert torch.allclose(found.log_evidence, expected, atol=0.1)
    assert (found.ess > 200).all()


def test_the_evidence_is_given_the_class_if_there_is_one():
    model, y = build(classes=2), torch.tensor([0, 1, 1])
    with torch.no_grad():
        x = model(y=y)
        expected = quadrature(model, x, y)
    found = log_evidence(model, EvidenceGuide(model), x, y, num_particles=1_500)
    assert torch.allclose(found.log_evidence, expected, atol=0.1)


def test_more_operators_than_dimensions_have_a_finite_evidence():
    model = build(psi=0.3 * torch.randn(4, 2, 2, dtype=F64))
    with torch.no_grad():
        x = model(size=5)
    found = log_evidence(model, EvidenceGuide(model), x, num_particles=200)
    assert torch.isfinite(found.log_evidence).all()
    assert (found.ess > 10).all()


def test_each_data_point_may_have_anchors_of_its_own():
    model = build()
    own = torch.randn(2, 5, X_DIM, dtype=F64)
    trace = poutine.trace(EvidenceGuide(model)).get_trace(own[:, 0], None, own)
    assert trace.nodes["k"]["fn"].param_shape == (2, 5)


def test_the_likelihood_of_a_linear_decoder_is_known():
    model = build(latent_scale=4.0)
    x = torch.randn(3, X_DIM, dtype=F64)
    seen = likelihood_of_code(model, x)
    loading = 4.0 * model.decoder.weight
    centre = torch.linalg.lstsq(loading, (x - model.decoder.bias).T).solution.T
    assert torch.allclose(seen.loc, centre, atol=1e-3)
    assert torch.allclose(seen.precision[0], loading.T @ loading / 0.4**2)


def test_paths_end_where_the_code_is_seen():
    model = build(noise=0.01, x_scale=0.01, rate=0.1)
    start, c = torch.tensor([[[0.9, 0.3]]], dtype=F64), torch.tensor([[[1.2]]], dtype=F64)
    end = transport(SPIRAL, c, start)[:, 0]
    seen = likelihood_of_code(model, model.decoder(end))
    paths = paths_to(model, start, seen._replace(loc=end))
    assert torch.allclose(paths.loc, c, atol=1e-3)
    slope = (SPIRAL[0] @ end[0]).norm()
    assert 0.01 / slope < paths.scale_tril.item() < 0.03 / slope


def test_a_defended_proposal_has_the_density_of_what_it_draws():
    found = torch.distributions.MultivariateNormal(torch.tensor([3.0]), torch.eye(1))
    prior = coefficient_prior(torch.zeros(2), 1, 1.0)
    mixed = Defended(found, prior)
    draws = mixed.sample((40_000,))
    grid = torch.linspace(-20, 20, 40_001)[:, None]
    density = mixed.log_prob(grid).exp()
    assert (density.sum() * 1e-3).item() == pytest.approx(1, abs=1e-3)
    mean = (density * grid[:, 0]).sum() * 1e-3
    assert draws.mean().item() == pytest.approx(mean.item(), abs=0.05)
