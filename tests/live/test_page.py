"""What a story may declare, and what of it is written into a page."""

import json
import re

import pytest
import torch
from torch import nn

from pyro_latents.data.examples import Examples
from pyro_latents.live import Bars, Images, Live, Sliders, Step
from pyro_latents.live.codes import code_sliders, picture
from pyro_latents.live.numbers import Numbers
from pyro_latents.live.page import live_section
from pyro_latents.live.program import Unsupported

ENDS = torch.ones(4)
X = Sliders("x", "x", -ENDS, ENDS)


def of(function, gives="y"):
    return Live("", [X], [Step(function, ["x"], [gives])], [Bars(gives, gives, list("abcd"))])


def data_of(live):
    return json.loads(re.search(r'id="live-data">(.*?)</script>', live_section(live), re.S)[1])


def test_a_step_takes_what_is_there():
    with pytest.raises(ValueError, match="a live step takes 'z': no control or step before is"):
        Live("", [X], [Step(torch.sin, ["z"], ["y"]), Step(torch.sin, ["x"], ["z"])], [])
    with pytest.raises(ValueError, match="shows 'y', which no step gives"):
        Live("", [X], [], [Images("y", "y")])


def test_an_image_of_each_class_is_there_to_pick_or_the_first_ones():
    x, y = torch.rand(30, 1, 4, 4), torch.arange(30) % 3
    of_classes = picture(Examples(x, y.flip(0)))
    assert torch.equal(of_classes.examples, x[[2, 1, 0]])
    assert of_classes.captions[0] == "test image 3, of class 0"
    first = picture(Examples(x))
    assert torch.equal(first.examples, x[:10])
    assert first.captions[0] == "test image 1"


def test_sliders_that_carry_most_are_seen():
    codes = torch.randn(50, 14) * torch.tensor([1.0, 0.01] * 7)
    assert set(range(0, 14, 2)) < set(code_sliders("z", "z", codes).shown)
    assert len(code_sliders("z", "z", codes).shown) == 10


IMPOSSIBLE = {
    "a page has no cumsum": lambda x: x.cumsum(1),
    "reads images between pixels bilinearly": lambda x: nn.functional.grid_sample(
        x.reshape(1, 1, 2, 2), x.reshape(1, 1, 2, 2), mode="nearest", align_corners=True
    ),
    "div with these options": lambda x: torch.div(x, 2, rounding_mode="floor"),
    "trying to get value out of a tracing tensor": lambda x: x if x.sum() > 0 else -x,
    "gives other numbers once it is traced": lambda x: x * torch.tensor(next(NUMBERS)),
}
NUMBERS = iter(range(1000))


@pytest.mark.parametrize("said", IMPOSSIBLE)
def test_what_a_page_cannot_do_is_said(said):
    with pytest.raises(Unsupported, match=said):
        live_section(of(IMPOSSIBLE[said]))


@pytest.mark.parametrize(("scale", "bits"), [(1.0, 16), (100.0, 32)])
def test_weights_are_short_where_it_cannot_be_seen(scale, bits):
    network = nn.Sequential(nn.Linear(4, 300), nn.Linear(300, 4))
    # Of large angles, a small share is much.
    numbers = data_of(of(lambda x: torch.sin(scale * network(x))))["numbers"]
    found = {place[0] for place in numbers["places"] if place[2] == 1200}
    assert found == {bits}


def test_constants_are_kept_once():
    numbers = Numbers()
    value = torch.randn(3, 4)
    assert numbers.add(value) == numbers.add(value.clone()) != numbers.add(value, half=True)
    assert [place[1:] for place in numbers.as_json()["places"]] == [(0, 12), (0, 12)]


def test_what_is_constant_is_no_operation():
    weight = nn.Parameter(torch.randn(4, 4))
    (step,) = data_of(of(lambda x: x @ torch.linalg.inv(weight @ weight.mT + 1).exp()))["steps"]
    assert [operation["do"] for operation in step["operations"]] == ["product"]


def test_text_of_a_story_is_text():
    page = live_section(Live("a < b", [X], [], [Bars("x", "</script><b>", list("abcd"))]))
    assert "a &lt; b" in page
    assert "</script><b>" not in page
