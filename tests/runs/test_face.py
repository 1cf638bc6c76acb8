"""What a run does in Python: the same for every story, for data points alone."""

import numpy as np
import pytest
import torch
from PIL import Image

import pyro_latents
from pyro_latents import zoo
from pyro_latents.checks import classifier
from pyro_latents.cli import main
from pyro_latents.errors import UserError

FEW = {"limit_train": 200, "validation": 30, "batch_size": 20}
QUIET = {"progress": False, "accelerator": "cpu"}
RUNS = {
    "vae-digits": {"networks": "dense", "z_dim": 3},
    "triplet-tvae-digits": {"z_dim": 3},
    "equivae-digits": {"width": 2, "m_max": 2, "v_dim": 3},
    "equivae-semi-digits": {"width": 2, "m_max": 2, "v_dim": 3, "labels": 20},
    "pose-tvae-digits": {"hidden_dim": 16, "z_dim": 3, "warp": "affine5"},
    "pose-dtvae-digits": {"hidden_dim": 16, "z_dim": 3, "pose_prior": "affine5"},
    "vaells-swiss-roll": {"candidates": 0},
    "vaells-rotated-digits": {"warm_up": 0, "num_anchors": 2},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run of each story, after two steps."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in RUNS.items():
        recipe = zoo.recipe(name, **{**FEW, **options})
        recipe.train(folder / name, steps=2, **QUIET)
    return folder


@pytest.fixture
def open_run(runs):
    return lambda name: zoo.open_run(runs / name)


@pytest.mark.parametrize("name", RUNS)
def test_draws_are_encoded_and_decoded_without_the_data(name, open_run):
    run = open_run(name)
    x = run.sample(5, seed=0)
    assert x.shape == (5, *run.story.x_shape)
    codes = run.encode(x)
    assert all(len(code) == 5 for code in codes.values())
    found = run.reconstruct(x)
    assert found.shape == x.shape
    assert torch.allclose(run.decode(codes), found, atol=1e-6)
    posterior = run.posterior(x)
    assert posterior.keys() == codes.keys()
    assert all(q.batch_shape == (5,) for q in posterior.values())
    # Models that are built around their data were built around blank ones.
    assert "splits" not in vars(run.parts)


@pytest.mark.parametrize("name", RUNS)
def test_data_points_are_what_the_trained_programs_say(name, open_run):
    """The parameters are those of the checkpoint, also where the model took some off its data."""
    run = open_run(name)
    whole = zoo.open_run(run.path)
    whole.config.pop("num_classes")
    x = whole.parts.splits.test.x[:4]
    assert torch.equal(run.reconstruct(x), whole.reconstruct(x))
    assert torch.equal(run.sample(3, seed=1), whole.sample(3, seed=1))


def test_draws_go_by_their_seed_and_by_what_is_given(open_run):
    run = open_run("equivae-digits")
    assert torch.equal(run.sample(3, seed=1), run.sample(3, seed=1))
    assert not torch.equal(run.sample(3), run.sample(3))
    assert set(run.sample(3, noise=True).unique().tolist()) == {0, 1}
    style = torch.zeros(3)
    one, other = (run.sample(1, given={"y": y, "v": style}) for y in (3, 4))
    assert torch.equal(one, run.decode({"y": [3], "v": style[None]}))
    assert not torch.equal(one, other)


def test_the_random_state_is_left_alone_by_a_seed(open_run):
    run = open_run("vae-digits")
    before = torch.get_rng_state()
    run.sample(2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pose_is_undone_and_given_to_another_image(open_run):
    run = open_run("pose-tvae-digits")
    x = run.sample(4, seed=0)
    upright = run.transform(x)
    z = run.encode(x)["z"]
    assert torch.allclose(upright, run.parts.model.reference(z))
    pose = run.infer_transformation(x)
    assert torch.allclose(run.transform(x, pose), run.reconstruct(x), atol=1e-5)
    quarter = torch.tensor([torch.pi / 2, 0, 0, 0, 0])
    turned = run.transform(x, quarter)
    either = [torch.rot90(upright, k, (-2, -1)) for k in (1, -1)]
    assert min((turned - found).abs().max() for found in either) < 1e-4


def test_the_transformation_of_a_triplet_is_undone_by_its_inverse(open_run):
    run = open_run("triplet-tvae-digits")
    x1, x2 = run.sample(4, seed=0), run.sample(4, seed=1)
    T = run.infer_transformation(x1, x2)
    assert torch.equal(run.transform(x1, torch.zeros(3)), run.transform(x1))
    code = run.encode(x1)["z"]
    assert torch.allclose(run.transform(x1, T), run.decode({"z": code + T}), atol=1e-6)


def test_a_path_of_vaells_leads_from_one_point_to_another(open_run):
    run = open_run("vaells-swiss-roll")
    x = run.sample(4, seed=0)
    still = run.infer_transformation(x, x)
    assert still.abs().max() < 1e-3
    assert torch.allclose(run.transform(x, still), run.transform(x), atol=1e-4)
    # A path along and back again ends where it began.
    c = torch.tensor([2.0])
    ends = run.parts.model.operators(-c, run.parts.model.operators(c, run.encode(x)["z"]))
    assert torch.allclose(run.decode({"z": ends}), run.transform(x), atol=1e-4)
    assert not torch.allclose(run.transform(x, c), run.transform(x), atol=1e-4)


def test_a_story_without_transformation_says_so(open_run):
    with pytest.raises(UserError, match="vae has no transformation of data points"):
        open_run("vae-digits").transform(torch.zeros(1, 1, 28, 28))


def test_images_come_as_arrays_bytes_and_files(open_run, tmp_path):
    run = open_run("vae-digits")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    expected = run.encode(torch.from_numpy(pixels)[:, None] / 255)["z"]
    np.save(tmp_path / "x.npy", pixels)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "x.npy").rename(tmp_path / "y.npy")
    for x in (pixels, pixels / 255, tmp_path / "y.npy", str(tmp_path)):
        assert torch.allclose(run.encode(x)["z"], expected, atol=1e-6)
    for x in (pixels[0], pixels[0][None], tmp_path / "0.png"):
        assert torch.allclose(run.encode(x)["z"], expected[:1], atol=1e-6)


@pytest.mark.parametrize("half", [False, True], ids=["whole", "half"])
@pytest.mark.parametrize("name", ["vae-digits", "equivae-digits", "vaells-rotated-digits"])
def test_an_export_is_a_run_without_its_training(name, half, open_run, tmp_path, monkeypatch):
    run = open_run(name)
    run.folder.add_metrics({"elbo": -90.0})
    out = run.export(tmp_path / "out", half=half)
    monkeypatch.chdir(tmp_path)
    other = zoo.open_run("out")
    x = run.sample(3, seed=0)
    tolerance = 2e-2 if half else 0
    assert torch.allclose(other.reconstruct(x), run.reconstruct(x), atol=tolerance)
    assert other.metrics["elbo"] == -90
    size = (out / "model.safetensors").stat().st_size
    parameters = {id(p): p for p in (*run.parts.model.parameters(), *run.parts.guide.parameters())}
    numbers = sum(p.numel() for p in parameters.values())
    buffers = sum(b.numel() for b in (*run.parts.model.buffers(), *run.parts.guide.buffers()))
    assert size < (2 if half else 4) * (numbers + 2 * buffers) + 20_000
    with pytest.raises(UserError, match="out is there already"):
        run.export(out)
    with pytest.raises(UserError, match="exists and is not a run"):
        zoo.recipe(name, **FEW).train(out, steps=3, resume=True, **QUIET)


def test_an_export_is_a_command_and_tells_nothing_of_the_machine(open_run, tmp_path, capsys):
    first = open_run("vae-digits")
    few = {**FEW, "data_dir": tmp_path, "model_from": first.path, "guide": "full-rank"}
    run = zoo.recipe("vae-digits", **few).train(tmp_path / "run", steps=2, **QUIET)
    for options, out in (([], "run-export"), (["--half"], "run-export-2")):
        assert main(["export", str(run.path), *options]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / out)
    whole, half = (zoo.open_run(tmp_path / f"run-export{n}") for n in ("", "-2"))
    assert str(tmp_path.parent) not in (whole.path / "config.yaml").read_text()
    assert whole.config["story"] == "pyro_latents.stories.vae:VAEStory"
    assert whole.config["recipe"] == "vae-digits"
    assert {"pyro-latents", "torch", "python"} <= whole.config["versions"].keys()
    x = run.sample(2, seed=0)
    assert torch.equal(whole.reconstruct(x), run.reconstruct(x))
    sizes = [(r.path / "model.safetensors").stat().st_size for r in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert main(["export", str(run.path), "--out", str(tmp_path / "run-export")]) == 2
    assert "run-export is there already: give another folder" in capsys.readouterr().err


def test_a_damaged_export_is_said_to_be(open_run, tmp_path):
    out = open_run("vae-digits").export(tmp_path / "out")
    path = out / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        zoo.open_run(out).sample()


def test_a_guide_without_a_posterior_of_its_own_has_one(tmp_path):
    import pyro
    from pyro.distributions import Normal

    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = torch.nn.Linear(784, 3)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                return pyro.sample("z", Normal(self.loc(x.flatten(1)), 1.0).to_event(1))

    recipe = zoo.recipe("vae-digits", guide=Guide(), **{**FEW, **RUNS["vae-digits"]})
    recipe.train(tmp_path / "run", steps=1, **QUIET)
    run = zoo.open_run(tmp_path / "run", guide=Guide())
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(run.posterior(x)["z"].mean, run.encode(x)["z"])


def test_data_in_memory_are_given_again(tmp_path):
    x = np.random.default_rng(0).random((60, 28, 28), np.float32)
    recipe = zoo.recipe("vae-digits", data=x, networks="dense", batch_size=20)
    run = recipe.train(tmp_path / "run", steps=1, **QUIET)
    assert run.encode(x[:2])["z"].shape == (2, 10)
    limits = {"particles": 2, "likelihood_points": 2, "limit_test": 2}
    with pytest.raises(UserError, match="the data were arrays in memory"):
        zoo.open_run(run.path).evaluate(**limits)
    assert zoo.open_run(run.path, data=x).evaluate(**limits)["test_points"] == 2
    with pytest.raises(UserError, match="28 x 28, and the data given are grey images of 20 x 20"):
        zoo.open_run(run.path, data=x[:, :20, :20]).evaluate(**limits)


def test_data_are_arrays_or_lists_of_them_and_nothing_else():
    x = np.random.default_rng(0).random((20, 8, 8), np.float32)
    recipe = zoo.recipe("vae-digits", data=list(x), networks="dense")
    assert recipe.story.x_shape == (1, 8, 8)
    assert torch.equal(
        recipe.splits.test.x, zoo.recipe("vae-digits", data=x, networks="dense").splits.test.x
    )
    with pytest.raises(UserError, match=r"got set: make it an array with numpy.asarray\.$"):
        zoo.recipe("vae-digits", data={"x.npy"})


def test_a_recipe_tells_what_it_is(open_run):
    text = repr(zoo.recipe("vae-digits", guide="flow", seed=3))
    for word in ("vae-digits", "Kingma and Welling", "digits, grey images", "flow", "3"):
        assert word in text
    assert "frozen" not in text
    assert "frozen" in repr(zoo.recipe("vae-digits", model_from=open_run("vae-digits")))


@pytest.mark.parametrize("name", ["vae-digits", "equivae-digits"])
def test_a_run_tells_what_it_is(name, open_run):
    run = open_run(name)
    run.folder.add_metrics({"elbo": -90.123, "elbo_se": 0.5, "k_hat_above_threshold": 0.8333})
    for text in (repr(run), run._repr_html_()):
        for word in (run.story.paper, "grey images of 28 x 28", "paper", "step 2", str(run.path)):
            assert word in text
        assert "elbo -90.12 +- 0.5 nats per data point" in text
        assert "0.83 %" in text


WRONG = {
    "another size": (lambda run: run.encode(torch.zeros(2, 1, 20, 20)), "20 x 20, not the grey"),
    "colour": (
        lambda run: run.encode(torch.zeros(2, 3, 28, 28)),
        "make them so, by Pillow's convert('L') and resize((28, 28))",
    ),
    "flat images": (lambda run: run.encode(torch.zeros(2, 784)), "reshape them to (2, 1, 28, 28)"),
    "paths": (
        lambda run: run.encode(["a.png", "b.png"]),
        "or the path of an image or of a folder",
    ),
    "no names of sites": (
        lambda run: run.decode(torch.zeros(2, 3)),
        "by the names of their sites",
    ),
    "a range": (lambda run: run.encode(torch.full((2, 1, 28, 28), 2.0)), "pixels from 2 to 2"),
    "no file": (lambda run: run.encode("nowhere.png"), "nowhere.png is not there"),
    "no such site": (lambda run: run.sample(given={"zz": 0.0}), "no latent 'zz': it has z"),
    "a shape": (lambda run: run.decode({"z": torch.zeros(2, 7)}), "z is of shape (2, 7), not"),
    "no draws": (lambda run: run.sample(0), "--count must be at least 1"),
    "one run": (lambda run: run.compare(), "compare two runs or more"),
}


@pytest.mark.parametrize(("call", "words"), WRONG.values(), ids=WRONG)
def test_a_call_that_makes_no_sense(call, words, open_run):
    with pytest.raises(UserError) as raised:
        call(open_run("vae-digits"))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_transformations_that_do_not_fit(open_run):
    run = open_run("pose-tvae-digits")
    x = run.sample(2)
    with pytest.raises(UserError, match="u of pose-tvae has 5 numbers; got the shape"):
        run.transform(x, torch.zeros(4))
    with pytest.raises(UserError, match="2 data points and 3 transformations"):
        run.transform(x, torch.zeros(3, 5))
    with pytest.raises(UserError, match="inferred from an image in that pose; got 2"):
        run.infer_transformation(x, x)


def test_check_compare_and_report_are_at_hand(open_run, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 5)
    run = open_run("vae-digits")
    written = run.check(images=6, draws=4, statistics=None)
    assert (run.path / "checks" / "check.nc") in written
    table = run.compare(zoo.open_run(run.path), particles=3, points=4)
    assert "elbo" in table.as_text()
    assert run.report().read_text().startswith("<!doctype html>")


def test_names_are_found_where_one_looks():
    assert {"zoo", "SVI", "captured"} <= set(dir(pyro_latents))
    assert {"recipe", "recipes", "open_run", "register", "Run"} <= set(dir(zoo))
    assert not [name for name in dir(zoo) if not hasattr(zoo, name)]
