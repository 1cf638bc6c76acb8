"""A step reads nothing back from the device: each read would wait for all that is under way."""

from collections import Counter

import pyro
import pytest
import torch
from host_reads import READS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_latents import zoo
from pyro_latents.data.batches import Batches
from pyro_latents.programs import local_parameters
from pyro_latents.training.plan import Phase

INDEXING = {"_index_put_impl_", "index", "index_put", "index_put_"}
# Without VAELLS, whose solver decides on the host.
RECIPES = (
    "vae-digits",
    "triplet-tvae-digits",
    "pose-tvae-digits",
    "pose-dtvae-digits",
    "equivae-digits",
    "equivae-semi-digits",
)


class Reads(TorchDispatchMode):
    """Counts what is read by the host, by the name of the operation."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.found = Counter()
        # These do not pass the dispatcher on a CPU.
        for name in ("numpy", "tolist", "__array__"):
            monkeypatch.setattr(torch.Tensor, name, self.counted(name))

    def counted(self, name):
        original = getattr(torch.Tensor, name)

        def read(tensor, *arguments, **options):
            self.found[name] += 1
            return original(tensor, *arguments, **options)

        return read

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in READS or name in INDEXING and any(map(is_mask, args[1])):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def is_mask(index):
    """Whether it is a choice of as many elements as there are true ones."""
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def reads_of_a_step(parts, phase, monkeypatch):
    batches = Batches(parts.batches("train"), 8, seed=0)
    loss, model = phase.loss or parts.loss, phase.model or parts.model
    guide = phase.guide or parts.guide
    index, generator = batches.order(0)[:8], torch.Generator().manual_seed(0)
    parameters = list(nn.ModuleList([parts.model, parts.guide]).parameters())
    # As in training after its first steps.
    with local_parameters(model, guide), pyro.validation_enabled(False):
        loss.differentiable_loss(model, guide, *batches.batch(0))
        with Reads(monkeypatch) as reads:
            batch = batches.maker(index, generator)
            loss.differentiable_loss(model, guide, *batch).backward()
    assert any(parameter.grad is not None for parameter in parameters)
    return reads.found


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_reads_nothing_back(name, monkeypatch):
    parts = zoo.recipe(name)
    for phase in [Phase(()), *parts.plan.phases.values()]:
        found = reads_of_a_step(parts, phase, monkeypatch)
        assert not found


def test_reads_are_seen(monkeypatch):
    x = torch.arange(3.0)
    with Reads(monkeypatch) as reads:
        x.sum().item()
        bool(x[0] > 0)
        x.tolist()
        x[x > 0]
        x.numpy()
    assert reads.found.total() == 5, reads.found
