import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Normal as PyroNormal
from pyro.infer import Predictive
from torch import nn

from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.errors import UserError
from pyro_latents.guides.vaells import AmortisedTransportGuide, TransportGuide, WarmUpGuide
from pyro_latents.losses.likelihood import LikelihoodLoss
from pyro_latents.losses.maximum import TraceMax_ELBO
from pyro_latents.models.vaells import VAELLS
from pyro_latents.programs import local_parameters
from pyro_latents.transport import TransportOperators, infer_coefficients, transport

X_DIM, Z_DIM = 5, 2


@pytest.fixture(autouse=True)
def _local():
    pyro.set_rng_seed(0)
    with local_parameters():
        yield


def build(num_operators=2, num_classes=1, num_anchors=3, latent_scale=1.0, **options):
    operators = TransportOperators(num_operators, Z_DIM, init_scale=0.5, scale=latent_scale)
    anchors = torch.randn(num_classes, num_anchors, X_DIM)
    encoder, decoder = nn.Linear(X_DIM, Z_DIM), nn.Linear(Z_DIM, X_DIM)
    options = {"noise_scale": 1e-3, "coefficient_rate": 1.0, **options}
    return VAELLS(encoder, decoder, operators, Normal(1.0, event_dims=1), anchors, **options)


def test_prior_draws_have_an_anchor_coefficients_and_a_code():
    draws = Predictive(build(), num_samples=4, return_sites=("k", "c", "z", "x"))(size=6)
    shapes = {name: tuple(value.shape) for name, value in draws.items()}
    assert shapes == {"k": (4, 6), "c": (4, 6, 2), "z": (4, 6, 2), "x": (4, 6, X_DIM)}


def test_prior_codes_lie_on_the_paths_of_their_anchors():
    model = build(noise_scale=1e-4, latent_scale=10.0)
    trace = poutine.trace(model).get_trace(size=50)
    k, c, z = (trace.nodes[name]["value"] for name in ("k", "c", "z"))
    start = model.encoder(model.anchors[0]) / 10
    expected = transport(model.operators.psi, c, start[k])
    assert torch.allclose(z, expected, atol=1e-3)


def test_parallel_draws_equal_sequential_ones_in_shape():
    model = build(num_classes=2)
    y = torch.tensor([0, 1, 1])
    draws = Predictive(model, num_samples=7, parallel=True)(y=y)
    assert draws["x"].shape == (7, 3, X_DIM)


def terms_by_hand(model, guide, x, y, z, closest):
    """The prior and posterior of appendix A, one data point and one anchor at a time."""
    psi, scale = model.operators.psi, model.operators.scale
    total_prior, total_posterior = 0.0, 0.0

    def log_density(program, start, end):
        c, objective = infer_coefficients(psi, start[None], end[None], program.inference_weight)
        loc = transport(psi, c[0], start)
        log_z = PyroNormal(loc, program.noise_scale).log_prob(end).sum()
        rate = torch.as_tensor(program.coefficient_rate)
        return objective, log_z + ((rate / 2).log() - rate * c[0].abs()).sum()

    for i in range(len(x)):
        anchors = model.anchors.flatten(0, 1) if y is None else model.anchors[y[i]]
        starts = model.encoder(anchors) / scale
        found = [log_density(model, a, z[i]) for a in starts]
        densities = torch.stack([d for _, d in found])
        if closest:
            # Equation (12) has no 1/N_a.
            total_prior += densities[torch.cat([o for o, _ in found]).argmin()]
        else:
            total_prior += densities.logsumexp(0) - torch.tensor(len(starts) * 1.0).log()
        start = model.encoder(x[i]) / scale
        total_posterior += log_density(guide, start, z[i])[1]
    return -total_prior, total_posterior


@pytest.mark.parametrize("closest", [True, False], ids=["closest", "sum"])
@pytest.mark.parametrize("with_classes", [True, False], ids=["classes", "no classes"])
def test_the_objective_is_that_of_appendix_a(closest, with_classes):
    model = build(
        num_operators=1,
        num_classes=2,
        closest_anchor=closest,
        noise_scale=0.5,
        coefficient_rate=0.3,
        latent_scale=2.0,
    )
    guide = TransportGuide(model, coefficient_rate=0.8, noise_scale=0.4)
    x = torch.randn(4, X_DIM)
    y = torch.tensor([0, 1, 1, 0]) if with_classes else None
    weights = {"k": 0.0} if closest else {}
    loss = TraceMax_ELBO(max_plate_nesting=1, model_weights=weights)
    terms, held = loss.hold(model, guide, x, y)
    prior, posterior = terms_by_hand(model, guide, x, y, held.values["z"], closest)
    assert torch.allclose(terms["prior"], prior, rtol=1e-3)
    assert torch.allclose(terms["posterior"], posterior, rtol=1e-3)
    reconstruction = PyroNormal(model.decoder(2.0 * held.values["z"]), 1.0).log_prob(x).sum()
    assert torch.allclose(terms["likelihood"], -reconstruction)


def test_each_data_point_may_have_anchors_of_its_own():
    model = build(learn_anchors=False, closest_anchor=False)
    guide = TransportGuide(model)
    x, own = torch.randn(4, X_DIM), torch.randn(4, 6, X_DIM)
    loss = TraceMax_ELBO(max_plate_nesting=1)
    trace = poutine.trace(model).get_trace(x, None, own)
    assert int(trace.nodes["k"]["fn"].log_prob(torch.tensor(0)).exp().mul(6).round()[0]) == 1
    assert torch.isfinite(loss.differentiable_loss(model, guide, x, None, own))


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("closest", [True, False])
def test_particles_may_be_vectorised(closest, vectorized):
    model = build(num_classes=2, closest_anchor=closest)
    guide = TransportGuide(model)
    loss = TraceMax_ELBO(max_plate_nesting=1, num_particles=3, vectorize_particles=vectorized)
    ratio = loss.log_ratio(model, guide, torch.randn(4, X_DIM), torch.tensor([0, 1, 1, 0]))
    assert ratio.shape == (3, 4)
    assert bool(torch.isfinite(ratio).all())


@pytest.mark.parametrize("kind", [TransportGuide, AmortisedTransportGuide])
def test_every_parameter_gets_a_gradient(kind):
    model = build()
    guide = kind(model)
    loss = TraceMax_ELBO(max_plate_nesting=1)(model, guide)
    loss(torch.randn(8, X_DIM)).backward()
    without = [n for n, p in loss.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_the_network_learns_what_the_descent_finds():
    model = build(num_operators=1, noise_scale=0.01)
    # Points grow and shrink: just one coefficient leads from a point to another.
    model.operators.psi.data = 0.5 * torch.eye(Z_DIM)[None]
    guide = AmortisedTransportGuide(model)
    module = TraceMax_ELBO(max_plate_nesting=1)(model, guide)
    optimizer = torch.optim.Adam(guide.network.parameters(), lr=1e-2)
    start = model.encoder(torch.randn(64, X_DIM)).detach()
    c = torch.distributions.Laplace(0.0, 1.0).sample((64, 1))
    end = transport(model.operators.psi, c, start).detach()

    def error():
        return (guide.network(torch.cat([start, end], -1)) - c).square().mean().item()

    before = error()
    for _ in range(100):
        optimizer.zero_grad()
        module(torch.randn(32, X_DIM)).backward()
        optimizer.step()
    assert error() < 0.6 * before


def test_a_bound_with_a_network_is_not_above_the_one_with_the_search():
    torch.manual_seed(0)
    model = build(num_operators=1, noise_scale=0.01)
    x, values = torch.randn(16, X_DIM), []
    for guide in (TransportGuide(model), AmortisedTransportGuide(model)):
        pyro.set_rng_seed(1)
        loss = TraceMax_ELBO(max_plate_nesting=1, num_particles=20, vectorize_particles=True)
        values.append(loss.log_ratio(model, guide, x).mean(0).sum().item())
    assert values[1] == pytest.approx(values[0], abs=0.5 * len(x))


def test_the_loss_falls_in_training():
    model = build(num_operators=1, noise_scale=0.1)
    guide = TransportGuide(model, noise_scale=0.1)
    loss = TraceMax_ELBO(max_plate_nesting=1)
    module = loss(model, guide)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    x = torch.randn(16, X_DIM)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        value = module(x)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert sum(losses[-10:]) < sum(losses[:10])


def test_the_warm_up_draws_without_noise_and_near_the_encoding():
    model = build()
    x = torch.randn(200, X_DIM)
    trace = poutine.trace(WarmUpGuide(model)).get_trace(x)
    c = trace.nodes["c"]["value"]
    assert c.abs().mean() == pytest.approx(0.01, rel=0.2)
    expected = transport(model.operators.psi, c, model.encoder(x))
    assert torch.equal(trace.nodes["z"]["value"], expected)


def test_the_warm_up_encodes_no_anchors_and_has_the_likelihood_of_the_model():
    model, x = build(latent_scale=2.0), torch.randn(8, X_DIM)
    guide, loss = WarmUpGuide(model), LikelihoodLoss()
    seen, losses = [], []
    model.encoder.register_forward_hook(lambda layer, given, out: seen.append(out.shape[0]))
    for program in (model, model.reconstruct):
        pyro.set_rng_seed(0)
        losses.append(loss.differentiable_loss(program, guide, x).item())
    assert losses[0] == losses[1]
    assert seen == [8, 1, 8]


def test_the_closest_anchor_and_its_coefficients_come_from_one_search(monkeypatch):
    model, x = build(num_operators=1), torch.randn(4, X_DIM)
    calls = []
    search = TransportOperators.infer

    def infer(self, start, end, weight):
        calls.append(tuple(start.shape))
        return search(self, start, end, weight)

    monkeypatch.setattr(TransportOperators, "infer", infer)
    loss, guide = TraceMax_ELBO(max_plate_nesting=1), TransportGuide(model)
    held = loss.hold(model, guide, x)[1]
    assert calls == [(4, Z_DIM), (4, 3, Z_DIM)]
    starts, z = model.starts(), held.values["z"]
    start = starts[held.model_maxima["k"]]
    reached = model.operators(held.model_maxima["c"], start)
    every = torch.stack([search(model.operators, a.expand_as(z), z, 1e-6)[1] for a in starts])
    assert torch.equal(held.model_maxima["k"], every.argmin(0))
    assert ((reached - z).square().sum(1) / 2 <= every.amin(0) + 1e-6).all()


def test_programs_do_not_change_with_the_mode():
    model, x = build(), torch.randn(4, X_DIM)
    for guide in (TransportGuide(model), AmortisedTransportGuide(model)):
        losses = []
        for mode in (True, False):
            pyro.set_rng_seed(0)
            loss = TraceMax_ELBO(max_plate_nesting=1)
            losses.append(loss.loss(model.train(mode), guide.train(mode), x))
        assert losses[0] == losses[1]


def test_the_posterior_of_the_code_is_at_its_encoding():
    model = build(latent_scale=4.0)
    x = torch.randn(3, X_DIM)
    posterior = TransportGuide(model).posterior(x)
    assert torch.allclose(posterior["z"].mean, model.encoder(x) / 4)


def test_two_instances_train_apart():
    pairs = []
    for _ in range(2):
        model = build(num_operators=1)
        pairs.append(TraceMax_ELBO(max_plate_nesting=1)(model, TransportGuide(model)))
    before = [p.detach().clone() for p in pairs[1].parameters()]
    pairs[1](torch.randn(4, X_DIM)).backward()
    with torch.no_grad():
        for p in pairs[1].parameters():
            p -= 1e-4 * p.grad
    assert all(p.grad is None for p in pairs[0].parameters())
    assert any(not torch.equal(p, q) for p, q in zip(pairs[1].parameters(), before, strict=True))


def test_names_a_label_without_anchors():
    model = build(num_classes=2)
    with pytest.raises(UserError, match="anchors of 2 classes; got the label 5"):
        model(torch.zeros(1, X_DIM), torch.tensor([5]))
