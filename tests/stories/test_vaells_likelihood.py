import math

import pyro
import pytest
import torch
from torch import nn

from pyro_latents import zoo
from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.evaluation.evidence import ImportanceSampling, log_evidence
from pyro_latents.models.vaells import VAELLS
from pyro_latents.stories.vaells.likelihood import (
    NormalCodes,
    codes_of_training,
    estimate_of_connor,
    evidence_of_programs,
)
from pyro_latents.transport import TransportOperators, infer_coefficients

F64 = torch.float64
X_DIM, SCALE = 5, 4.0


@pytest.fixture(autouse=True)
def _seeded():
    pyro.set_rng_seed(0)


@pytest.fixture
def model():
    operators = TransportOperators(2, 3, init_scale=0.4, scale=SCALE)
    encoder, decoder = nn.Linear(X_DIM, 3), nn.Linear(3, X_DIM)
    anchors = torch.randn(2, 4, X_DIM)
    likelihood = Normal(0.5, event_dims=1)
    return VAELLS(encoder, decoder, operators, likelihood, anchors, inference_weight=1e-5).to(F64)


def transcribed(model, x, label, c):
    """The formula, one image and one particle at a time, in the authors' units."""
    psi, ratios, errors = model.operators.psi.detach(), [], []
    f = (model.encoder(x) / SCALE).detach()
    for drawn in c:
        z = torch.linalg.matrix_exp(drawn[0] * psi[0] + drawn[1] * psi[1]) @ f
        mean = model.decoder(SCALE * z)
        p_x = -0.5 * X_DIM * math.log(2 * math.pi) - 0.5 * (x - mean).square().sum()
        errors.append((x - mean).square().mean())

        def path(start, weight, end=z):
            c, found = infer_coefficients(psi, start[None], end[None], weight)
            a = c[0, 0] * psi[0] + c[0, 1] * psi[1]
            square = (end - torch.linalg.matrix_exp(a) @ start).square().sum()
            return -0.5 * SCALE**2 * square, c[0].abs().sum(), found[0]

        distance, length, _ = path(f, 1e-6)
        constant = -1.5 * math.log(2 * math.pi)
        log_q = distance - length + constant - 2 * math.log(2)
        paths = [path(model.encoder(a).detach() / SCALE, 1e-5) for a in model.anchors[label]]
        distance, length, _ = min(paths, key=lambda found: found[2])
        log_p = distance - 0.01 * length + constant - 2 * math.log(200)
        ratios.append(p_x + log_p - log_q)
    log_mean = torch.stack(ratios).logsumexp(0) - math.log(len(c))
    return log_mean, torch.stack(errors).mean()


def test_the_estimate_of_connor_is_its_formula(model, monkeypatch):
    x, y = torch.randn(3, X_DIM, dtype=F64), torch.tensor([1, 0, 1])
    c = torch.distributions.Laplace(0.0, 1.0).sample((6, 3, 2)).to(F64)
    asked = []

    def drawn(start, count, rate):
        asked.append((tuple(start.shape), count, rate))
        return Given(c)

    monkeypatch.setattr("pyro_latents.stories.vaells.likelihood.coefficient_prior", drawn)
    with torch.no_grad():
        found, errors = estimate_of_connor(model, x, y, particles=6)
        each = [transcribed(model, x[i], int(y[i]), c[:, i]) for i in range(3)]
    expected, expected_errors = (torch.stack(part) for part in zip(*each, strict=True))
    assert asked == [((6, 3, 3), 2, 1.0)]
    assert torch.allclose(found, expected, atol=1e-3)
    assert torch.allclose(errors, expected_errors)


class Given:
    """A distribution that draws what it is given."""

    def __init__(self, value):
        self.sample = lambda: value


def test_the_estimate_of_connor_does_not_depend_on_the_widths_of_the_program(model):
    x, found = torch.randn(3, X_DIM, dtype=F64), []
    for width in (1.0, 0.01):
        model.noise_scale.fill_(width)
        model.coefficient_rate.fill_(width)
        model.likelihood.scale = width
        pyro.set_rng_seed(1)
        with torch.no_grad():
            found.append(estimate_of_connor(model, x, particles=3)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("labelled", [True, False])
def test_normals_on_the_codes_have_the_evidence_of_factor_analysis(model, labelled):
    codes, y = torch.randn(60, 3, dtype=F64), torch.arange(60) % 2
    codes[y == 1] += 2.0
    program = NormalCodes(model, codes, y if labelled else None)
    x, label = torch.randn(4, X_DIM, dtype=F64), torch.tensor([0, 1, 1, 0])
    found = log_evidence(program, program.guide, x, label, num_particles=2_000)
    loading = SCALE * model.decoder.weight
    for i in range(4):
        of_class = codes[y == label[i]] if labelled else codes
        covariance = torch.cov(of_class.T)
        covariance = covariance + 1e-3 * covariance.diagonal().mean() * torch.eye(3)
        exact = torch.distributions.MultivariateNormal(
            loading @ of_class.mean(0) + model.decoder.bias,
            loading @ covariance @ loading.T + 0.25 * torch.eye(X_DIM),
        )
        assert found.log_evidence[i].item() == pytest.approx(exact.log_prob(x[i]).item(), abs=0.1)
    assert (found.k_hat < 0.5).all()


def test_programs_without_paths_stand_beside_the_story():
    recipe = zoo.recipe("vaells-circles")
    sampling = ImportanceSampling(particles=30, points=6)
    found = evidence_of_programs(recipe, recipe.batches("test"), sampling)
    assert list(found) == ["paths", "normal", "normal_per_class"]
    assert all(len(each.log_evidence) == 6 for each in found.values())
    codes, y = codes_of_training(recipe)
    assert len(codes) == len(y) == len(recipe.splits.train)
