"""Each operation of pages, by itself, against torch's."""

import re

import torch
import torch.nn.functional as F
from browser import needs_browser, opened
from torch import nn

from pyro_latents.live import Images, Live, Sliders, Step
from pyro_latents.live.page import live_section

SIZE = 48
WEIGHTS = {
    shape: torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
    for shape in [(4, 3, 3, 2), (3, 4, 3, 2), (4, 1, 2, 2), (2, 1, 3), (12, 5), (6,), (5,)]
}


def image(x, channels=3):
    return x.reshape(1, channels, 4, -1)


def written(x):
    """What is written in place, and read again."""
    y = x.reshape(6, 8).clone()
    y[1:5, ::2] += 1
    y[2] = y[3]
    return y


# Functions of 48 numbers between -2 and 2, `1 48`.
FUNCTIONS = {
    "views": lambda x: (
        image(x).permute(0, 2, 3, 1)[:, 1:, ::2].flip(1).unsqueeze(-1).expand(-1, -1, -1, -1, 3)
    ),
    "parts": lambda x: torch.cat(
        [*x.reshape(4, 12).split([3, 9], 1)[::-1], x.view(12, 4).mT[:, :2]], 1
    ),
    "stacks": lambda x: torch.stack(x.reshape(3, 16).unbind(0), 1),
    "diagonals": lambda x: x.reshape(3, 4, 4).diagonal(dim1=1, dim2=2) + torch.zeros(4),
    "pads": lambda x: F.pad(
        F.pad(image(x), (1, 2, 0, 1), value=0.5), (2, 1, 1, 2), mode="replicate"
    ),
    "circular pads": lambda x: F.pad(x.reshape(1, 3, 16), (2, 2), mode="circular"),
    "reflected pads": lambda x: F.pad(image(x), (1, 1, 2, 2), mode="reflect"),
    "moves": lambda x: F.pixel_shuffle(F.interpolate(x.view(1, 4, 3, 4), scale_factor=2), 2).roll(
        1, -1
    ),
    "writing in place": written,
    "arithmetic": lambda x: 2 - (x * 3 + x.amax() / (x.abs() + 1) - (-x) ** 2),
    "functions": lambda x: (
        x.exp().log1p() + x.sin() * x.cos() + x.tanh() - x.sigmoid() + x.abs().rsqrt()
    ),
    "more functions": lambda x: (
        x.expm1() + torch.erf(x) + x.sign() + x.floor() + x.exp().reciprocal()
    ),
    "activations": lambda x: (
        F.relu(x) + F.elu(x) + F.gelu(x) + F.silu(x) + F.softplus(x) + F.leaky_relu(x)
    ),
    "bounds": lambda x: x.clamp(-1, 0.5) + x.clamp_min(0) + x.clamp_max(1) + torch.maximum(x, -x),
    "comparisons": lambda x: (
        torch.where((x > 0) & (x < 1) | (x <= -1), x, x.square()) * (x >= 0.5).float()
    ),
    "angles": lambda x: torch.atan2(x[:, :24], x[:, 24:]),
    "broadcasting": lambda x: x.reshape(4, 12, 1) * x.reshape(4, 1, 12) + WEIGHTS[12, 5][:, 0],
    "reductions": lambda x: torch.cat(
        [
            r(x.reshape(3, 4, 4), dim=(0, 2))
            for r in (torch.sum, torch.mean, torch.amax, torch.amin)
        ]
        + [torch.logsumexp(x.reshape(4, 12), 1), x.reshape(4, 12).argmax(1).float(), x.sum()[None]]
    ),
    "softmaxes": lambda x: x.reshape(6, 8).softmax(-1) + x.reshape(6, 8).log_softmax(0),
    "products": lambda x: torch.addmm(
        WEIGHTS[5,], x.reshape(4, 12), WEIGHTS[12, 5], alpha=2, beta=3
    ),
    "products of batches": lambda x: x.reshape(3, 4, 4) @ x.reshape(3, 4, 4).mT @ x[0, :4],
    "exponentials": lambda x: torch.linalg.matrix_exp(x.reshape(3, 4, 4)),
    "rows": lambda x: (
        WEIGHTS[12, 5][x.reshape(4, 12).argmax(1)] + x.reshape(12, 4)[:5].argmin(0).float().mean()
    ),
    "convolutions": lambda x: F.conv2d(image(x), WEIGHTS[4, 3, 3, 2], WEIGHTS[5,][:4], 2, (1, 2)),
    "dilations": lambda x: F.conv2d(image(x), WEIGHTS[4, 3, 3, 2], padding=2, dilation=2),
    "groups": lambda x: (
        F.conv2d(image(x, 4), WEIGHTS[4, 1, 2, 2], groups=4)
        + F.conv_transpose2d(
            image(x, 4), WEIGHTS[4, 1, 2, 2], groups=4, padding=1, stride=1
        ).mean()
    ),
    "lines": lambda x: F.conv1d(x.reshape(2, 1, 24), WEIGHTS[2, 1, 3], padding=1, stride=2),
    "transposed convolutions": lambda x: F.conv_transpose2d(
        image(x), WEIGHTS[3, 4, 3, 2], WEIGHTS[5,][:4], stride=2, padding=1, output_padding=1
    ),
    "folds": lambda x: F.fold(x.reshape(1, 12, 4), (5, 3), (3, 2), padding=(0, 1), stride=(2, 3)),
    "samples": lambda x: torch.cat(
        [
            F.grid_sample(image(x), 0.8 * x.reshape(1, 4, 6, 2), padding_mode=p, align_corners=a)
            for p in ("zeros", "border")
            for a in (True, False)
        ]
    ),
    "norms": lambda x: x / x.norm() + x.reshape(3, 16).norm(dim=1, keepdim=True).mean(),
    "a network": nn.Sequential(
        nn.Linear(SIZE, 7), nn.BatchNorm1d(7), nn.Dropout(), nn.Linear(7, 3)
    ).eval(),
    "noise": lambda x: x + torch.randn_like(x) + torch.randn(3, 1),
}


def moving(functions):
    """A page whose steps are functions of 48 numbers."""
    reach = torch.full((SIZE,), 2.0)
    start = torch.linspace(-1, 1, SIZE)
    steps = [Step(function, ["x"], [f"made {i}"]) for i, function in enumerate(functions)]
    last = Step(lambda x: x.reshape(1, 1, 6, 8), ["x"], ["image"])
    shows = [Images("image", "numbers")]
    return Live("", [Sliders("x", "x", -reach, reach, start)], [*steps, last], shows)


@needs_browser
def test_every_operation_is_torchs(tmp_path):
    page = tmp_path / "page.html"
    section = live_section(moving(FUNCTIONS.values()))
    page.write_text(f"<link rel=icon href='data:,'><body>{section}</body>")
    shown, console = opened(page, tmp_path)
    assert console == []
    told = re.search(r'data-differences="\[(.*?)\]"', shown)[1].split(",")
    apart = dict(zip(FUNCTIONS, map(float, told), strict=False))
    assert len(told) == len(FUNCTIONS) + 1
    assert {name: far for name, far in apart.items() if not far < 1e-4} == {}
