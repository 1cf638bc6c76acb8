"""Sites that are copies of others: their KL, and what is scored once more."""

import pyro
import pytest
import torch
from chain import D
from host_reads import NoHostReads
from pyro import poutine
from pyro.distributions import Delta, Normal

from pyro_latents.losses import TraceMMD_ELBO

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("order", ["zw", "wz"])
def test_the_kl_of_a_copy_is_to_the_prior_of_its_source(order):
    def model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", Normal(torch.zeros(D), 2.0).to_event(1))
            pyro.sample("w", Normal(z, 1e-3).to_event(1))

    def guide():
        with pyro.plate("data", 4):
            for name in order:
                pyro.sample(name, Normal(torch.zeros(D), 2.0).to_event(1))

    terms = TraceMMD_ELBO({"z": 0.0}, copies={"w": "z"}).terms(model, guide)
    assert set(terms) == {"kl_w"}
    assert terms["kl_w"] == 0.0


def test_the_kl_of_a_copy_is_sampled_where_it_has_no_closed_form():
    def model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", Normal(0.0, 2.0))
            pyro.sample("w", Normal(z, 1e-3))

    def guide():
        with pyro.plate("data", 4), poutine.scale(scale=3.0):
            pyro.sample("w", Delta(torch.ones(4)).mask(True))
            pyro.sample("z", Normal(0.0, 2.0))

    terms = TraceMMD_ELBO({"z": 0.0}, copies={"w": "z"}).terms(model, guide)
    torch.testing.assert_close(terms["kl_w"], -12 * Normal(0.0, 2.0).log_prob(torch.ones(())))


def two_views(x, y):
    """z, its copy a, and b, which is 2 z; a is seen in x, and b in y."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", Normal(0.0, 1.0))
        a = pyro.sample("a", Normal(z, 0.1))
        pyro.sample("x", Normal(a, 1.0), obs=x)
        b = pyro.sample("b", Normal(2 * z, 0.1))
        pyro.sample("y", Normal(b, 1.0), obs=y)


def guide_of_two_views(x, y):
    with pyro.plate("data", len(x), dim=-1):
        for name, loc in (("z", x + y), ("a", x), ("b", y)):
            pyro.sample(name, Normal(loc, 0.5))


PARTICLES = {
    "one": {},
    "guessed nesting": {"max_plate_nesting": float("inf")},
    "vectorised": {"num_particles": 3, "vectorize_particles": True},
    "loop": {"num_particles": 3},
}


@pytest.mark.parametrize("particles", PARTICLES.values(), ids=PARTICLES)
def test_observations_are_scored_again_as_by_a_model_that_observes_them_twice(particles):
    def twice(x, y):
        """The same model, with the second observation as a site."""
        trace = poutine.trace(two_views).get_trace(x, y)
        z = trace.nodes["z"]["value"]
        with pyro.plate("data_again", len(x), dim=-1):
            pyro.sample("x_indirect", Normal(z, 1.0), obs=x)

    batch = torch.randn(2, 5)
    options = {"max_plate_nesting": 1, **particles}
    found = []
    # A weight of zero, as a plain loss has the KL of the copy to its own prior.
    for model, weights, copies in (
        (two_views, {"z": 2.0}, {"a": "z"}),
        (twice, {"z": 2.0, "a": 0.0}, {}),
    ):
        torch.manual_seed(1)
        loss = TraceMMD_ELBO(weights, copies=copies, **options)
        if loss.max_plate_nesting == float("inf"):
            loss._guess_max_plate_nesting(two_views, guide_of_two_views, batch, {})
            torch.manual_seed(1)
        found.append(loss.terms(model, guide_of_two_views, *batch))
    ours, theirs = found
    assert "x_indirect" in ours
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)


def test_what_does_not_hang_on_a_copy_is_run_once():
    rows = []

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Normal(0.0, 1.0))
            for name in "abc":
                code = pyro.sample(name, Normal(z, 0.1))
                rows.append(len(code.flatten()))
                pyro.sample(f"x_{name}", Normal(code, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            for name in "zabc":
                pyro.sample(name, Normal(x, 0.5))

    loss = TraceMMD_ELBO({}, copies={"b": "z"}, max_plate_nesting=1)
    terms = loss.terms(model, guide, torch.randn(4))
    assert rows == [4, 8, 4]
    assert {name for name in terms if name.endswith("_indirect")} == {"x_b_indirect"}


def test_a_second_value_is_scaled_and_masked_as_the_first_one():
    x, y = torch.randn(2, 6)
    mask = torch.tensor([True, True, False, True, False, True])

    def weighed(program):
        def run(x, y, mask):
            with poutine.scale(scale=3.0), poutine.mask(mask=mask):
                program(x, y)

        return run

    def terms(x, y, mask):
        loss = TraceMMD_ELBO({"b": 0.0}, copies={"a": "z"}, max_plate_nesting=1)
        # Points of mass, which have no noise.
        guide = weighed(
            lambda x, y: [
                pyro.sample(n, Delta(v, event_dim=0).expand(x.shape))
                for n, v in (("z", x + y), ("a", x), ("b", y))
            ]
        )

        def plated(x, y, mask):
            with pyro.plate("data", len(x), dim=-1):
                guide(x, y, mask)

        return loss.terms(weighed(two_views), plated, x, y, mask)

    masked, kept = terms(x, y, mask), terms(x[mask], y[mask], torch.ones(4).bool())
    for name in ("x", "x_indirect", "kl_a"):
        torch.testing.assert_close(masked[name], kept[name])


def test_a_step_reads_no_value_of_the_device():
    loss = TraceMMD_ELBO({"z": 2.0, "b": 1.0}, copies={"a": "z"}, max_plate_nesting=1)
    batch = torch.randn(2, 5)
    with pyro.validation_enabled(False), NoHostReads():
        loss.differentiable_loss(two_views, guide_of_two_views, *batch)


def test_pyro_checks_the_shapes_of_programs_with_copies():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Normal(0.0, 1.0))
            a = pyro.sample("a", Normal(z, 1.0))
            pyro.sample("w", Normal(0.0, 1.0))
            pyro.sample("x", Normal(a, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            for name in "za":
                pyro.sample(name, Normal(0.0, 1.0))
            pyro.sample("w", Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

    loss = TraceMMD_ELBO({}, copies={"a": "z"}, max_plate_nesting=1)
    with pyro.validation_enabled(), pytest.raises(ValueError, match="event_dims disagree at site"):
        loss.terms(model, guide, torch.zeros(3))


def test_a_copy_comes_after_its_source():
    loss = TraceMMD_ELBO({}, copies={"z": "a"}, max_plate_nesting=1)
    with pytest.raises(ValueError, match="site 'z' is no copy of 'a': that must come first"):
        loss.terms(two_views, guide_of_two_views, *torch.zeros(2, 3))


def test_no_latent_site_hangs_on_a_copy():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Normal(0.0, 1.0))
            a = pyro.sample("a", Normal(z, 1.0))
            pyro.sample("w", Normal(a, 1.0))
            pyro.sample("x", Normal(a, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            for name in "zaw":
                pyro.sample(name, Normal(x, 1.0))

    loss = TraceMMD_ELBO({}, copies={"a": "z"}, max_plate_nesting=1)
    with pytest.raises(ValueError, match="site 'w' hangs on one of copies, .'a'.; only what is"):
        loss.terms(model, guide, torch.zeros(3))
