"""Checks pass on data of the model itself, and name what is wrong with others."""

import arviz
import pytest
import torch
import torch.nn.functional as F
from linear_gaussian import LinearGaussian

from pyro_latents import zoo
from pyro_latents.checks import IMAGE_STATISTICS, VECTOR_STATISTICS, replicates
from pyro_latents.checks.arviz_io import save_netcdf, to_arviz
from pyro_latents.checks.pixels import reliability
from pyro_latents.checks.population import Population, frechet_distance
from pyro_latents.checks.predictive import prior_statistics
from pyro_latents.checks.splits import ObservedPart, filled, left_half
from pyro_latents.cli import main
from pyro_latents.data.affine import rotate
from pyro_latents.data.batches import Plain
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.guides.refined import Refined

LEVEL = 0.001
POINTS = 1500


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = zoo.recipe("vae-digits", networks="dense", z_dim=5)
    return recipe.train(tmp_path_factory.mktemp("check") / "run", steps=400, progress=False)


@pytest.fixture(scope="module")
def simulated(run):
    """Draws of the trained model, which are data of a model that is right."""
    return prior_statistics(run.recipe.model, {}, draws=POINTS, seed=11)[1]


def p_values_of(run, x):
    drawn, _ = prior_statistics(run.recipe.model, IMAGE_STATISTICS, draws=POINTS, seed=12)
    observed = {name: statistic(x) for name, statistic in IMAGE_STATISTICS.items()}
    return Population(observed, drawn).p_values()


def test_data_of_the_model_itself_pass(run, simulated):
    assert len(simulated) == POINTS
    p_values = p_values_of(run, simulated)
    assert min(p_values.values()) > LEVEL
    assert sum(p < 0.5 for p in p_values.values()) < len(p_values)


def test_a_blurred_decoder_is_caught_by_its_edges(run, simulated):
    blurred = F.avg_pool2d(simulated, 3, stride=1, padding=1)
    assert p_values_of(run, blurred)["edge_energy"] < LEVEL


def test_double_ink_is_caught(run, simulated):
    thick = torch.maximum(simulated, simulated.roll(1, -1))
    assert p_values_of(run, thick)["ink"] < LEVEL


def test_turned_images_are_caught_by_their_slant(run, simulated):
    turned = rotate(simulated, torch.full((POINTS,), torch.pi / 9))
    p_values = p_values_of(run, turned)
    assert p_values["slant"] < LEVEL


def test_a_class_that_is_dropped_is_caught_by_the_histogram():
    torch.manual_seed(0)
    classes = torch.randint(10, (POINTS,))
    same = torch.randint(10, (POINTS,))
    kept = same[same != 3]
    counts = [torch.bincount(found, minlength=10) for found in (classes, same, kept)]
    fair = Population({}, {}, (counts[0], counts[1])).p_values()
    unfair = Population({}, {}, (counts[0], counts[2])).p_values()
    assert fair["classes"] > LEVEL > unfair["classes"]


def test_the_frechet_distance_of_two_normals():
    torch.manual_seed(0)
    a = torch.randn(200_000, 2) * torch.tensor([1.0, 2.0])
    b = torch.randn(200_000, 2) * torch.tensor([3.0, 2.0]) + torch.tensor([1.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(1 + (3 - 1) ** 2, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


@pytest.fixture
def pca():
    torch.manual_seed(0)
    return LinearGaussian()


@pytest.mark.usefixtures("float64")
def test_replicates_are_not_the_data_and_have_the_predictive_moments(pca):
    x = pca.model(size=7)
    statistics = {"first": lambda x: x[..., 0], **VECTOR_STATISTICS}
    found = replicates(
        pca.model, pca.exact_guide, Plain(Examples(x)), statistics, draws=4000, progress=False
    )
    assert found.replicated["first"].shape == (4000, 7)
    torch.testing.assert_close(found.observed["first"], x[:, 0].float(), check_dtype=False)
    mean = x @ pca.weight @ pca.posterior_covariance / pca.scale**2 @ pca.weight.T
    sd = (pca.weight @ pca.posterior_covariance @ pca.weight.T).diag()[0].add(pca.scale**2).sqrt()
    reps = found.replicated["first"].double()
    torch.testing.assert_close(reps.mean(0), mean[:, 0], atol=5 * sd.item() / 4000**0.5, rtol=0)
    torch.testing.assert_close(reps.std(0), sd.expand(7), rtol=0.05, atol=0)
    # The weights of the exact guide are the evidence.
    exact = pca.log_evidence(x).expand(4000, 7)
    torch.testing.assert_close(found.log_weight.double(), exact, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("float64")
def test_p_values_of_a_wrong_scale_are_small(pca):
    x = pca.model(size=300)
    fair = replicates(
        pca.model, pca.exact_guide, Plain(Examples(x)), VECTOR_STATISTICS, progress=False
    )
    unfair = replicates(
        pca.model, pca.exact_guide, Plain(Examples(3 * x)), VECTOR_STATISTICS, progress=False
    )
    assert fair.p_values()["norm"] > LEVEL * 10
    assert unfair.p_values()["sd"] < 0.02
    assert unfair.outside()["sd"] > fair.outside()["sd"]


def test_a_half_image_counts_only_what_is_seen(run):
    model, guide = run.recipe.model, run.recipe.guide
    x = run.recipe.splits.test.x[:3].round()
    seen = left_half(x.shape[1:])
    half_model = ObservedPart(seen)(model)
    half_guide = Refined(half_model, filled(model, guide, seen), steps=5).eval()
    whole = log_evidence(model, guide, x, num_particles=50).log_evidence
    half = log_evidence(half_model, half_guide, x, num_particles=50).log_evidence
    assert (half > whole).all()
    changed = x.clone()
    changed[..., 20:] = 1 - changed[..., 20:]
    torch.manual_seed(0)
    first = log_evidence(half_model, half_guide, x, num_particles=5).log_evidence
    torch.manual_seed(0)
    again = log_evidence(half_model, half_guide, changed, num_particles=5).log_evidence
    torch.testing.assert_close(first, again)


def test_reliability_of_pixels_drawn_from_the_model(run):
    model, guide = run.recipe.model, run.recipe.guide
    x = run.recipe.splits.test.x[:100]
    found = reliability(model, guide, Plain(Examples(x)))
    assert found.count.sum() == x.numel()
    assert 0 < found.expected_calibration_error < 0.2


def test_arviz_reads_what_was_written(run, tmp_path):
    batches = run.recipe.batches("test")
    found = replicates(
        run.recipe.model,
        run.recipe.guide,
        batches,
        IMAGE_STATISTICS,
        draws=30,
        points=9,
        progress=False,
    )
    drawn, _ = prior_statistics(run.recipe.model, IMAGE_STATISTICS, draws=40)
    path = save_netcdf(to_arviz(found, drawn), tmp_path / "check.nc")
    data = arviz.from_netcdf(path)
    assert data["posterior"]["z"].dims == ("chain", "draw", "data_point", "z_dim_0")
    assert data["posterior_predictive"]["ink"].shape == (1, 30, 9)
    assert data["prior_predictive"]["ink"].shape == (1, 40)
    assert data["observed_data"]["ink"].dims == ("data_point",)
    assert data["log_likelihood"]["x"].shape == (1, 30, 9)
    assert data["sample_stats"]["k_hat"].dims == ("data_point",)
    assert "variational" in data["posterior"].attrs["inference"]


def test_the_command_writes_tables_and_figures(run, capsys):
    assert main(["check", str(run.path), "--images", "40", "--draws", "20"]) == 0
    shown = capsys.readouterr().out
    assert "right half given left" in shown
    assert "frechet_distance" in shown
    folder = run.path / "checks"
    names = {path.name for path in folder.iterdir()}
    assert {"check.nc", "p_values.json", "u_values.png", "population.png", "pixels.png"} <= names


def test_draws_must_be_positive(run, capsys):
    assert main(["check", str(run.path), "--draws", "0"]) == 2
    assert "--draws must be at least 1; got 0." in capsys.readouterr().err


def test_an_unknown_site_is_named(run):
    with pytest.raises(UserError, match="no observed site 'y'"):
        replicates(
            run.recipe.model,
            run.recipe.guide,
            run.recipe.batches("test"),
            IMAGE_STATISTICS,
            draws=2,
            points=2,
            site="y",
            progress=False,
        )
