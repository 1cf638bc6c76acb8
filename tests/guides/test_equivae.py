import pytest
import torch
from pyro import poutine
from pyro.distributions import Normal
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_latents.guides.equivae import EquiVAEGuide, SemiSupervisedGuide
from pyro_latents.guides.families import FAMILIES, Flow, MeanField, PointMass
from pyro_latents.models.equivae import EquiVAE, SemiSupervisedEquiVAE
from pyro_latents.nets.feige import joined
from pyro_latents.nets.mlp import DenseDecoder
from pyro_latents.nets.sets import SetEncoder
from pyro_latents.parameters import local_parameters

pytestmark = pytest.mark.usefixtures("float64")
SHAPE, CLASSES, R, V = (1, 4, 4), 3, 3, 2


class Encoder(nn.Module):
    """Features of `q(v | r, x)` for small images."""

    features_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16 + R, 6), nn.Tanh())

    def forward(self, x: Tensor, r: Tensor) -> Tensor:
        return self.layers(joined(x.flatten(-3), r))


def make(model_kind=EquiVAE, guide_kind=EquiVAEGuide, family=MeanField, *, rule=False, **options):
    torch.manual_seed(0)
    sets = SetEncoder(nn.Sequential(nn.Flatten(), nn.Linear(16, R), nn.Tanh()), r_dim=R)
    weights = torch.tensor([5.0, 3.0, 2.0])
    decoder = DenseDecoder(R + V, SHAPE, (8,))
    model = model_kind(sets, decoder, v_dim=V, class_weights=weights)
    classifier = None if rule else nn.Sequential(nn.Flatten(-3), nn.Linear(16, CLASSES))
    guide = guide_kind(Encoder(), family(6, V), model, classifier, **options)
    return model, guide


def semi(**options):
    return make(SemiSupervisedEquiVAE, SemiSupervisedGuide, **options)


def batch():
    x, labelled, y = torch.rand(4, *SHAPE), torch.rand(5, *SHAPE), torch.tensor([0, 2, 1, 1, 2])
    return x, torch.rand(CLASSES, 2, *SHAPE), labelled, y, torch.rand(5, 2, *SHAPE)


def gradients(loss: Tensor, *modules: nn.Module) -> list[Tensor]:
    parameters = [p for module in modules for p in module.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)
    ]


def given_v(model, guide, x, r, noise):
    """The terms of log p(x, v | r) - log q(v | r, x) at v made from this noise."""
    q = guide.posterior(x, r).base_dist
    v = q.loc + q.scale * noise
    normal = torch.distributions.Normal(0.0, 1.0)
    return (
        model.likelihood(model.decoder(joined(r, v))).log_prob(x)
        + normal.log_prob(v).sum(-1)
        - q.log_prob(v).sum(-1)
    )


def explicit_unlabelled(model, guide, x, class_sets, noise):
    """Equation (6) for each point, as a loop over the classes."""
    q_y = guide.label_posterior(x, model.invariant(class_sets)).probs
    total = 0.0
    for label in range(CLASSES):
        r = model.invariant(class_sets)[label].expand(len(x), -1)
        inner = given_v(model, guide, x, r, noise[label])
        prior = model.class_weights[label].log()
        total = total + q_y[:, label] * (inner + prior - q_y[:, label].log())
    return total


def explicit_labelled(model, guide, x, y, sets, noise):
    """Equation (4) for each point."""
    r = model.invariant(sets)
    return given_v(model, guide, x, r, noise) + model.class_weights[y].log()


class FixedNormal(Normal):
    """A normal that draws what it is told to."""

    noise: Tensor

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise

    def expand(self, shape, _instance=None):
        return self


def with_noise(guide, unlabelled, labelled=None):
    """Replace the draws of v; return the posterior as it was."""
    plain = guide.posterior

    def posterior(x, r):
        base = plain(x, r).base_dist
        fixed = FixedNormal(base.loc, base.scale)
        # Only enumeration has a dimension in front of the batch.
        fixed.noise = labelled if base.loc.dim() == 2 else unlabelled
        return fixed.to_event(1)

    guide.posterior = posterior
    return plain


def enumerated(model, guide, *args, **options):
    elbo = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False, **options)
    with local_parameters(model, guide):
        return elbo.differentiable_loss(model, guide, *args)


@pytest.mark.parametrize("rule", [False, True], ids=["network", "rule"])
def test_enumeration_is_the_explicit_sum_over_classes(rule):
    model, guide = make(rule=rule)
    x, class_sets, *_ = batch()
    noise = torch.randn(CLASSES, len(x), V)
    plain = with_noise(guide, noise)
    loss = enumerated(model, guide, x, None, class_sets)
    found = gradients(loss, model, guide)
    guide.posterior = plain
    expected = -explicit_unlabelled(model, guide, x, class_sets, noise).sum()
    torch.testing.assert_close(loss, expected)
    for a, b in zip(found, gradients(expected, model, guide), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 2.0, 0.5)], ids=["paper", "weighted"])
def test_the_mixed_objective_is_equation_7_with_the_label_term(weights):
    labelled_weight, unlabelled_weight, label_weight = weights
    model, guide = semi(label_weight=label_weight)
    model.labelled_weight, model.unlabelled_weight = labelled_weight, unlabelled_weight
    args = x, class_sets, labelled, y, sets = batch()
    noise, labelled_noise = torch.randn(CLASSES, 4, V), torch.randn(5, V)
    plain = with_noise(guide, noise, labelled_noise)
    loss = enumerated(model, guide, *args)
    found = gradients(loss, model, guide)
    guide.posterior = plain
    log_q = guide.label_posterior(labelled).log_prob(y)
    of_labelled = explicit_labelled(model, guide, labelled, y, sets, labelled_noise)
    expected = -(
        unlabelled_weight * explicit_unlabelled(model, guide, x, class_sets, noise).sum()
        + labelled_weight * (of_labelled + label_weight * log_q).sum()
    )
    torch.testing.assert_close(loss, expected)
    for a, b in zip(found, gradients(expected, model, guide), strict=True):
        torch.testing.assert_close(a, b)


def test_the_label_term_can_be_left_out():
    model, guide = semi(label_weight=0.0)
    trace = poutine.trace(guide).get_trace(*batch())
    assert "log_q_y" not in trace.nodes


def test_the_label_term_is_there_in_the_warm_start():
    model, guide = semi()
    model.unlabelled_weight = 0.0
    args = x, class_sets, labelled, y, sets = batch()
    loss = enumerated(model, guide, *args)
    found = gradients(loss, guide.classifier)
    expected = gradients(-guide.label_posterior(labelled).log_prob(y).sum(), guide.classifier)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_gradient_of_unlabelled_points_on_labels_can_be_held_back(share):
    model, guide = semi()
    x, class_sets, *_ = batch()
    noise = torch.randn(CLASSES, 4, V)
    plain = with_noise(guide, noise)
    whole = enumerated(model, guide, x, class_sets)
    guide.label_gradient = share
    part = enumerated(model, guide, x, class_sets)
    guide.posterior = plain
    torch.testing.assert_close(part, whole)
    for module, factor in ((guide.classifier, share), (model.decoder, 1.0), (guide.v, 1.0)):
        for a, b in zip(gradients(part, module), gradients(whole, module), strict=True):
            torch.testing.assert_close(a, factor * b)


def test_a_supervised_step_is_equation_4():
    model, guide = make()
    _, _, x, y, sets = batch()
    particles = {"num_particles": 4000, "vectorize_particles": True}
    with local_parameters(model, guide):
        losses = [
            kind(max_plate_nesting=1, **particles)(model, guide)(x, y, sets).item()
            for kind in (TraceMeanField_ELBO, Trace_ELBO)
        ]
    losses.append(enumerated(model, guide, x, y, sets, **particles).item())
    noise = torch.randn(4000, 5, V)
    expected = -explicit_labelled(model, guide, x, y, sets, noise).sum(1).mean().item()
    assert losses == pytest.approx([expected] * 3, rel=5e-3)


def test_guide_and_model_share_the_codes_of_a_step():
    model, guide = semi()
    seen = []
    model.invariant.network.register_forward_hook(lambda layer, given, out: seen.append(len(out)))
    enumerated(model, guide, *batch())
    assert sorted(seen) == [CLASSES * 2, 5 * 2]


@pytest.mark.parametrize("family", [k for k in FAMILIES.values() if k is not PointMass])
def test_every_family_learns_and_every_parameter_has_a_gradient(family):
    model, guide = semi(family=family)
    args = batch()
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = enumerated(model, guide, *args)
        loss.backward()
        losses.append(loss.item())
        named = [*model.named_parameters(), *guide.named_parameters()]
        assert not [name for name, parameter in named if parameter.grad is None]
        optimizer.step()
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("family", [MeanField, Flow], ids=["mean-field", "flow"])
def test_vectorised_particles_lead(family):
    model, guide = make(family=family)
    x, class_sets, labelled, y, sets = batch()
    for args in ((labelled, y, sets), (x, None, class_sets), (x,)):
        loss = enumerated(model, guide, *args, num_particles=3, vectorize_particles=True)
        assert loss.isfinite()


def test_a_shared_classifier_sees_the_features_of_the_encoder():
    model, guide = semi()
    guide.encoder.image_features = lambda x: x.flatten(-3)
    guide.shared = True
    guide.classifier = nn.Linear(16, CLASSES)
    x, *_ = args = batch()
    expected = guide.classifier(x.flatten(1)).log_softmax(-1)
    torch.testing.assert_close(guide.label_posterior(x).logits, expected)
    assert enumerated(model, guide, *args).isfinite()


def test_the_rule_by_distances_is_the_paper_s():
    model, guide = make(rule=True)
    x, class_sets, *_ = batch()
    codes = model.invariant(class_sets)
    scores = torch.stack([-(model.invariant.embed(x) - r).square().sum(-1) for r in codes], -1)
    torch.testing.assert_close(guide.label_posterior(x, codes).probs, scores.softmax(-1))


def test_the_model_is_no_part_of_the_guide_s_state():
    model, guide = semi()
    assert not any("invariant" in name or "decoder" in name for name in guide.state_dict())
