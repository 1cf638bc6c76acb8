import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from small_equivae import (
    CLASSES,
    V,
    batch,
    explicit_labelled,
    explicit_unlabelled,
    gradients,
    make,
    semi,
    with_noise,
)
from torch import nn

from pyro_latents.guides.families import Flow, MeanField
from pyro_latents.programs import centre, local_parameters

pytestmark = pytest.mark.usefixtures("float64")


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
    guide.v_posterior = plain
    expected = -explicit_unlabelled(model, guide, x, class_sets, noise).sum()
    torch.testing.assert_close(loss, expected)
    for a, b in zip(found, gradients(expected, model, guide), strict=True):
        torch.testing.assert_close(a, b)


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


def test_the_posterior_of_labelled_points_is_what_the_guide_draws_from():
    model, guide = make()
    _, _, x, y, sets = batch()
    model.refresh_class_means(x, torch.arange(5) % CLASSES)
    for args in ((x, y, sets), model.encoded(x, y, sets), (x, y)):
        drawn = poutine.trace(guide).get_trace(*args).nodes["v"]["fn"]
        found = guide.posterior(*args)
        assert list(found) == ["v"]
        torch.testing.assert_close(found["v"].mean, drawn.mean)
        torch.testing.assert_close(found["v"].stddev, drawn.stddev)


def test_the_posterior_of_unlabelled_points_is_at_their_likeliest_class():
    model, guide = make()
    x, class_sets, *_ = batch()
    found = guide.posterior(x, None, class_sets)
    torch.testing.assert_close(found["y"].probs, guide.label_posterior(x).probs)
    r = model.invariant(class_sets)[centre(found["y"])]
    torch.testing.assert_close(found["v"].mean, guide.v_posterior(x, r).mean)


def test_the_posterior_of_both_kinds_has_all_sites():
    model, guide = semi()
    args = x, class_sets, labelled, y, sets = batch()
    found = guide.posterior(*args)
    assert set(found) == set(guide(*args)) == {"y", "v", "v_labelled"}
    expected = guide.v_posterior(labelled, model.invariant(sets))
    torch.testing.assert_close(found["v_labelled"].mean, expected.mean)
    assert set(guide.posterior(x, class_sets)) == {"y", "v"}


def test_the_labelled_part_draws_no_other_sites():
    _, guide = semi()
    assert list(guide.labelled(*batch())) == ["v_labelled"]


def test_known_labels_are_observed_under_the_label_posterior():
    _, guide = semi()
    *_, labelled, y, _ = args = batch()
    trace = poutine.trace(guide.classify).get_trace(*args)
    trace.compute_log_prob()
    expected = guide.label_posterior(labelled).log_prob(y)
    torch.testing.assert_close(trace.nodes["y_aux"]["log_prob"], expected)
    assert not list(poutine.trace(guide.classify).get_trace(*args[:2]).observation_nodes)


def test_the_set_encoder_is_the_model_s():
    model, guide = semi()
    assert guide.invariant is model.invariant
    assert not any("decoder" in name for name in guide.state_dict())
