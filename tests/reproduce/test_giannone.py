import json
from dataclasses import replace

import pytest
import torch
from pyro import validation_enabled
from pyro.distributions import Normal
from sklearn.decomposition import PCA

from pyro_latents import zoo
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.reproduce import (
    giannone,
    giannone_coherence,
    giannone_epochs,
    giannone_floors,
    giannone_likelihood,
    giannone_transfer,
    giannone_turns,
)
from pyro_latents.reproduce.experiment import Context
from pyro_latents.reproduce.giannone import BUDGETS, KINDS, job_of
from pyro_latents.reproduce.giannone_floors import (
    accuracies,
    on_frame,
    pixels,
    principal_components,
)
from pyro_latents.reproduce.giannone_likelihood import Measured
from pyro_latents.reproduce.giannone_transfer import Probe, encoder_of
from pyro_latents.reproduce.tables import experiments, reproduce
from pyro_latents.stories.triplet_tvae.metrics import image_codes

QUICK, HOURS, PAPER = BUDGETS
TINY = replace(
    QUICK,
    images=40,
    steps=1,
    test_images=8,
    particles=3,
    own={"labelled": 200, "tested": 20, "seeds": 1},
)
NAMES = (
    *("table1", "transfer", "epochs", "ablation", "floors", "likelihood"),
    *("figure2", "figure3", "figure4"),
)


def context(tmp_path, budget=TINY, data="digits"):
    return Context(budget, tmp_path, data, processes=1)


def test_every_table_and_figure_is_there():
    assert {f"giannone-{name}" for name in NAMES} <= set(experiments())


@pytest.fixture
def few(monkeypatch):
    """A few of the rows, which are many trainings."""
    models = {kind: {} for kind in giannone.COMPARED}
    monkeypatch.setattr(giannone_transfer, "MODELS", models)
    rows = giannone_coherence.ROWS
    kept = rows[4], rows[-6], rows[-5], rows[-1]  # shrunken, matrix, pixelations, VAE+
    monkeypatch.setattr(giannone_coherence, "ROWS", kept)
    monkeypatch.setattr(giannone_turns, "MODELS", ("TVAE, matrix", "VAE+"))
    monkeypatch.setattr(giannone_floors, "SIZES", (10,))
    monkeypatch.setattr(giannone_epochs, "EPOCHS", (1, 2))
    monkeypatch.setattr(giannone_likelihood, "SIZES", (4, 6))
    monkeypatch.setattr(giannone_likelihood, "CHAINS", {"num_chains": 2, "num_temperatures": 3})


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", [name for name in NAMES if name != "table1"])  # as transfer
def test_each_writes_its_numbers_and_pictures(name, tmp_path):
    reproduce(f"giannone-{name}", out=tmp_path, budget=TINY, data="digits", processes=1)
    written = json.loads((tmp_path / f"giannone-{name}.json").read_text())
    assert written["rows"]
    assert all(len(row) == len(written["columns"]) for row in written["rows"])
    assert name == "floors" or written["settings"]["training_images"] == 40
    for path in written["figures"]:
        assert (tmp_path / path.split("/")[-1]).stat().st_size > 1000


def test_the_table_has_the_papers_figures_beside_ours(tmp_path, monkeypatch):
    probes = [Probe(50.0, 52.0, 80.0, 70.0), Probe(52.0, 52.0, 80.0, 70.0)]
    two = replace(TINY, own={**TINY.own, "seeds": 2})
    monkeypatch.setattr(
        Context, "apply", lambda self, _, jobs: [probes[job.seed % 2] for job in jobs]
    )
    for name in ("_without_network", "transfer_data"):
        monkeypatch.setattr(giannone_transfer, name, lambda *_, **__: probes[0])
    monkeypatch.setattr(Probe, "asked", Examples(torch.zeros(0)), raising=False)
    monkeypatch.setattr(giannone_transfer, "chosen_settings", lambda *_, **own: own)
    result = giannone_transfer.table1.run(context(tmp_path, two, data=None))
    rows = {tuple(row[:3]): row[3:] for row in result.rows}
    assert len(result.rows) == 2 * 3 + 2 * len(giannone_transfer.MODELS)
    assert rows["middle", "PCA", 100][:2] == [None, 50.0]
    assert rows["shrunken", "TVAE", 100] == [
        *(90.6, 51.0, 1.0, 52.0, 0.0, 98.1, 80.0, 70.0),
        *(81.2, 51.0, 1.0, 52.0, 0.0, 86.9, 80.0, 70.0),
    ]
    assert rows["shrunken", "TVAE, KL per triplet", 10][0] is None
    assert all(len(row) == len(result.columns) for row in result.rows)


def test_the_paper_budget_is_appendix_b(tmp_path):
    for kind in KINDS:
        job = job_of(context(tmp_path, PAPER), kind, "mnist", 100)
        s = job.build().story
        assert job.images is PAPER.steps is None
        assert (s.epochs, s.learning_rate, s.halve_every, s.batch_size) == (200, 1e-4, 50, 100)
        assert (s.z_dim, s.validation, s.optimizer) == (100, 10_000, "adam")


def test_hours_are_all_images_and_a_shorter_schedule(tmp_path):
    recipe = job_of(context(tmp_path, HOURS), "TVAE", "mnist", 100).build()
    assert recipe.limit_train is None
    assert recipe.story.epochs == HOURS.numbers["epochs"] < 200


def test_models_of_other_numbers_have_folders_of_their_own(tmp_path):
    jobs = [
        job_of(context(tmp_path), "TVAE", "mnist", 10, **numbers)
        for numbers in ({}, {"coherence_weight": 1.0}, {"coherence": "kl"}, {"seed": 1})
    ]
    jobs += [job_of(context(tmp_path), kind, "mnist", 10) for kind in KINDS if kind != "TVAE"]
    jobs.append(job_of(context(tmp_path), "TVAE", "mnist", 10, shrink=0.7))
    assert len({job.folder for job in jobs}) == len(jobs) - 1  # KL per triplet, twice
    assert jobs[0].folder == tmp_path / "triplet-tvae-mnist-10"


def test_the_middle_of_larger_images_is_kept():
    x = torch.zeros(2, 1, 40, 40)
    x[:, :, 6, 6] = 1.0
    framed = on_frame(Examples(x, torch.tensor([0, 1])), "middle").x
    assert framed.shape == (2, 1, 28, 28)
    assert framed[0, 0, 0, 0] == 1.0
    with pytest.raises(UserError, match="20x20 pixels are too small"):
        on_frame(Examples(torch.zeros(1, 1, 20, 20)), "middle")


def test_larger_images_are_whole_where_they_are_shrunken():
    x = torch.zeros(1, 1, 40, 40)
    x[..., 1:5, 30:38] = 1.0
    shown = on_frame(Examples(x, torch.tensor([0])), "shrunken").x
    assert shown.shape == (1, 1, 28, 28)
    assert shown.sum() == pytest.approx(0.49 * x.sum().item(), rel=0.1)
    assert shown[..., :4, 21:27].sum() / shown.sum() > 0.95
    # Images of the encoder's size are as small as those that were larger.
    padded = torch.nn.functional.pad(x[..., 6:-6, 6:-6], (6, 6, 6, 6))
    inner = on_frame(Examples(x[..., 6:-6, 6:-6], torch.tensor([0])), "shrunken").x
    expected = on_frame(Examples(padded, torch.tensor([0])), "shrunken").x
    torch.testing.assert_close(inner, expected, atol=1e-5, rtol=0)


def test_principal_components_are_scikit_learns():
    x = torch.rand(50, 1, 4, 4)
    theirs = PCA(3).fit(x.flatten(1).numpy()).transform(x.flatten(1).numpy())
    ours = principal_components(x, 3)(x)
    torch.testing.assert_close(ours.abs(), torch.tensor(theirs).abs(), atol=1e-4, rtol=1e-4)


def test_a_floor_is_the_accuracy_of_neighbours_among_pixels():
    digits = zoo.recipe("vae-digits").splits
    known = giannone_floors.Known(digits.train, digits.test)
    three, one = accuracies(pixels, known, (3, 1))
    assert 95 < one < 100
    assert 95 < three < 100


def test_images_are_encoded_on_the_device_of_the_model(tmp_path):
    parts = job_of(context(tmp_path), "VAE+", "digits", 4).build()
    x = parts.splits.test.x[:3]
    encode = encoder_of(parts)
    assert torch.equal(encode(x), image_codes(parts.guide, x))
    parts.to("meta")
    with validation_enabled(False):
        assert encode(x).device.type == "meta"


@pytest.mark.parametrize("kind", ["VAE+", "VAE"])
def test_a_vae_transforms_by_half_the_difference_of_the_views(kind, tmp_path):
    parts = job_of(context(tmp_path), kind, "digits", 4).build()
    x = parts.splits.test.x[:3]
    x1, x2, others = x, x.flip(-1), x.flip(-2)
    upright, moved, back = giannone_turns.transferred(parts, x1, x2, others)
    z1, z2, z = (image_codes(parts.guide, part) for part in (x1, x2, others))
    torch.testing.assert_close(upright, giannone.decoded(parts, z))
    torch.testing.assert_close(moved, giannone.decoded(parts, z + (z1 - z2) / 2))
    torch.testing.assert_close(back, giannone.decoded(parts, z - (z1 - z2) / 2))


def test_a_transformation_moves_there_and_its_inverse_back(tmp_path):
    parts = job_of(context(tmp_path), "TVAE", "digits", 4).build()
    x = parts.splits.test.x[:3]
    upright, moved, back = giannone_turns.transferred(parts, x, x.flip(-1), x)
    z1, z2 = (image_codes(parts.guide, part) for part in (x, x.flip(-1)))
    T = parts.guide.transformation_posterior(z1, z2).mean.detach()
    torch.testing.assert_close(moved, giannone.decoded(parts, z1 + T))
    torch.testing.assert_close(back, giannone.decoded(parts, z1 - T))


def test_correlation_and_slope():
    angle = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    assert giannone_turns.correlation(angle, -3 * angle) == pytest.approx(-1)
    assert giannone_turns.slope(angle, -3 * angle) == pytest.approx(-3)
    assert giannone_turns.correlation(angle, torch.ones(4)) == 0


class Rotating(torch.nn.Module):
    """Programs whose code is the image, so that turns are those of the pixels."""

    def image_guide(self):
        return self

    def posterior(self, x):
        return {"z": Normal(x.flatten(1), 1e-3).to_event(1)}


def test_images_that_are_turned_themselves_have_the_angles_of_the_triplets(monkeypatch, tmp_path):
    parts = job_of(context(tmp_path), "VAE+", "digits", 4).build()
    parts.guide = Rotating()
    monkeypatch.setattr(giannone_turns, "decoded", lambda parts, z: z.unflatten(1, (1, 28, 28)))
    _, ceiling = giannone_turns.turns(parts, parts.splits.test, triplets=60, seed=0)
    assert ceiling.correlation > 0.97
    assert ceiling.inverse_correlation < -0.97
    assert ceiling.slope == pytest.approx(1, abs=0.05)
    assert ceiling.inverse_slope == pytest.approx(-1, abs=0.05)


def test_one_size_is_chosen_and_differences_are_of_the_same_images(monkeypatch, tmp_path):
    bounds = {("TVAE", 32): -90.0, ("VAE", 10): -91.0, ("VAE", 32): -92.0}
    weighted = {"TVAE": torch.tensor([-80.0, -84.0])}
    gain = {"TVAE": torch.tensor([3.0, 5.0])}

    def apply(self, function, jobs):
        if function is giannone_likelihood._bound:
            return [bounds.get((job.label, job.numbers["z_dim"]), -95.0) for job in jobs]
        assert {job.numbers["z_dim"] for job in jobs} == {32}
        assert {job.build().story.epochs for job in jobs} == {3}
        other = torch.tensor([-79.0, -81.0]), torch.tensor([1.0, 1.0])
        values = [
            (weighted.get(job.label, other[0]), gain.get(job.label, other[1])) for job in jobs
        ]
        return [Measured(-99.0, x, 50.0, more, x - 1, torch.zeros(2)) for x, more in values]

    monkeypatch.setattr(Context, "apply", apply)
    monkeypatch.setattr(giannone_likelihood, "_independent_pixels", lambda job: (-200.0, 3.0))
    longer = replace(TINY, steps=None, own={**TINY.own, "longer": 3})
    result = giannone_likelihood.likelihood.run(context(tmp_path, longer))
    assert all(len(row) == len(result.columns) for row in result.rows)
    start = result.columns.index("importance")
    rows = {row[0]: row[start:] for row in result.rows}
    # -82 and 4 more; the errors 2 and 1 of their sum, 1 and 1 of the difference.
    assert rows["TVAE"][:4] == [-82.0, 50.0, 4.0, 1.0]
    assert rows["TVAE"][4:8] == pytest.approx([-78.0, 5**0.5, 1.0, 2**0.5])
    assert rows["VAE"][6:8] == [0.0, 0.0]
    assert rows["pixels on their own"][:6] == [-200.0, None, None, None, -200.0, 3.0]
    assert "32 dimensions" in result.title


def test_pixels_on_their_own_have_the_likelihood_of_a_bernoulli(tmp_path):
    job = job_of(context(tmp_path), "VAE", "digits", 4)
    splits = job.build().splits
    mean = splits.train.x.double().mean(0)
    mean = (len(splits.train) * mean + 1) / (len(splits.train) + 2)
    x = splits.test.x[: TINY.test_images].double()
    log_p = (x * mean.log() + (1 - x) * (1 - mean).log()).flatten(1).sum(1)
    assert giannone_likelihood._independent_pixels(job) == pytest.approx(
        (log_p.mean().item(), (log_p.std() / len(x) ** 0.5).item()), rel=1e-5
    )


def test_each_length_is_a_training_of_its_own(monkeypatch, tmp_path):
    asked = []

    def apply(self, _, jobs):
        asked.extend((job.label, job.build().story.epochs, job.folder) for job in jobs)
        return [(Probe(50.0, 52.0, 80.0, 70.0), 1.0) for _ in jobs]

    monkeypatch.setattr(Context, "apply", apply)
    longer = replace(TINY, steps=None)
    result = giannone_epochs.by_epochs.run(context(tmp_path, longer))
    assert [(kind, epochs) for kind, epochs, _ in asked] == [tuple(row[:2]) for row in result.rows]
    assert len({folder for *_, folder in asked}) == len(asked) == 10


def test_the_bound_of_the_ablation_is_of_images_in_the_frame_of_the_model(monkeypatch, tmp_path):
    seen = []

    def bound_terms(model, guide, batches, **options):
        seen.append(batches(torch.arange(4), torch.Generator())[0])
        return {"elbo": 0.0}

    monkeypatch.setattr(giannone_coherence, "bound_terms", bound_terms)
    job = job_of(context(tmp_path), "TVAE", "digits", 4, shrink=0.7)
    giannone_coherence._watched(job)
    x = job.build().batches("validation")(torch.arange(4), torch.Generator())[0]
    torch.testing.assert_close(seen[0], x)


def test_half_way_is_measured_on_the_same_triplets_for_all(tmp_path):
    result = giannone.figure4.run(context(tmp_path))
    rows = {row[0]: row[1:] for row in result.rows}
    assert set(rows) == {"pixels", *giannone.COMPARED}
    assert rows["VAE"][2:4] == [0.0, 0.0]
    assert rows["TVAE"][2] == pytest.approx(rows["TVAE"][0] - rows["VAE"][0], abs=1e-6)
    # Of the same triplets: untrained models differ by less than images do.
    assert rows["TVAE"][3] < rows["TVAE"][1]
    assert rows["TVAE"][5] == pytest.approx(rows["TVAE"][0] / rows["TVAE"][4])
    assert rows["pixels"][4:] == [None, None]
