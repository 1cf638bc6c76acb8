"""The program that `test_devices.py` runs; Lightning starts it once more, for the second rank.

What each rank wrote and decided is noted in files of its own, for the test to read.
"""

import os
import sys
from pathlib import Path

import torch

import pyro_latents.files
import pyro_latents.training.checkpoint
from pyro_latents.cli import main
from pyro_latents.errors import UserError
from pyro_latents.training.step import Objective
from pyro_latents.training.steps import Steps

OUT = Path(sys.argv[1])
# Lightning sets it for the second rank only.
RANK = int(os.environ.get("LOCAL_RANK", "0"))
WRITTEN = OUT / f"written-{RANK}.txt"
WRITTEN.touch()

write = pyro_latents.files.write_atomically
value_now = Steps._value_now
try_step = Steps._try
tried: list[dict] = []


def noted_write(path, content):
    with WRITTEN.open("a") as file:
        file.write(f"{Path(path).relative_to(OUT)}\n")
    write(path, content)


def value_that_is_worse_on_one_rank(self, *args):
    value = value_now(self, *args)
    # The ranks alone would disagree about the second trial.
    return value + 1e6 if RANK == 1 and len(tried) == 1 else value


def noted_try(self, trial, *args):
    try_step(self, trial, *args)
    group = self.optimizers[trial.optimizer].param_groups[0]
    tried.append({"rate": group["lr"].clone(), "psi": group["params"][0].detach().clone()})


def failing_loss(self, *batch):
    raise UserError(f"no loss at step {self.seeds[0]}")


def train(recipe, out, *options):
    common = ["--accelerator", "cpu", "--devices", "2", "--out", str(OUT / out)]
    return main(["train", recipe, *common, *options])


pyro_latents.files.write_atomically = noted_write
pyro_latents.training.checkpoint.write_atomically = noted_write
Steps._value_now = value_that_is_worse_on_one_rank
Steps._try = noted_try

digits = ["--networks", "dense", "--guide", "delta"]
train("vae-digits", "whole", *digits, "--steps", "16")
train("vae-digits", "from-two", *digits, "--steps", "5")
train("vae-digits", "captured", *digits, "--steps", "104")
train("vae-digits", "from-one", *digits, "--steps", "16", "--resume")
phases = ["--warm-up", "2", "--network-steps", "1", "--operator-steps", "3", "--candidates", "0"]
small = [
    "--try-operators",
    "true",
    "--limit-train",
    "90",
    "--validation",
    "0",
    "--search",
    "local",
    "--restarts",
    "1",
]
train("vaells-swiss-roll", "phases", *phases, *small, "--steps", "6")
torch.save(tried, OUT / f"tried-{RANK}.pt")

if RANK == 1:
    Objective.forward = failing_loss
sys.exit(train("vae-digits", "failed", *digits, "--steps", "2"))
