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
# autoregressive flow, and the mean-field guide refined for each image. Trained each with a decoder
# of its own, guides cannot be told from decoders. So the model is trained once and then left as it
# is: what differs between the runs is the guide.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pyro_latents import zoo
from pyro_latents.runs.references import reference

SHORT = "PYRO_LATENTS_SHORT" in os.environ
EPOCHS, PARTICLES, POINTS, IMAGES = (5, 20, 20, 4) if SHORT else (60, 1000, 100, 20)
GUIDES = ("mean-field", "full-rank", "flow", "refined")
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## One model
#
# A VAE of the embedded digits, with eight latent numbers. Its own guide is the mean field.

# %%
recipe = zoo.recipe("vae-digits", networks="dense", z_dim=8, seed=0)
model = recipe.train(folder / "model", epochs=EPOCHS, progress=False)

# %% [markdown]
# ## Four guides for it
#
# `model_from` takes the model of a run, frozen, and trains a new guide for it; the settings of the
# model come along. `guide` takes a name, a guide of your own, or a factory that takes the model.

# %%
runs = []
for guide in GUIDES:
    recipe = zoo.recipe("vae-digits", model_from=model.path, guide=guide, seed=0)
    runs.append(recipe.train(folder / guide, epochs=EPOCHS, progress=False))

plt.figure(figsize=(5, 3))
for run in runs:
    history = np.genfromtxt(run.folder.history_path, delimiter=",", names=True)
    plt.plot(np.atleast_1d(history["validation_loss"]), label=run.path.name)
plt.xlabel("epoch")
plt.ylabel("validation loss, nats per image")
plt.ylim(top=np.atleast_1d(history["validation_loss"])[0])
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What the guides are scored against
#
# For a few images the posterior can be drawn from without a guide: annealed chains of Hamiltonian
# Monte Carlo, as many as it takes for $\hat R$ to say that they agree. They take seconds an image,
# which is why guides are there; and they say what a guide should have given.

# %%
drawn = reference(runs[0], images=IMAGES)
for name, value in drawn.as_rows():
    print(f"{name:<48}{value}")

# %% [markdown]
# ## Compare
#
# $$\underbrace{\mathbb{E}_q[\log p(x, z) - \log q(z \mid x)]}_{\texttt{elbo}} \;\le\; \log p(x),
#   \qquad \log p(x) - \texttt{elbo} = \mathrm{KL}\big(q(z \mid x) \,\|\, p(z \mid x)\big)$$
#
# All runs have one $p(x)$, so it is estimated once, by all of their draws, and the gap of each guide
# is its divergence from the posterior. $\hat k$ is the Pareto shape of the importance weights of an
# image: above .7 the guide misses mass. Below the gap stand the distances from the reference
# posteriors: the error of the mean and the ratio of spreads, in the posterior's own spread; how
# often its central intervals hold its draws; and the energy distance, which is none where the two
# are one.

# %%
comparison = runs[0].compare(*runs[1:], particles=PARTICLES, points=POINTS)
print(comparison.as_text())

# %%
comparison.figure()

# %% [markdown]
# Read from the top. `log_likelihood` differs by hundredths of a nat, within its standard errors:
# there is one model, and 1,000 draws of any of these guides find its evidence. The bounds differ by
# more, and the gap says by how much each guide misses the posterior: 1.2 nats by the mean field, half
# of that by the full covariance, a little less still by the flow. $\hat k$ falls in the same order,
# from 36 per cent of the images to 9, and coverage rises: the central 90 per cent of the mean field
# hold 80 per cent of the posterior.
#
# `refined` is a lesson of its own. It is a mean field again, but its mean is fitted to each image, so
# its error of the mean is little more than half of the others, and its energy distance the smallest. Its
# gap is nevertheless larger than the flow's, since it has no correlations, and the divergence of the
# moments agrees with the gap. Which guide is best depends on what it is for: draws that lie in the
# right place, or weights that are even. Take the refined one for codes, and the flow for likelihoods.

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
# The p-values say whether the ranks could be uniform. Those of the mean field cannot: it is too
# narrow, and the true code falls outside of its draws too often. The flow is nearer to it, and
# with 360 images it is still told from the posterior; a p-value near zero says that a difference is
# there, not that it matters. How much it matters was in the table above.

# %% [markdown]
# ## What to try next
#
# * The same from the command line: `pyro-latents train vae-digits --model-from runs/vae --guide flow
#   --out runs/vae-flow`, then `pyro-latents reference runs/vae` and
#   `pyro-latents compare runs/vae runs/vae-flow`.
# * A guide of your own: `guide=MyGuide`, a class whose constructor takes the model, or by its import
#   path, `guide="my_package.guides:MyGuide"`, with which every command finds it again.
# * Where $\hat k$ is too high for a likelihood, anneal: `compare(..., evidence="ais")`, or
#   `pyro-latents evaluate RUN --evidence interval` for a bound from either side.
# * Pose models (`pose-tvae-digits --pose-prior fitted`): their flow couples the pose with the code.
