# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8. Write your own story
#
# A fifth story takes one model, one guide and one dataclass of hyper-parameters. The trainer, the
# command line, evaluation, guide comparison and predictive checks then work on it. The story here
# is small and real: a **mixture prior**, with a component $k$ that is summed out exactly,
#
# $$k \sim \mathrm{Cat}(\pi), \qquad z \mid k \sim \mathcal{N}(m_k, s_k^2), \qquad
#   x \mid z \sim \mathrm{Bernoulli}(f_\theta(z)).$$

# %%
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import matplotlib.pyplot as plt
import pyro
import torch
from pyro.distributions import MixtureSameFamily, Normal
from pyro.infer import ELBO, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import Categorical, Independent

from pyro_latents import zoo
from pyro_latents.data.batches import BatchMaker, Plain
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.distributions.likelihoods import Bernoulli
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FAMILIES, MeanField
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.recipes.settings import Settings

SHORT = "PYRO_LATENTS_SHORT" in os.environ

# %% [markdown]
# ## The model: `models/mixture_vae.py`
#
# The sum over $k$ has a closed form, so that the program has one latent site, `z`. Parameters of
# the prior are ordinary `nn.Parameter`s.


# %%
class MixtureVAE(PyroModule):
    def __init__(self, decoder: nn.Module, z_dim: int, components: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, z_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, z_dim))

    def prior(self):
        components = Independent(torch.distributions.Normal(self.loc, self.log_scale.exp()), 1)
        return MixtureSameFamily(Categorical(logits=self.logits), components)

    def forward(self, x=None, *, size=1):
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)


# %% [markdown]
# ## The recipe: `pyro_latents/recipes/mixture_vae.py`
#
# Every field becomes an option of `pyro-latents train`; the first guide is the default.


# %%
@dataclass(frozen=True, kw_only=True)
class MixtureSettings(Settings):
    """A VAE whose prior is a mixture of normals.

    Args:
        z_dim: Size of the code.
        components: Components of the prior.
    """

    story: ClassVar[str] = "mixture-vae"
    paper: ClassVar[str] = "your paper"
    guides: ClassVar[tuple[str, ...]] = ("paper", *FAMILIES)

    z_dim: int = 4
    components: int = 10

    def build_model(self, splits: Callable[[], Splits]) -> MixtureVAE:
        return MixtureVAE(DenseDecoder(self.z_dim, self.x_shape), self.z_dim, self.components)

    def build_guide(self, name: str, model: nn.Module) -> Amortised:
        encoder = DenseEncoder(self.x_shape)
        family = FAMILIES.get(name, MeanField)
        return Amortised(encoder, z=family(encoder.features_dim, self.z_dim))

    def build_loss(self) -> ELBO:
        return Trace_ELBO(max_plate_nesting=1)

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        return Plain(examples)


# %% [markdown]
# A package of your own names it in the entry point group `pyro_latents.recipes`; in a notebook,
# register it.

# %%
if "mixture-vae-digits" not in zoo.recipes():
    zoo.register("mixture-vae-digits", MixtureSettings(data="digits", epochs=40, validation=180))
recipe = zoo.recipe("mixture-vae-digits", seed=0)
recipe.check_guide()
run = recipe.train(Path(tempfile.mkdtemp()) / "run", epochs=1 if SHORT else 40, progress=False)
particles, points = (10, 10) if SHORT else (500, 100)
run.evaluate(particles=particles, likelihood_points=points, limit_test=points)

# %%
plt.figure(figsize=(5, 3))
plt.imshow(plt.imread(run.plot()[-1]))
plt.axis("off")
plt.show()

# %% [markdown]
# ## Is the mixture used?
#
# Draws of each component, a row each.

# %%
from pyro_latents.plots import image_rows

model = run.recipe.model
with torch.no_grad():
    rows = {}
    for k in model.logits.argsort(descending=True)[:5].tolist():
        z = Normal(model.loc[k], model.log_scale[k].exp()).sample((10,))
        share = model.logits.softmax(0)[k].item()
        rows[f"component {k}, {share:.0%}"] = model.decoder(z).sigmoid()
image_rows(rows)

# %% [markdown]
# ## What to try next
#
# * Put the model into `models/`, the settings into `pyro_latents/recipes/`, and a closed form into
#   `tests/`: with one component of zero mean and unit scale the bound is that of the VAE.
# * `zoo.recipe("mixture-vae-digits", guide="flow")`, and `compare`.
# * A loss of your own: `pyro_latents.losses` has one base class, and one method to write.
