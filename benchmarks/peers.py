"""Time an epoch of 5,000 images beside other libraries: the same networks, in one run.

On the convolutions of `vae-mnist`, pythae trains its VAE with PyTorch's own layers in the usual
layout, as its users write them. On dense layers pyroVED trains its iVAE, of the same widths.
`SVI` is `pyro.infer.SVI` on our model and guide, in Pyro's usual way. Each shuffles, makes its
batches and takes its steps as its own trainer does; nothing is evaluated or saved. Contestants
take turns; times are of the processor; medians of the ratios of neighbouring epochs are printed.

The peers are no dependency of this package:

    pip install pythae pyroved
    python benchmarks/peers.py [--rounds 10] [--threads 1] [--out peers.json]
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pyro
import pyroved
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler
from story_steps import CAPTURED_FROM, LAST, plain, processor
from torch import Tensor

from pyro_latents import zoo
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.memory import keep_freed_memory
from pyro_latents.runs.recipe import Recipe
from pyro_latents.training.fit import check_hardware
from pyro_latents.training.loop import Loop
from pyro_latents.training.options import FitOptions

IMAGES = 5_000
WARM_UP = 2  # rounds
WIDTHS = (256, 256)
SETTINGS: dict[str, dict[str, Any]] = {
    "convolutions": {},
    "dense": {"networks": "dense", "hidden_dims": WIDTHS},
}
Epoch = Callable[[], Any]


def build(kind: str) -> Recipe:
    """`vae-mnist` as published, on noise in the place of images."""
    recipe = zoo.recipe("vae-mnist", as_published=True, **SETTINGS[kind])
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(IMAGES, *recipe.story.x_shape, generator=generator)
    part = Examples(x, torch.arange(IMAGES) % 10)
    recipe.splits = Splits(part, part.take(slice(0)), part, num_classes=10)
    return recipe


def ours(recipe: Recipe) -> Epoch:
    """An epoch of `pyro-latents train`."""
    options = FitOptions(steps=LAST, accelerator="cpu", progress=False)
    fabric = check_hardware(recipe, options, Path())
    fabric.launch()
    loop = Loop(fabric, recipe, Path())
    loop.steps.last, loop.progress.step = LAST, CAPTURED_FROM

    def epoch() -> None:
        loop.batches.set_epoch(loop.progress.step // loop.epoch_length)
        for batch in loop.batches:
            loop.progress.count(loop.step(batch))

    return epoch


def loader(recipe: Recipe) -> Any:
    """The batches of an epoch, as PyTorch's users make them."""
    data = torch.utils.data.TensorDataset(recipe.splits.train.x)
    return torch.utils.data.DataLoader(data, recipe.story.batch_size, shuffle=True)


def by_svi(recipe: Recipe) -> Epoch:
    """An epoch of Pyro's own SVI."""
    pyro.clear_param_store()
    optim = pyro.optim.Adam({"lr": recipe.story.learning_rate})
    svi = pyro.infer.SVI(
        recipe.model, recipe.guide, optim, pyro.infer.TraceMeanField_ELBO(max_plate_nesting=1)
    )
    batches = loader(recipe)
    return lambda: [svi.step(x) for (x,) in batches]


class Encoder(BaseEncoder):
    """The recipe's encoder and head, as pythae wants them."""

    def __init__(self, guide: Any) -> None:
        super().__init__()
        self.network, self.head = guide.encoder, guide.families["z"].head

    def forward(self, x: Tensor) -> ModelOutput:
        """The mean and the logarithm of the variance of the code."""
        loc, log_scale = self.head(self.network(x)).chunk(2, dim=-1)
        return ModelOutput(embedding=loc, log_covariance=2 * log_scale)


class Decoder(BaseDecoder):
    """The recipe's decoder, as pythae wants it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network = model.decoder

    def forward(self, z: Tensor) -> ModelOutput:
        """The probabilities of pixels."""
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


def by_pythae(recipe: Recipe) -> Epoch:
    """An epoch of pythae's trainer."""
    recipe = plain(recipe)
    x, z_dim = recipe.splits.train.x, recipe.story.z_dim
    config = VAEConfig(x.shape[1:], latent_dim=z_dim, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(recipe.guide), decoder=Decoder(recipe.model))
    training = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=recipe.story.batch_size,
        learning_rate=recipe.story.learning_rate,
        no_cuda=True,
    )
    data = BaseDataset(x, torch.zeros(len(x)))
    trainer = BaseTrainer(model, train_dataset=data, training_config=training)
    trainer.prepare_training()
    # Its progress bar is not what is timed.
    trainer.callback_handler = CallbackHandler([], model)
    return lambda: trainer.train_step(1)


def by_pyroved(recipe: Recipe) -> Epoch:
    """An epoch of pyroVED's trainer."""
    x = recipe.splits.train.x.flatten(1)
    model = pyroved.models.iVAE(
        (28, 28),
        latent_dim=recipe.story.z_dim,
        hidden_dim_e=list(WIDTHS),
        hidden_dim_d=list(WIDTHS),
        activation="relu",
        device="cpu",
    )
    trainer = pyroved.trainers.SVItrainer(model, lr=recipe.story.learning_rate, device="cpu")
    batches = pyroved.utils.init_dataloader(x, batch_size=recipe.story.batch_size)
    return lambda: trainer.train(batches)


CONTESTS: dict[str, dict[str, Callable[[Recipe], Epoch]]] = {
    "convolutions": {"ours": ours, "SVI": by_svi, "pythae": by_pythae},
    "dense": {"ours": ours, "SVI": by_svi, "pyroVED": by_pyroved},
}


def contest(kind: str, rounds: int) -> dict[str, float]:
    """Return the CPU seconds of our epoch, and how many times that of others it is faster."""
    epochs = {name: make(build(kind)) for name, make in CONTESTS[kind].items()}
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(WARM_UP + rounds):
        for name, epoch in epochs.items():
            began = time.process_time()
            epoch()
            if number >= WARM_UP:
                seconds[name].append(time.process_time() - began)
    found = {"seconds": median(seconds["ours"])}
    for name, measured in seconds.items():
        if name != "ours":
            found[name] = median(a / b for a, b in zip(measured, seconds["ours"], strict=True))
    return found


def main() -> None:
    """Run both contests and print how many times faster ours is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(given.threads)
    pyro.enable_validation(False)
    keep_freed_memory()
    found: dict[str, Any] = {}
    for kind in CONTESTS:
        found[kind] = contest(kind, given.rounds)
        for name, value in found[kind].items():
            print(f"{kind:<14}{name:<10}{value:>8.3f}{' s' if name == 'seconds' else ' x'}")
        sys.stdout.flush()
    packages = ("torch", "pyro-ppl", "pythae", "pyroved", "lightning-fabric")
    found |= {"rounds": given.rounds, "threads": given.threads, "processor": processor()}
    found["versions"] = {name: version(name) for name in packages}
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
