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
# # 7. Posterior predictive checks with ArviZ
#
# A bound says how one model compares with another; it does not say what is wrong with either.
# Predictive checks do: replicate the data from the model, and compare statistics of the replicates
# with those of the data. You will make the three kinds that matter for images, and read them with
# ArviZ.

# %%
import os
import tempfile
from pathlib import Path

import arviz
import matplotlib.pyplot as plt
from pyro.infer import Predictive
from pyro.poutine import uncondition

from pyro_latents import zoo
from pyro_latents.programs import local_parameters

SHORT = "PYRO_LATENTS_SHORT" in os.environ
folder = Path(tempfile.mkdtemp())
recipe = zoo.recipe("vae-digits", networks="dense", z_dim=8, seed=0)
run = recipe.train(folder / "vae", epochs=1 if SHORT else 60, progress=False)

# %% [markdown]
# ## A trap first
#
# `Predictive` gives the data back where the model observes them. Take the observation away:

# %%
model, guide = run.recipe.model, run.recipe.guide
x = run.recipe.splits.test.x[:5]
with local_parameters(model, guide):
    same = Predictive(model, guide=guide, num_samples=3, parallel=True)(x)["x"]
    replicates = Predictive(uncondition(model), guide=guide, num_samples=3, parallel=True)(x)["x"]
print("with the observation:   ", bool((same == x).all()))
print("with it taken away:     ", bool((replicates == x).all()), tuple(replicates.shape))

# %% [markdown]
# ## Statistics, not pixels
#
# Two hundred replicates of a thousand images would be 600 MB of pixels that say little one by one.
# A *statistic* is a number for an image: ink, slant, edge energy, the number of holes. They are
# computed while the replicates are drawn. Your own is one function.

# %%
from pyro_latents.checks import IMAGE_STATISTICS, Statistic
from pyro_latents.checks import replicates as draw_replicates

statistics = {
    **IMAGE_STATISTICS,
    "top_heavy": Statistic(
        lambda x: x[..., :14, :].mean((-3, -2, -1)) - x[..., 14:, :].mean((-3, -2, -1)),
        "ink above the middle less ink below",
    ),
}
found = draw_replicates(
    model,
    guide,
    run.recipe.batches("test"),
    statistics,
    draws=20 if SHORT else 200,
    points=20 if SHORT else 300,
    progress=False,
)
for name, p in found.p_values().items():
    print(f"{name:<14} p = {p:.3f}   outside 95 %: {100 * found.outside()[name]:.0f} %")

# %% [markdown]
# The two numbers see different things. `p` is of the mean over all images: it is small where the replicates err to one
# side, and 0.01 is the smallest that 200 draws can show. The share is of each image by itself: 5 per cent where the
# model is right. Ink shows why both are there: its errors go to either side and cancel in the mean, so that `p` is
# not remarkable, and yet almost a third of the images lie outside of their replicates. What matters most here is
# `edge_energy`, at the smallest `p` and outside for three images of four: the likelihood draws each pixel by itself,
# and neighbours do not know of each other.
#
# ## The whole check
#
# `check` adds two checks that are honest where the one above is not, since there the code was
# inferred from the very image that is checked: the right half of an image given its left half, and
# draws of the prior against the test set as a population.

# %%
from pyro_latents.runs.checking import check

paths = check(run, images=20 if SHORT else 300, draws=20 if SHORT else 100)
print(paths[-1].read_text())

# %% [markdown]
# Three blocks, by what the guide was shown:
#
# * **per image**: the image itself. What fails even here, with the code inferred from the very image, is the model's:
#   edges and holes. Read the share first, since a small p-value says that there is a difference and not that it is
#   large.
# * **population**: nothing. Draws of the prior stand beside the test set, and with 300 of each small differences show:
#   most p-values are at their floor. Which of them is large, the picture of the histograms says. `classes` says
#   that the prior does not draw all digits as often as there are.
# * **right half given left**: the half that the statistics are of was hidden. This is the honest block, and its shares
#   are the ones that matter: a fifth to a half of the hidden halves lie outside the central 95 per cent of what the
#   model holds possible. It is far too sure of what it does not see.
#
# Statistics are tested side by side and nothing corrects for that: of thirty p-values of a right model one or two are
# below 0.05. One alone is no reason to worry, and a block full of them is.

# %%
for path in paths:
    if path.suffix == ".png":
        picture = plt.imread(path)
        plt.figure(figsize=(10, 10 * picture.shape[0] / picture.shape[1]))
        plt.imshow(picture)
        plt.axis("off")
        plt.show()

# %% [markdown]
# ## In ArviZ
#
# The file needs nothing of this package to be read, and ArviZ's own plots work on it. There is one
# chain of independent draws: r-hat and the effective sample size of chains mean nothing here.

# %%
data = arviz.from_netcdf(run.path / "checks" / "check.nc")
print(*sorted(data), sep="\n")
print(*sorted(data["posterior_predictive"].data_vars), sep="\n")

# %% [markdown]
# ## What to try next
#
# * Train for five epochs, or with `z_dim=2`, and see which statistic notices.
# * `pyro-latents check RUN` on a run of your own.
# * `pyro-latents report RUN` puts the checks on a page.
