import pyro
import pytest
import torch
from host_reads import NoHostReads
from pyro import poutine, validation_enabled
from pyro.optim import Adam
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

from pyro_latents import SVI
from pyro_latents.guides.families import FAMILIES, PointMass
from pyro_latents.losses.enumeration import TraceEnum_ELBO
from pyro_latents.programs import local_parameters
from pyro_latents.stories.equivae.objective import SemiSupervisedBound, SupervisedBound

pytestmark = pytest.mark.usefixtures("float64")


def value(bound, model, guide, *args):
    with local_parameters(model, guide):
        return bound.differentiable_loss(model, guide, *args)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 2.0, 0.5)], ids=["paper", "weighted"])
@pytest.mark.parametrize("rule", [False, True], ids=["network", "rule"])
def test_the_mixed_objective_is_equation_7_with_the_label_term(weights, rule):
    labelled_weight, unlabelled_weight, label_weight = weights
    model, guide = semi(rule=rule)
    bound = SemiSupervisedBound(labelled_weight=labelled_weight, label_weight=label_weight)
    bound.unlabelled_weight.fill_(unlabelled_weight)
    args = x, class_sets, labelled, y, sets = batch()
    noise, labelled_noise = torch.randn(CLASSES, 4, V), torch.randn(5, V)
    plain = with_noise(guide, noise, labelled_noise)
    loss = value(bound, model, guide, *args)
    found = gradients(loss, model, guide)
    guide.v_posterior = plain
    log_q = guide.label_posterior(labelled, model.invariant(class_sets)).log_prob(y)
    of_labelled = explicit_labelled(model, guide, labelled, y, sets, labelled_noise)
    expected = -(
        unlabelled_weight * explicit_unlabelled(model, guide, x, class_sets, noise).sum()
        + labelled_weight * (of_labelled + label_weight * log_q).sum()
    )
    torch.testing.assert_close(loss, expected)
    for a, b in zip(found, gradients(expected, model, guide), strict=True):
        torch.testing.assert_close(a, b)


def test_unlabelled_points_alone_are_equation_6():
    model, guide = semi()
    args = batch()[:2]
    torch.manual_seed(0)
    found = value(SemiSupervisedBound(), model, guide, *args)
    torch.manual_seed(0)
    torch.testing.assert_close(
        found, value(TraceEnum_ELBO(max_plate_nesting=1), model, guide, *args)
    )


def test_the_labelled_part_is_the_whole_without_weight_on_the_others():
    model, guide = semi()
    args = batch()
    bound = SemiSupervisedBound(labelled_weight=0.7, label_weight=0.4)
    bound.unlabelled_weight.zero_()
    torch.manual_seed(0)
    whole = value(bound, model, guide, *args)
    torch.manual_seed(0)
    part = value(bound.of_labelled(), model, guide, *args)
    torch.testing.assert_close(part, whole)
    for a, b in zip(gradients(part, model, guide), gradients(whole, model, guide), strict=True):
        torch.testing.assert_close(a, b)


def test_the_labelled_part_runs_nothing_else():
    model, guide = semi()
    seen = []
    model.decoder.register_forward_hook(lambda layer, given, out: seen.append(tuple(out.shape)))
    value(SemiSupervisedBound().of_labelled(), model, guide, *batch())
    assert seen == [(5, 1, 4, 4)]


def test_a_guide_without_parts_is_run_whole():
    model, guide = semi()
    bound, args = SemiSupervisedBound(), batch()
    bound.unlabelled_weight.zero_()
    losses = []
    with local_parameters(model, guide):
        for loss in (bound, bound.of_labelled()):
            torch.manual_seed(0)
            own = poutine.mask(guide, True)
            losses.append(loss.differentiable_loss(model, own, *args))
    torch.testing.assert_close(*losses)


def test_the_label_term_is_there_in_the_warm_start():
    model, guide = semi()
    args = _, _, labelled, y, _ = batch()
    found = gradients(
        value(SemiSupervisedBound().of_labelled(), model, guide, *args), guide.classifier
    )
    expected = gradients(-guide.label_posterior(labelled).log_prob(y).sum(), guide.classifier)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_label_term_can_be_left_out():
    model, guide = semi()
    guide.classify = pytest.fail
    bound = SemiSupervisedBound(label_weight=0.0)
    assert value(bound, model, guide, *batch()).isfinite()


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_gradient_of_unlabelled_points_on_labels_can_be_held_back(share):
    model, guide = semi()
    x, class_sets, *_ = batch()
    with_noise(guide, torch.randn(CLASSES, 4, V))
    whole = value(SemiSupervisedBound(), model, guide, x, class_sets)
    bound = SemiSupervisedBound()
    bound.label_gradient.fill_(share)
    part = value(bound, model, guide, x, class_sets)
    torch.testing.assert_close(part, whole)
    for module, factor in ((guide.classifier, share), (model.decoder, 1.0), (guide.v, 1.0)):
        for a, b in zip(gradients(part, module), gradients(whole, module), strict=True):
            torch.testing.assert_close(a, factor * b)


CASES = {
    "supervised": (make, SupervisedBound, lambda: batch()[2:], [5 * 2]),
    "semi-supervised": (semi, SemiSupervisedBound, batch, [CLASSES * 2, 5 * 2]),
}


@pytest.mark.parametrize(("build", "bound", "args", "encoded"), CASES.values(), ids=CASES)
def test_guide_and_model_share_the_codes_of_a_step(build, bound, args, encoded):
    model, guide = build()
    seen = []
    model.invariant.network.register_forward_hook(lambda layer, given, out: seen.append(len(out)))
    value(bound(), model, guide, *args())
    assert seen == encoded


def test_guide_and_model_share_the_units_that_dropout_leaves_out():
    model, guide = make(dropout=0.5)
    codes = []
    posterior = guide.v_posterior
    guide.v_posterior = lambda x, r: codes.append(r) or posterior(x, r)
    traces = SupervisedBound()._get_traces(model, guide, batch()[2:], {})
    with local_parameters(model, guide):
        ((model_trace, _),) = traces
    assert torch.equal(model_trace.nodes["r"]["value"], codes[0])
    assert (codes[0] == 0).any()


@pytest.mark.parametrize("kind", [SVI, pyro.infer.SVI], ids=["ours", "pyro's"])
@pytest.mark.parametrize(("build", "bound", "args", "encoded"), CASES.values(), ids=CASES)
def test_svi_takes_the_steps_of_the_module_form(build, bound, args, encoded, kind):
    model, guide = build(dropout=0.5)
    batch = args()
    torch.manual_seed(1)
    expected = value(bound(), model, guide, *batch).item()
    before = model.invariant.network[1].weight.detach().clone()
    torch.manual_seed(1)
    svi = kind(model, guide, Adam({"lr": 1e-2}), bound())
    assert svi.step(*batch) == pytest.approx(expected)
    assert not torch.equal(before, model.invariant.network[1].weight)


def test_a_model_that_is_a_function_encodes_for_itself():
    model, guide = make()
    args = batch()[2:]
    torch.manual_seed(0)
    expected = value(SupervisedBound(), model, guide, *args)
    torch.manual_seed(0)
    found = value(SupervisedBound(), poutine.mask(model, True), guide, *args)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("build", "bound", "args", "encoded"), CASES.values(), ids=CASES)
def test_a_step_waits_for_nothing(build, bound, args, encoded):
    model, guide = build()
    batch = args()
    with NoHostReads(), validation_enabled(False):
        value(bound(), model, guide, *batch).backward()


@pytest.mark.parametrize("family", [k for k in FAMILIES.values() if k is not PointMass])
def test_every_family_learns_and_every_parameter_has_a_gradient(family):
    model, guide = semi(family=family)
    args, bound = batch(), SemiSupervisedBound()
    optimizer = torch.optim.Adam([*model.parameters(), *guide.v.parameters()], lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = value(bound, model, guide, *args)
        loss.backward()
        losses.append(loss.item())
        named = [*model.named_parameters(), *guide.named_parameters()]
        assert not [name for name, parameter in named if parameter.grad is None]
        optimizer.step()
    assert sum(losses[-5:]) < sum(losses[:5])
