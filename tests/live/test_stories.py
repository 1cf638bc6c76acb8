"""The live page of each story, in a browser: it computes what torch does, and follows a hand."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from browser import WIDTH, needs_browser, told

from pyro_latents import zoo
from pyro_latents.data.affine import rotate

FEW = {"limit_train": 200, "validation": 30, "batch_size": 20}
QUIET = {"progress": False, "accelerator": "cpu"}
TOLERANCE = 1e-3
# A recipe of each story, small; networks, guides and warps differ as far as so few can.
RUNS = {
    "vae": ("vae-digits", {"z_dim": 3}),
    "vae with a flow": ("vae-digits", {"z_dim": 3, "networks": "dense", "guide": "flow"}),
    "vae of vectors": ("vae-swiss-roll", {}),
    "triplet": ("triplet-tvae-digits", {"z_dim": 3}),
    "vaells": ("vaells-rotated-digits", {"warm_up": 0, "num_anchors": 2, "z_dim": 4}),
    "vaells of vectors": ("vaells-swiss-roll", {"candidates": 0}),
    "equivae": ("equivae-digits", {"width": 4, "m_max": 2, "v_dim": 3}),
    "affine pose": ("pose-dtvae-digits", {"hidden_dim": 16, "z_dim": 3, "pose_prior": "affine5"}),
    "turned pose": (
        "pose-dtvae-digits",
        {"hidden_dim": 16, "z_dim": 3, "warp": "affine5", "num_turns": 3},
    ),
    "spline pose": (
        "pose-tvae-digits",
        {"hidden_dim": 16, "z_dim": 3, "warp": "tps", "guide": "low-rank"},
    ),
}


def of_vae(run, seen):
    return {"z": run.encode(seen["x"])["z"], "image": run.decode({"z": seen["z"]})}


def of_triplet(run, seen):
    turn = torch.deg2rad(seen["angle"][0])
    x1, x2 = (rotate(seen["x"], way * turn) for way in (1, -1))
    T = run.infer_transformation(x1, x2)
    return {"x1": x1, "x2": x2, "T": T}


def of_vaells(run, seen):
    return {"end": run.transform(seen["x"], seen["c"])}


def of_equivae(run, seen):
    codes = run.encode(seen["x"])
    y = torch.nn.functional.one_hot(codes["y"], seen["y"].shape[-1])
    image = run.decode({"y": seen["y"].argmax(-1), "v": seen["v"]})
    return {"y": y, "v": codes["v"], "image": image}


def of_pose(run, seen):
    codes = run.encode(seen["x"])
    posed = run.decode({name: seen[name] for name in ("z", "u")})
    upright = run.transform(seen["x"])
    return {**codes, "images": torch.cat([upright, posed])}


# What the values of a page are by what a run does in Python, of those that are images.
EXPECTED = {
    "vae": of_vae,
    "triplet": of_triplet,
    "vaells": of_vaells,
    "equivae": of_equivae,
    "affine pose": of_pose,
    "turned pose": of_pose,
    "spline pose": of_pose,
}

# What the scripts of tests need: values as they follow, and a pen.
BEGIN = """
const section = document.getElementById("live");
const values = {};
section.addEventListener("followed", (event) => {
  for (const [name, value] of Object.entries(event.detail)) values[name] = [...value];
});
const drawing = section.querySelector(".live-drawing");
const slider = section.querySelector("input[type=range]");
const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", { key }));
const point = (kind, x, y) => {
  const box = drawing.getBoundingClientRect();
  const place = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
  drawing.dispatchEvent(new PointerEvent(kind, { ...place, buttons: 1 }));
};
// A frame comes at once, not when the browser likes.
window.requestAnimationFrame = (frame) => frame();
const seen = {};
"""
# Draw by hand and by keys, move a slider by a key, and tell what followed.
USE = """
if (drawing) {
  point("pointerdown", 0.4, 0.2);
  point("pointermove", 0.6, 0.8);
  point("pointerup", 0.6, 0.8);
  seen.drawn = structuredClone(values);
  drawing.focus();
  for (const key of [" ", "ArrowRight", "ArrowRight", "ArrowUp", " "]) press(drawing, key);
  seen.keyed = structuredClone(values);
}
slider.focus();
// What was inferred may be at an end: towards the middle.
const middle = (Number(slider.min) + Number(slider.max)) / 2;
const way = Number(slider.value) > middle ? "ArrowLeft" : "ArrowRight";
for (let i = 0; i < 5; i++) press(slider, way);
seen.moved = structuredClone(values);
const named = (input) => Boolean(input.labels?.length || input.getAttribute("aria-label"));
const controls = [...section.querySelectorAll("input, button, canvas[tabindex]")];
tell({
  ...seen,
  ...section.dataset,
  nameless: controls.filter((c) => !named(c) && !c.textContent).map((c) => c.outerHTML),
  unreachable: controls.filter((c) => c.tabIndex < 0).length,
  width: document.documentElement.scrollWidth,
});
"""


# Draw in a corner, and use each button.
PRESS = """
const buttons = [...section.querySelectorAll("button")];
const button = (text) => buttons.find((b) => b.textContent === text);
point("pointerdown", 0.1, 0.1);
point("pointermove", 0.3, 0.2);
point("pointerup", 0.3, 0.2);
seen.drawn = values.x;
button("centre").click();
seen.centred = values.x;
button("clear").click();
seen.cleared = values.x;
section.querySelectorAll(".live-examples button")[3].click();
seen.picked = values.x;
seen.code = values.z;
button("all to zero").click();
seen.rest = values.z;
button("draw from the prior").click();
seen.draw = values.z;
// What was picked is no ground to draw on.
point("pointerdown", 0.5, 0.5);
seen.dot = values.x;
tell(seen);
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run of each story, after two steps, with its report."""
    folder = tmp_path_factory.mktemp("live")
    made = {}

    def run_of(name):
        if name not in made:
            recipe, options = RUNS[name]
            trained = zoo.recipe(recipe, **{**FEW, **options})
            run = trained.train(folder / name, steps=2, **QUIET)
            # Its pictures are no part of this.
            (run.path / "figures").mkdir()
            (run.path / "figures" / "history.png").write_bytes(b"")
            made[name] = run, run.report().read_text()
        return made[name]

    return run_of


@needs_browser
@pytest.mark.parametrize("name", RUNS)
def test_a_page_computes_what_torch_does_and_follows_hand_and_keys(name, runs, tmp_path):
    run, page = runs(name)
    seen, console = told(page, BEGIN + USE, tmp_path)
    assert console == []
    assert seen["agrees"] == "true"
    assert float(seen["difference"]) < TOLERANCE
    assert seen["nameless"] == []
    assert seen["unreachable"] == 0
    assert seen["width"] <= WIDTH
    moved = {n: torch.tensor(v, dtype=torch.float32)[None] for n, v in seen["moved"].items()}
    if "drawn" not in seen:
        assert len(moved) > 1
        return
    before = {n: torch.tensor(v, dtype=torch.float32)[None] for n, v in seen["keyed"].items()}
    drawn, keyed = torch.tensor(seen["drawn"]["x"], dtype=torch.float32), before["x"][0]
    # A stroke by hand, and a little more ink by keys.
    assert 20 < drawn.sum() < 150
    assert bool((keyed >= drawn).all())
    assert keyed.sum() > drawn.sum()
    # The slider has left the drawing as it is, and moved what follows of it.
    assert torch.equal(moved["x"], before["x"])
    assert any(not torch.equal(moved[n], before[n]) for n in moved)
    if name in EXPECTED:
        before["x"] = before["x"].view(1, *run.story.x_shape)
        for site, expected in EXPECTED[name](run, before).items():
            found = before[site].flatten()[: expected.numel()].float()
            assert torch.allclose(found, expected.flatten().float(), atol=TOLERANCE), site


@needs_browser
def test_buttons_centre_clear_pick_and_reset(runs, tmp_path):
    run, page = runs("vae")
    told_of, console = told(page, BEGIN + PRESS, tmp_path)
    assert console == []
    seen = {name: torch.tensor(value, dtype=torch.float32) for name, value in told_of.items()}
    drawn, centred = seen["drawn"].view(28, 28), seen["centred"].view(28, 28)
    assert drawn[:10, :12].sum() == drawn.sum() > 5
    assert centred.sum() == drawn.sum()
    for dim in (0, 1):
        mean = (centred.sum(1 - dim) * torch.arange(28)).sum() / centred.sum()
        assert abs(mean - 13.5) < 0.6
    assert not seen["cleared"].any()
    test = run.parts.splits.test
    expected = test.x[int((test.y == 3).nonzero()[0])]
    assert torch.equal(seen["picked"], expected.flatten())
    assert torch.allclose(seen["code"], run.encode(expected)["z"][0], atol=TOLERANCE)
    assert not seen["rest"].any()
    assert bool(seen["draw"].all())
    assert seen["draw"].abs().max() < 6
    assert 1 < seen["dot"].sum() < 8


def test_pages_are_small(runs):
    """The networks of the VAE are those of MNIST."""
    _, page = runs("vae")
    assert len(page) < 3_000_000


DATA = re.compile(r'(?<=id="live-data">).*?(?=</script>)', re.S)


def altered(page):
    """The page with one of its weights changed."""
    data = json.loads(DATA.search(page)[0])
    numbers = data["numbers"]
    # The largest constant of 32 bits, or of 16.
    bits, start, length = max(numbers["places"], key=lambda place: place[2])
    content = bytearray(base64.b64decode(numbers[f"bits{bits}"]))
    at = (start + length // 2) * bits // 8
    kind = {16: np.float16, 32: np.float32}[bits]
    content[at : at + bits // 8] = kind(3.0).tobytes()
    numbers[f"bits{bits}"] = base64.b64encode(content).decode()
    return DATA.sub(lambda _: json.dumps(data), page)


@needs_browser
def test_a_changed_weight_is_told(runs, tmp_path):
    _, page = runs("spline pose")
    script = "tell({...live.dataset, said: document.querySelector('.live-status').textContent})"
    seen, _ = told(
        altered(page), script.replace("live.", "document.getElementById('live')."), tmp_path
    )
    assert seen["agrees"] == "false"
    assert float(seen["difference"]) > TOLERANCE
    assert seen["said"].startswith("Do not trust this part: it differs from PyTorch by")
