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
found = run.evaluate(particles=particles, likelihood_points=points, limit_test=points)
for name in ("elbo", "log_likelihood", "gap"):
    print(f"{name:<16}{found[name]:8.2f} nats per image")

# %% [markdown]
# `gap` is what the guide of the paper, a mean field, leaves to the marginal likelihood of its own model, by 500
# draws an image. It says nothing of whether a mixture is a better prior than a normal: that takes a second
# training, with `components=1`.

# %%
plt.figure(figsize=(5, 3))
plt.imshow(plt.imread(run.plot()[-1]))
plt.axis("off")
plt.show()

# %% [markdown]
# ## Is the mixture used?
#
# Draws of five components, a row each, with the component's share of the prior.

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
# Of ten components each would have a tenth if they were used evenly, and the largest have little more: none has
# taken over. They are not classes: a row would then be one digit, and these are mixtures of some that look
# alike.
#
# ## A likelihood of your own
#
# A likelihood is a module that makes a distribution of what the decoder returns. The Bernoulli above takes grey
# pixels, of which it has no density: over $[0, 1]$ its probabilities do not integrate to one. The **continuous
# Bernoulli** (Loaiza-Ganem and Cunningham, 2019) is the same with the constant that is missing, which has a closed
# form,
#
# $$p(x) = C(\lambda) \, \lambda^x (1 - \lambda)^{1 - x}, \qquad
#   C(\lambda) = \frac{2 \tanh^{-1}(1 - 2 \lambda)}{1 - 2 \lambda}, \quad C(1/2) = 2.$$

# %%
from pyro.distributions import ContinuousBernoulli

from pyro_latents.distributions.likelihoods import Likelihood


class GreyPixels(Likelihood):
    def forward(self, logits):
        return ContinuousBernoulli(logits=logits).to_event(self.event_dims)


# %% [markdown]
# Before it is trained with, it is held against what is known of it. It must integrate to one, and the Bernoulli,
# which lacks the constant, to $1 / C$.

# %%
x = torch.linspace(0, 1, 1001)[:, None]
logits = torch.tensor([-4.0, -1.0, 0.5, 3.0])
rate = logits.sigmoid()
constant = 2 * torch.atanh(1 - 2 * rate) / (1 - 2 * rate)
integrals = {}
for likelihood in (Bernoulli(event_dims=0), GreyPixels(event_dims=0)):
    density = likelihood(logits).log_prob(x).exp()
    integrals[type(likelihood).__name__] = torch.trapezoid(density, x, dim=0)
for name, integral in integrals.items():
    print(f"{name:<12} integrates to", *(f"{value:.4f}" for value in integral))
print("1 / C               is", *(f"{1 / value:8.4f}" for value in constant))

# %% [markdown]
# ## A loss of your own
#
# A loss subclasses `DifferentiableELBO` and writes one method: the loss of a batch as a tensor, summed over its
# data points. `_get_traces` runs guide and model and gives a pair of traces a particle, whose sites have their
# `log_prob`. The **importance weighted bound** (Burda et al., 2016) of $K$ particles is
#
# $$\mathcal{L}_K = \mathbb{E} \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad
#   \mathrm{ELBO} = \mathcal{L}_1 \le \mathcal{L}_K \le \log p(x).$$

# %%
from pyro_latents.losses import DifferentiableELBO


class ImportanceWeightedBound(DifferentiableELBO):
    def differentiable_loss(self, model, guide, *args, **kwargs):
        log_weights = []
        for traces in self._get_traces(model, guide, args, kwargs):
            log_p, log_q = (
                sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample")
                for trace in traces
            )
            log_weights.append(log_p - log_q)
        log_mean = torch.stack(log_weights).logsumexp(0) - torch.tensor(len(log_weights)).log()
        return -log_mean.sum()


# %% [markdown]
# It has a closed form where everything is linear and normal: with $x \mid z \sim \mathcal{N}(Wz, I)$ the marginal
# is $\mathcal{N}(0, W W^\top + I)$, and the posterior is a normal of precision $W^\top W + I$. With the exact
# posterior as its guide the bound must be $\log p(x)$ for every $K$. With a guide that leaves the correlation out
# it must be the ELBO for one particle, below by the divergence of the two normals, and rise to $\log p(x)$.

# %%
from torch.distributions import MultivariateNormal, kl_divergence

pyro.set_rng_seed(0)
W = torch.randn(5, 1) + 0.5 * torch.randn(5, 2)
precision = W.T @ W + torch.eye(2)
truth = pyro.distributions.MultivariateNormal(torch.zeros(5), W @ W.T + torch.eye(5))
data = truth.sample((200 if SHORT else 2000,))


def linear(x):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", Normal(z @ W.T, 1.0).to_event(1), obs=x)


def normal_guide(precision_of_guide):
    def guide(x):
        loc = x @ W @ precision.inverse()
        with pyro.plate("data", len(x), dim=-1):
            q = pyro.distributions.MultivariateNormal(loc, precision_matrix=precision_of_guide)
            pyro.sample("z", q)

    return guide


uncorrelated = precision.diagonal().diag()
p, q = (MultivariateNormal(torch.zeros(2), precision_matrix=m) for m in (precision, uncorrelated))
print(f"log p(x)           {truth.log_prob(data).mean():9.4f}")
print(f"less KL(q || p)    {truth.log_prob(data).mean() - kl_divergence(q, p):9.4f}")
for name, of_guide in {"exact": precision, "uncorrelated": uncorrelated}.items():
    for particles in (1, 5, 50):
        loss = ImportanceWeightedBound(num_particles=particles)
        bound = -loss.loss(linear, normal_guide(of_guide), data) / len(data)
        print(f"{name:<14}{particles:>3}  {bound:9.4f}")

# %% [markdown]
# The exact guide gives $\log p(x)$ to the last digit, whatever the number of particles; the other one begins
# at the bound that the divergence says, but for the error of one draw a data point, and has closed most of it with
# fifty. So the weights, their signs and the mean are right. A sum over the wrong dimension, the usual mistake here,
# would show in the first lines.
#
# ## Both in the story
#
# A story builds its parts by methods, so that a new likelihood and a new loss are two of them, and the number of
# particles is an option.


# %%
@dataclass(frozen=True, kw_only=True)
class GreyMixtureStory(MixtureStory):
    """The mixture VAE with a density of grey pixels, by the importance weighted bound.

    Args:
        particles: Particles of the bound.
    """

    name: ClassVar[str] = "grey-mixture-vae"

    particles: int = 5

    def build_model(self, splits: Callable[[], Splits]) -> MixtureVAE:
        model = super().build_model(splits)
        model.likelihood = GreyPixels()
        return model

    def build_loss(self) -> ELBO:
        return ImportanceWeightedBound(num_particles=self.particles, max_plate_nesting=1)


if "grey-mixture-vae-digits" not in zoo.recipes():
    zoo.register("grey-mixture-vae-digits", GreyMixtureStory(data="digits", validation=180))
recipe = zoo.recipe("grey-mixture-vae-digits", seed=0)
grey = recipe.train(Path(tempfile.mkdtemp()) / "grey", epochs=1 if SHORT else 25, progress=False)
particles = 10 if SHORT else 500
found = grey.evaluate(particles=particles, likelihood_points=points, limit_test=points)
for name in ("elbo", "log_likelihood", "gap"):
    print(f"{name:<16}{found[name]:8.2f} nats per image")
test = grey.parts.splits.test.x[:10]
image_rows(
    {"test": test, "reconstructed": grey.reconstruct(test), "prior draws": grey.sample(10, seed=0)}
)

# %% [markdown]
# These likelihoods are of another kind than those above. They are log-densities of 784 grey values, and may well be
# positive, as a density can be above one; those of the Bernoulli are of pixels that are black or white. Between the
# two no difference means anything. A gap is one of bounds of the same kind, and that of the grey model is larger.
# Its guide was trained in fewer epochs, and for five particles in the place of one; and a density of grey values may
# say more of the code, so that the posterior is narrower. More epochs and `particles=1` would tell which it is.
#
# The ground of the images is grey, since the mean of this likelihood is not $\lambda$: a logit of -15, which is black
# or white for a Bernoulli, has a mean of 0.07.
#
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
# * `GreyMixtureStory(particles=1)` is trained by the ELBO: compare the two by `compare`, and mind that more particles
#   tell the guide less (Rainforth et al., 2018).
# * A heavy tail in the place of grey pixels, or counts: any distribution of Pyro's with a density of your data.
