import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import nn

from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.models.equivae import EquiVAE, SemiSupervisedEquiVAE, joined
from pyro_latents.nets.mlp import DenseDecoder
from pyro_latents.nets.sets import Codes, Pool, SetEncoder

pytestmark = pytest.mark.usefixtures("float64")
SHAPE, CLASSES, R, V = (1, 4, 4), 3, 3, 2


def set_encoder(*layers: nn.Module) -> SetEncoder:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, R), nn.Tanh(), *layers)
    return SetEncoder(network, R, num_classes=CLASSES)


def make(kind=EquiVAE, **options) -> EquiVAE:
    torch.manual_seed(0)
    sets = set_encoder()
    decoder = DenseDecoder(R + V, SHAPE, (8,))
    weights = torch.tensor([5.0, 3.0, 2.0])
    return kind(sets, decoder, v_dim=V, class_weights=weights, **options)


def scored(model: EquiVAE, *args, **values: torch.Tensor):
    trace = poutine.trace(poutine.condition(model, values)).get_trace(*args)
    trace.compute_log_prob()
    return trace.nodes


def test_the_code_of_a_set_is_the_mean_of_its_members_codes():
    encoder, sets = set_encoder(), torch.rand(5, 4, *SHAPE)
    expected = torch.stack([encoder.network(members).mean(0) for members in sets])
    torch.testing.assert_close(encoder(sets), expected)


def test_the_order_of_the_members_does_not_matter():
    encoder, sets = set_encoder(), torch.rand(5, 4, *SHAPE)
    torch.testing.assert_close(encoder(sets), encoder(sets[:, torch.randperm(4)]))


def test_a_set_of_one_is_a_point():
    encoder, x = set_encoder(), torch.rand(5, *SHAPE)
    torch.testing.assert_close(encoder(x[:, None]), encoder.embed(x))


def test_codes_are_taken_for_their_sets():
    encoder, r = set_encoder(), torch.randn(5, R)
    assert encoder(Codes(r)) is r
    assert encoder() is encoder.class_means


def pool_of(sets: torch.Tensor) -> Pool:
    """The same sets, their members in one pool."""
    count, m = sets.shape[:2]
    return Pool(sets.flatten(0, 1), torch.eye(count).repeat_interleave(m, 1) / m)


def test_a_pool_is_its_sets_with_each_member_encoded_once():
    model, seen = make(), []
    x, y, sets = torch.rand(4, *SHAPE), torch.tensor([0, 1, 2, 0]), torch.rand(4, 5, *SHAPE)
    torch.testing.assert_close(model.invariant(pool_of(sets)), model.invariant(sets))
    v = torch.randn(4, V)
    found, expected = (scored(model, x, y, given, v=v) for given in (pool_of(sets), sets))
    torch.testing.assert_close(found["x"]["log_prob"], expected["x"]["log_prob"])
    # A member in several sets, and pools of the same members.
    members, shares = sets[0], torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0.25, 0.25, 0.25, 0.25]])
    model.invariant.network.register_forward_hook(lambda layer, given, out: seen.append(len(out)))
    semi = make(SemiSupervisedEquiVAE)
    semi.invariant = model.invariant
    of_class, of_points = Pool(members, shares), Pool(members, shares[:1])
    _, class_codes, _, _, codes = semi.encoded(x, of_class, x[:1], y[:1], of_points)
    assert seen == [5]
    each = model.invariant.embed(members)
    torch.testing.assert_close(class_codes.r[0], each[:2].mean(0))
    torch.testing.assert_close(class_codes.r[1], each[1:].mean(0))
    torch.testing.assert_close(codes.r, class_codes.r[:1])


def test_r_is_a_deterministic_site_and_the_mean_over_the_set():
    model, x, sets = make(), torch.rand(4, *SHAPE), torch.rand(4, 5, *SHAPE)
    nodes = scored(model, x, torch.tensor([0, 1, 2, 0]), sets)
    expected = torch.stack([model.invariant.embed(members).mean(0) for members in sets])
    torch.testing.assert_close(nodes["r"]["value"], expected)
    assert nodes["r"]["infer"]["_deterministic"]
    assert not nodes["r"]["log_prob"].any()
    shuffled = scored(model, x, torch.tensor([0, 1, 2, 0]), sets[:, torch.randperm(5)])
    torch.testing.assert_close(shuffled["r"]["value"], expected)


@pytest.mark.parametrize("likelihood", [None, Normal(0.3)], ids=["bernoulli", "normal"])
def test_the_joint_is_class_frequency_prior_and_likelihood(likelihood):
    model, x, sets = make(likelihood=likelihood), torch.rand(4, *SHAPE), torch.rand(4, 2, *SHAPE)
    y, v = torch.tensor([0, 1, 2, 0]), torch.randn(4, V)
    nodes = scored(model, x, y, sets, v=v)
    torch.testing.assert_close(nodes["y"]["log_prob"], torch.tensor([0.5, 0.3, 0.2, 0.5]).log())
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(nodes["v"]["log_prob"], normal.log_prob(v).sum(-1))
    output = model.decoder(joined(model.invariant(sets), v))
    if likelihood is None:
        p = output.sigmoid()
        expected = x * p.log() + (1 - x) * (1 - p).log()
    else:
        expected = torch.distributions.Normal(output, 0.3).log_prob(x)
    torch.testing.assert_close(nodes["x"]["log_prob"], expected.sum((-3, -2, -1)))


def test_without_labels_the_class_picks_its_code():
    model, x, sets = make(), torch.rand(4, *SHAPE), torch.rand(CLASSES, 2, *SHAPE)
    y = torch.tensor([2, 1, 2, 0])
    nodes = scored(model, x, None, sets, y=y)
    torch.testing.assert_close(nodes["r"]["value"], model.invariant(sets)[y])


def test_each_class_set_is_encoded_once():
    model, seen = make(), []
    model.invariant.network.register_forward_hook(lambda layer, given, out: seen.append(len(out)))
    scored(model, torch.rand(50, *SHAPE), None, torch.rand(CLASSES, 2, *SHAPE))
    assert seen == [2 * CLASSES]


def test_class_means_are_those_of_the_labelled_points():
    model, x = make(), torch.rand(2500, *SHAPE)
    y = torch.arange(2500) % CLASSES
    model.refresh_class_means(x, y)
    codes = model.invariant.embed(x)
    expected = torch.stack([codes[y == label].mean(0) for label in range(CLASSES)])
    torch.testing.assert_close(model.class_means, expected)
    assert model.invariant.training
    y = torch.tensor([2, 0])
    torch.testing.assert_close(scored(model, x[:2], y)["r"]["value"], expected[y])


def test_draws_of_the_prior_need_no_data():
    model = make()
    model.refresh_class_means(torch.rand(30, *SHAPE), torch.arange(30) % CLASSES)
    draws = Predictive(model, num_samples=2000, parallel=True)(size=3)
    assert draws["x"].shape == (2000, 3, *SHAPE)
    torch.testing.assert_close(draws["r"], model.class_means[draws["y"]])
    shares = torch.bincount(draws["y"].flatten()).double() / 6000
    torch.testing.assert_close(shares, model.class_weights, atol=0.03, rtol=0)


def test_draws_of_given_classes():
    model, y = make(), torch.tensor([1, 1, 2])
    model.refresh_class_means(torch.rand(30, *SHAPE), torch.arange(30) % CLASSES)
    assert model(y=y).shape == (3, *SHAPE)


def mixed():
    x, labelled, y = torch.rand(4, *SHAPE), torch.rand(2, *SHAPE), torch.tensor([0, 2])
    return x, torch.rand(CLASSES, 5, *SHAPE), labelled, y, torch.rand(2, 5, *SHAPE)


def test_both_kinds_of_points_have_sites_of_their_own():
    model, args = make(SemiSupervisedEquiVAE), mixed()
    nodes = scored(model, *args)
    for name in ("y", "r", "v", "x"):
        assert nodes[name]["value"].shape[0] == 4
        assert nodes[f"{name}_labelled"]["value"].shape[0] == 2
    assert torch.equal(nodes["y_labelled"]["value"], args[3])
    assert nodes["y_labelled"]["is_observed"]
    assert not nodes["y"]["is_observed"]


def test_the_labelled_part_has_the_sites_of_labelled_points():
    model, args = make(SemiSupervisedEquiVAE), mixed()
    v = torch.randn(2, V)
    whole = scored(model, *args, v_labelled=v)
    part = scored(model.labelled, *args, v_labelled=v)
    assert "x" not in part
    for name in ("y_labelled", "v_labelled", "x_labelled"):
        assert torch.equal(part[name]["log_prob"], whole[name]["log_prob"])


@pytest.mark.parametrize("kind", [EquiVAE, SemiSupervisedEquiVAE])
def test_an_encoded_batch_is_the_same_to_the_model(kind):
    model = make(kind)
    x, class_sets, labelled, y, sets = mixed()
    batch = (labelled, y, sets) if kind is EquiVAE else (x, class_sets, labelled, y, sets)
    encoded = model.encoded(*batch)
    assert [i for i, given in enumerate(encoded) if isinstance(given, Codes)] == [*kind.sets_at]
    drawn = poutine.trace(model).get_trace(*batch)
    again = poutine.trace(poutine.replay(model, drawn)).get_trace(*encoded)
    torch.testing.assert_close(again.log_prob_sum(), drawn.log_prob_sum())


def test_a_batch_without_sets_has_none_to_encode():
    x = torch.rand(4, *SHAPE)
    assert make(SemiSupervisedEquiVAE).encoded(x, None) == (x, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_other_number_formats(dtype):
    model = make().to(dtype)
    x, y = torch.rand(900, *SHAPE), torch.arange(900) % CLASSES
    model.refresh_class_means(x, y)
    assert model.class_means.dtype == dtype
    expected = torch.stack([model.embed(x)[y == c].double().mean(0) for c in range(CLASSES)])
    torch.testing.assert_close(model.class_means.double(), expected, atol=2e-3, rtol=0)
    torch.set_default_dtype(dtype)
    nodes = scored(model, x[:4].to(dtype), None)
    assert all(nodes[name]["log_prob"].dtype == dtype for name in ("y", "v", "x"))
    assert len(Predictive(model, num_samples=2)(size=3)["x"]) == 2


ERRORS = {
    "labels": ((torch.zeros(3, dtype=torch.long), None), "one y for each of the 4 x; got 3"),
    "codes": (
        (torch.zeros(4, dtype=torch.long), Codes(torch.zeros(3, R))),
        "expects 4 sets, one for each y; got 3",
    ),
    "sets": (
        (torch.zeros(4, dtype=torch.long), torch.zeros(3, 1, *SHAPE)),
        "expects 4 sets, one for each y; got 3",
    ),
    "class sets": (
        (None, torch.zeros(4, 1, *SHAPE)),
        "expects 3 sets, one a class without y; got 4",
    ),
}


@pytest.mark.parametrize(("args", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(args, message):
    with pytest.raises(ValueError, match=message):
        make()(torch.zeros(4, *SHAPE), *args)
