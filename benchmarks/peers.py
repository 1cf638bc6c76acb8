"""Time an epoch of 5,000 images beside other libraries: the same networks, in one run.

On the convolutions of `vae-mnist`, pythae trains its VAE with PyTorch's own layers in the usual
layout, as its users write them. On dense layers pyroVED trains its iVAE, of the same widths.
`SVI` is `pyro.infer.SVI` on our model and guide, in Pyro's usual way. Each shuffles, makes its
batches and takes its steps as its own trainer does; nothing is evaluated or saved. Contestants
take turns; times are of the processor; medians of the ratios of neighbouring epochs are printed.

The peers are no dependency of this package, and install a package named `tests`, so give them an
environment of their own:

    pip install pythae pyroved
    python benchmarks/peers.py [--rounds 10] [--threads 1] [--out peers.json]
"""

import argparse
import json
import logging
import sys
import tempfile
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
from story_steps import captured_loop, plain, processor, with_noise
from torch import Tensor
from turns import in_turns

from pyro_latents import zoo
from pyro_latents.memory import keep_freed_memory
from pyro_latents.runs.recipe import Recipe

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
    return with_noise(zoo.recipe("vae-mnist", as_published=True, **SETTINGS[kind]), IMAGES)


def ours(recipe: Recipe) -> Epoch:
    """An epoch of `pyro-latents train`."""
    loop = captured_loop(recipe)

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
    seconds = in_turns(epochs, rounds, warm_up=WARM_UP)
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
