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
# A fifth story takes one model, one guide and one dataclass of hyper-parameters, in a package of
# your own. The trainer, the command line, evaluation, guide comparison and predictive checks then
# work on it. The story here is small and real: a **mixture prior**, with a component $k$ that is summed out exactly,
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
from pyro_latents.data.examples import Splits
from pyro_latents.distributions.likelihoods import Bernoulli
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FAMILIES, MeanField
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.stories.story import Story

SHORT = "PYRO_LATENTS_SHORT" in os.environ

# %% [markdown]
# ## The model
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
# ## The story
#
# Numbers that build the parts of a training: the model, the guide, the loss, and the batches of a
# split. Every field becomes an option of `pyro-latents train`; the first guide is the default.


# %%
@dataclass(frozen=True, kw_only=True)
class MixtureStory(Story):
    """A VAE whose prior is a mixture of normals.

    Args:
        z_dim: Size of the code.
        components: Components of the prior.
    """

    name: ClassVar[str] = "mixture-vae"
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

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        return Plain(getattr(splits, split))


# %% [markdown]
# A recipe is an instance. In a notebook, register it; a package names it, as shown below.

# %%
DIGITS = MixtureStory(data="digits", epochs=40, validation=180)
if "mixture-vae-digits" not in zoo.recipes():
    zoo.register("mixture-vae-digits", DIGITS)
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
# ## A package of your own
#
# Put the imports, the model, the story and `DIGITS = MixtureStory(...)` into a file
# `mixture_vae.py`, and beside it a `pyproject.toml` that names the recipe:
#
#     [build-system]
#     requires = ["setuptools>=77"]
#     build-backend = "setuptools.build_meta"
#
#     [project]
#     name = "mixture-vae"
#     version = "1.0"
#     dependencies = ["pyro-latents"]
#
#     [project.entry-points."pyro_latents.recipes"]
#     mixture-vae-digits = "mixture_vae:DIGITS"
#
#     [tool.setuptools]
#     py-modules = ["mixture_vae"]
#
# After `pip install -e .` there, every command knows the recipe, and nothing of this project has
# been touched:
#
#     pyro-latents list
#     pyro-latents train mixture-vae-digits --out runs/mixture
#     pyro-latents train mixture-vae-digits --guide flow --components 5 --out runs/mixture-flow
#     pyro-latents evaluate runs/mixture
#     pyro-latents check runs/mixture
#     pyro-latents compare runs/mixture runs/mixture-flow
#
# ## What to try next
#
# * A test of a closed form: with one component of zero mean and unit scale the bound is that of the
#   VAE.
# * A prior alone needs no model of its own: `pyro_latents.models.vae.VAE` takes one as a module.
# * A loss of your own: `pyro_latents.losses` has one base class, and one method to write.
