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
# # 11. A pretrained model
#
# Some models come with the package, trained. You will open one that has pose and content apart, read
# its card, infer and change the pose of images, train another guide for it, ask how good the guides
# are, check the model, and write the page in which it moves. Nothing is downloaded, and no data set is
# needed: the images are the digits that come with scikit-learn, which the model has never seen.

# %%
# %matplotlib inline
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from pyro_latents import zoo
from pyro_latents.data.affine import rotate
from pyro_latents.data.sources import load
from pyro_latents.plots import image_rows

# The tests run this notebook in a short form.
SHORT = "PYRO_LATENTS_SHORT" in os.environ
POINTS, PARTICLES, EPOCHS = (20, 20, 1) if SHORT else (200, 300, 20)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## What there is

# %%
NAME = "pose-dtvae-mnist"
names = zoo.pretrained_names()
print(len(names), "in all, and of this model", *(name for name in names if name.startswith(NAME)))

# %% [markdown]
# A name has the recipe, the guide where it is not the recipe's own, and a version. The weights of a name
# never change; without a version the newest are meant. Each has a card, which
# `pyro-latents pretrained pose-dtvae-mnist` prints as well:

# %%
print(zoo.pretrained_card(NAME))

# %% [markdown]
# The card says what the weights are (recipe, data and their licence, budget, seed), what they come to on the
# data that they were trained on, and how they are made anew. `elbo` and `log_likelihood` are in nats an image.
# The latter is an estimate by importance sampling, and `k_hat_above_threshold` is the share of images for which
# its draws are too few: where it is high, read the likelihood as a lower bound. Standard errors are over the
# test images; what another seed would come to is not in them. The last table has two figures that come out
# again wherever the weights are loaded.
#
# ## Open it
#
# This is a VAE whose decoded image is warped by a pose $u$, six numbers of an affine map;
# [tutorial 5](05_pose_tvae.ipynb) writes such a model by hand. Inference needs images alone. For what is
# measured on a test set later, MNIST is not here, and `data` names another one. Results go to `out`.

# %%
run = zoo.pretrained(NAME, data="digits", out=folder / "paper")
x = load("digits").test.x
for site, values in run.encode(x).items():
    print(site, tuple(values.shape))
image_rows(
    {"digits": x[:12], "reconstructed": run.reconstruct(x[:12]), "drawn": run.sample(12, seed=0)}
)

# %% [markdown]
# The embedded digits are blurred enlargements of 8 × 8 pixels, and some fill the frame. The model was trained on
# the pens of MNIST: it finds the digit of most, and draws it in its own hand, as the last row, from the prior,
# shows. That is what a model does with data that are not its own, and the check below measures it.
#
# ## Pose and content
#
# Turn a digit. `infer_transformation` says which pose each image is in. `transform` without a pose shows the
# content as the model calls it upright, and with one it puts the content into that pose.

# %%
angles = torch.linspace(-30, 30, 12).deg2rad()
turned = rotate(x[[0]].expand(12, -1, -1, -1), angles)
poses = run.infer_transformation(turned)
rows = {
    "turned": turned,
    "upright": run.transform(turned),
    "a 5 in these poses": run.transform(x[2:3], by=poses),
}
image_rows(rows)

# %%
found = run.parts.model.warp.angle(poses)
for degrees, angle in list(zip(angles.rad2deg(), found.rad2deg(), strict=True))[::3]:
    print(f"turned by {degrees:4.0f} degrees, angle of the pose {angle:4.0f}")

# %% [markdown]
# The 5 leans as the 3 does, and the angle of the pose rises with the turn. It rises by about half of it: MNIST
# has slanted pens and no turned paper, and slants are what this model's poses are good at. At the right end
# the content gives way, and the model calls upright what is no longer a 3. A model that is to undo turns is
# trained on turned digits (`pose-dtvae-rotated-mnist`).
#
# ## Another guide for the same model
#
# Two more guides for this model: the packaged flow, which was trained on MNIST too, and one of the first kind
# that is trained here, on the embedded digits. `model_from` takes the model as it is, to the bit; on the
# command line it is `pyro-latents train pose-dtvae-mnist --model-from pose-dtvae-mnist --data digits`.

# %%
flow = zoo.pretrained(f"{NAME}-flow", data="digits", out=folder / "flow")
recipe = zoo.recipe(NAME, model_from=run, data="digits", validation=180, batch_size=100, seed=0)
here = recipe.train(folder / "here", epochs=EPOCHS, progress=False)

comparison = run.compare(flow, here, particles=PARTICLES, points=POINTS)
guides = ("paper", "flow", "here")
names = ("elbo", "log_likelihood", "gap", "k_hat_above_threshold")
print(f"{'':<24}" + "".join(f"{guide:>10}" for guide in guides))
for name in names:
    print(f"{name:<24}" + "".join(f"{found[name]:10.2f}" for found in comparison.rows))
for guide, differences in zip(guides[1:], comparison.differences, strict=True):
    found = differences["elbo"]
    print(f"elbo of {guide} less that of paper: {found}")

# %% [markdown]
# `log_likelihood` and `gap` say how well a guide serves as a proposal, in nats an image. There is one model, so
# there is one $p(x)$: that the three estimates of it differ says that 300 draws are too few, as $\hat k$ above
# its threshold for three images of four says as well. The gaps end at the best estimate of all three together,
# and are lower bounds of the divergences. The flow is a richer family, and wins 0.7 nats with an error of 0.4.
# The guide that was trained here wins almost four: what was wrong was not the family, but that the encoder had
# never seen such images. On data of your own, train a guide for the packaged model before you judge the model.
#
# ## Check the model

# %%
paths = run.check(images=20 if SHORT else 100, draws=20 if SHORT else 50)
print(*paths[-1].read_text().splitlines()[:12], sep="\n")

# %%
picture = plt.imread(run.path / "checks" / "replicates.png")
plt.figure(figsize=(8, 8 * picture.shape[0] / picture.shape[1]))
plt.imshow(picture)
plt.axis("off")
plt.show()

# %% [markdown]
# The first row are the digits, black and white as the likelihood has them, and below them replicates from the
# posterior of each. They look right, and the statistics disagree: with 50 draws the smallest p-value is 0.04,
# and most are there, while 7 to 17 per cent of the images lie outside the central 95 per cent of their
# replicates, where 5 should. What is wrong is where the ink lies (`centre_y`, `spread`): these digits fill their
# frame up and down, and those of MNIST do not. The roughness of the edges is unremarkable. Part of this is the guide's:
# replicates come from its posterior, and the guide that was trained here has a better one. `here.check()` would
# say how much is left to the model.
#
# ## The page in which it moves

# %%
page = run.report(folder / "pose.html")
print(f"{page.name}, {page.stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# Open the page in a browser: it has sliders for pose and code, a canvas to draw a digit on, the model's graph, the
# figures and the pictures of the check. All is computed in the page itself, from the weights in it, and checked
# against PyTorch as it opens; it needs no network and no Python, and can be sent to someone.
#
# ## What to try next
#
# * A folder of your own pictures, 28 × 28 and light on dark, in the place of `"digits"`
#   ([tutorial 10](10_data_of_your_own.ipynb) makes them so); `run.encode("pictures")`.
# * `zoo.pretrained("equivae-mnist")`: `run.sample(10, given={"y": 3})` holds the class and draws styles.
# * `zoo.pretrained("vae-mnist")` has reference posteriors of its test images: `run.folder.reference_path`. With
#   MNIST at hand, `run.compare(...)` scores guides against them, as [tutorial 9](09_mcmc_beside_the_guide.ipynb) does.
# * Every command takes a name in the place of a run: `pyro-latents evaluate pose-dtvae-mnist --data digits`.
