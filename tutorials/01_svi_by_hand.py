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
# # 1. SVI on a VAE, by hand
#
# You will write a variational auto-encoder as two Pyro programs, a **model** and a **guide**, train
# it with plain `pyro.infer.SVI`, and see what the objective is made of. Everything runs on the
# digits that come with scikit-learn, in about a minute on a laptop.
#
# You need PyTorch, and the [introduction to Pyro](https://pyro.ai/examples/intro_long.html).

# %%
import os

import matplotlib.pyplot as plt
import pyro
import torch
from pyro.distributions import Normal
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.nn import PyroModule

from pyro_latents.data.sources import load
from pyro_latents.distributions.likelihoods import Bernoulli
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder

# The tests run this notebook in a short form.
SHORT = "PYRO_LATENTS_SHORT" in os.environ
EPOCHS = 1 if SHORT else 80

pyro.clear_param_store()
pyro.set_rng_seed(0)
splits = load("digits", validation=180)
x_train, x_test = splits.train.x, splits.test.x
print(tuple(x_train.shape))

# %% [markdown]
# ## The model
#
# A code is drawn from a standard normal distribution and decoded into the probabilities of ink:
#
# $$z \sim \mathcal{N}(0, I), \qquad x \mid z \sim \mathrm{Bernoulli}(f_\theta(z))$$
#
# Each line of mathematics is one `pyro.sample`. The plate says that images are independent, and
# that dimension $-1$ of every log-density counts them. Networks of this package take any leading
# dimensions, so that the same program runs with many particles at once.


# %%
class Model(PyroModule):
    def __init__(self, z_dim):
        super().__init__()
        self.z_dim = z_dim
        self.decoder = DenseDecoder(z_dim, (1, 28, 28))
        self.likelihood = Bernoulli()

    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", Normal(0.0, 1.0).expand([self.z_dim]).to_event(1))
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)


# %% [markdown]
# ## The guide
#
# The guide is a program with the same latent site, `z`, and the same arguments. It says how to
# guess the code from the image:
#
# $$q_\phi(z \mid x) = \mathcal{N}\big(\mu_\phi(x), \mathrm{diag}\,\sigma_\phi(x)^2\big)$$


# %%
class Guide(PyroModule):
    def __init__(self, z_dim):
        super().__init__()
        self.encoder = DenseEncoder((1, 28, 28))
        self.head = torch.nn.Linear(self.encoder.features_dim, 2 * z_dim)

    def forward(self, x, size=1):
        loc, log_scale = self.head(self.encoder(x)).chunk(2, dim=-1)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", Normal(loc, log_scale.exp()).to_event(1))


model, guide = Model(z_dim=8), Guide(z_dim=8)

# %% [markdown]
# Before training, ask whether the two fit: the same sites, shapes and plates, alone and with
# vectorised particles. A guide with a site called `w` would be told so here, and not by a strange
# loss an hour later.

# %%
from pyro_latents.guides import check_guide

check_guide(model, guide, x_train[:4])

# %% [markdown]
# ## Stochastic variational inference
#
# SVI raises the evidence lower bound,
#
# $$\log p(x) \ge \mathbb{E}_{q(z \mid x)}[\log p(x \mid z)]
#   - \mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big)$$
#
# by gradient steps on the parameters of both programs. `TraceMeanField_ELBO` takes the divergence
# in closed form.

# %%
svi = SVI(model, guide, pyro.optim.Adam({"lr": 2e-3}), TraceMeanField_ELBO())
losses = []
for _ in range(EPOCHS):
    order = torch.randperm(len(x_train))
    total = sum(svi.step(x_train[rows]) for rows in order.split(100))
    losses.append(total / len(x_train))

plt.figure(figsize=(5, 3))
plt.plot(range(1, EPOCHS + 1), losses, marker="." if EPOCHS < 3 else "")
plt.xlabel("epoch")
plt.ylabel("loss, nats per image")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## What was learned
#
# Test images, their reconstructions (the probabilities of ink at the mean of $q$), and draws of the
# prior.

# %%
from pyro_latents.plots import image_rows

with torch.no_grad():
    loc, _ = guide.head(guide.encoder(x_test[:12])).chunk(2, dim=-1)
    drawn = torch.randn(12, 8)
    rows = {
        "test": x_test[:12],
        "reconstructed": model.decoder(loc).sigmoid(),
        "prior draws": model.decoder(drawn).sigmoid(),
    }
image_rows(rows)

# %% [markdown]
# ## The bound is not the likelihood
#
# Importance sampling with the guide as the proposal gives an estimate of $\log p(x)$ for every
# image, and with it a diagnostic: where the Pareto shape $\hat k$ is above 0.7, the guide misses
# so much of the posterior that the estimate cannot be trusted.

# %%
from pyro_latents.evaluation.evidence import log_evidence

found = log_evidence(model, guide, x_test[:50], num_particles=20 if SHORT else 500)
bound = -svi.evaluate_loss(x_test[:50]) / 50
print(f"bound                {bound:8.2f} nats per image")
print(f"importance weighted  {found.log_evidence.mean():8.2f}")
print(f"k-hat above 0.7      {100 * (found.k_hat > 0.7).float().mean():8.0f} %")

# %% [markdown]
# ## What to try next
#
# * Another guide: replace the last line of `Guide` by a full-rank normal, and look at $\hat k$
#   again. [Tutorial 6](06_swap_the_guide.ipynb) does it with one word.
# * `SVI(..., TraceMeanField_ELBO(num_particles=10, vectorize_particles=True))`.
# * The same story with a trainer, checkpoints and convolutions:
#   `pyro-latents train vae-mnist --data-dir DATA`.
