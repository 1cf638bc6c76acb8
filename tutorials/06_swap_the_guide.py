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
# # 6. Swap the guide, and say how good it is
#
# One model, several guides: a mean-field normal (the paper's), one with full covariance, an inverse
# autoregressive flow, and the mean-field guide refined for each image. You will train them with the
# same decoder and budget, and learn to read what tells them apart: the bound, the
# importance-weighted likelihood, their gap, $\hat k$ and calibration.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pyro_latents import zoo
from pyro_latents.runs.comparison import compare

SHORT = "PYRO_LATENTS_SHORT" in os.environ
EPOCHS, PARTICLES, POINTS = (1, 20, 20) if SHORT else (80, 1000, 100)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Train
#
# `guide=` takes a name or any callable with the model's arguments and latent sites.

# %%
runs = []
for guide in ("mean-field", "full-rank", "flow", "refined"):
    recipe = zoo.recipe("vae-digits", guide=guide, networks="dense", z_dim=8, seed=0)
    runs.append(recipe.train(folder / guide, epochs=EPOCHS, progress=False))

plt.figure(figsize=(5, 3))
for run in runs:
    history = np.genfromtxt(run.folder.history_path, delimiter=",", names=True)
    plt.plot(np.atleast_1d(history["validation_loss"]), label=run.path.name)
plt.xlabel("epoch")
plt.ylabel("validation loss, nats per image")
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Compare
#
# $$\underbrace{\mathbb{E}_q[\log p(x, z) - \log q(z \mid x)]}_{\texttt{elbo}} \;\le\;
#   \underbrace{\log \tfrac{1}{K} \textstyle\sum_k \frac{p(x, z_k)}{q(z_k \mid x)}}_{\texttt{log\_likelihood}}
#   \;\lesssim\; \log p(x)$$
#
# The gap between the two is mostly the divergence of the guide from the posterior. $\hat k$ is the
# Pareto shape of the importance weights of an image: above 0.7 the guide misses mass.

# %%
comparison = compare(runs, particles=PARTICLES, points=POINTS)
print(comparison.as_text())

# %%
comparison.figure()

# %% [markdown]
# ## Calibrate
#
# On data that are drawn from the model itself the true code is known. If the guide were the
# posterior, the rank of the truth among the guide's draws would be uniform: its distribution
# function would stay in the grey band.

# %%
for run in (runs[0], runs[2]):
    p_values, path = run.calibrate(points=50 if SHORT else None, draws=20 if SHORT else 200)
    print(run.path.name, {site: f"{p:.2g}" for site, p in p_values.items()})
    plt.figure(figsize=(6, 5))
    plt.imshow(plt.imread(path))
    plt.axis("off")
    plt.show()

# %% [markdown]
# ## What to try next
#
# * A guide with more freedom is not better by itself: it has more to learn, and a decoder that is
#   trained beside it. Train longer, or with other seeds, before you believe a difference.
# * A guide of your own: `zoo.recipe("vae-digits", guide=my_guide)`. If it does not fit the model,
#   training says why before the first step.
# * The same from the command line: `pyro-latents train vae-mnist --guide flow --out runs/flow`, then
#   `pyro-latents compare runs/paper runs/flow`.
# * Pose models (`pose-tvae-digits`): their flow couples the pose with the code.
