import torch
from torch import nn

from pyro_latents.evaluation import codes as module
from pyro_latents.evaluation.codes import codes
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import MeanField


def test_codes_are_the_means_of_a_site(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2)
    guide = Amortised(nn.Linear(4, 3), z=MeanField(3, 2), u=MeanField(3, 1))
    x = torch.randn(5, 4)
    for site in ("z", "u"):
        found = codes(guide, x, site=site)
        torch.testing.assert_close(found, guide.posterior(x)[site].mean.detach())
