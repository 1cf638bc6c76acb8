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
# # 10. Data of your own
#
# Every recipe takes other data than its own: a `.npy` or `.npz` file, a folder of images, or arrays in
# memory. You will bring pictures into a form that is read, see what is said of those that do not fit,
# train a VAE on them for some seconds, ask what its code knows, check it, and give labels to a story
# that needs them.

# %%
# %matplotlib inline
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

from pyro_latents import zoo
from pyro_latents.errors import UserError
from pyro_latents.plots import image_rows

# The tests run this notebook in a short form.
SHORT = "PYRO_LATENTS_SHORT" in os.environ
COUNT, EPOCHS, CLASS_EPOCHS = (90, 1, 1) if SHORT else (1500, 60, 25)
folder = Path(tempfile.mkdtemp()).resolve()

# %% [markdown]
# ## Pictures
#
# Yours are on a disk; here some are drawn, with properties that are known: discs, squares and triangles
# of random place, size and angle, as colour images of 64 × 64.

# %%
draws = np.random.default_rng(0)
kinds = np.array(["disc", "square", "triangle"])[np.arange(COUNT) % 3]
places, sizes, angles = (
    draws.uniform(26, 38, (COUNT, 2)),
    draws.uniform(14, 24, COUNT),
    draws.uniform(-15, 15, COUNT),
)
for number, (kind, place, size, angle) in enumerate(
    zip(kinds, places, sizes, angles, strict=True)
):
    image = Image.new("RGB", (64, 64), "white")
    if kind == "disc":
        ImageDraw.Draw(image).ellipse([*(place - size), *(place + size)], fill="black")
    else:
        sides = {"triangle": 3, "square": 4}[kind]
        ImageDraw.Draw(image).regular_polygon((*place, size), sides, rotation=angle, fill="black")
    path = folder / "photos" / kind / f"{number:04}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
print(*sorted(p.name for p in (folder / "photos").iterdir()))

# %% [markdown]
# ## In the right form
#
# A data set has images of one size, all grey or all in colour, and it is read as it is: nothing is
# resized, cut or turned grey behind your back. What you want of that is three lines of Pillow. The
# recipes of this package are for 28 × 28 grey pixels, and their Bernoulli likelihood is for light
# strokes on a dark ground: pixels are probabilities of ink.

# %%
images = []
for path in sorted((folder / "photos").rglob("*.png"), key=lambda p: p.name):
    grey = Image.open(path).convert("L").resize((28, 28), Image.Resampling.BOX)
    images.append(255 - np.asarray(grey))
    small = folder / "pictures" / path.parent.name / path.name
    small.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(images[-1]).save(small)
x = np.stack(images)
np.save(folder / "x.npy", x)
np.savez(folder / "xy.npz", x=x, y=kinds)
print(x.shape, x.dtype, x.min(), x.max())

# %% [markdown]
# There are now three forms of the same data. A folder of folders has the names of these as labels; so
# has the `y` of an archive. A `.npy` file has none.

# %%
for name in ("x.npy", "xy.npz", "pictures"):
    splits = zoo.recipe("vae-digits", data=folder / name).splits
    parts = (splits.train, splits.validation, splits.test)
    print(f"{name:<9} {splits.num_classes} classes  train, validation, test:", *map(len, parts))

# %% [markdown]
# A fifth is set apart for tests, always the same one, with the classes in the proportions of the whole,
# and a tenth of the rest to watch the training. If your data have parts of their own, name them:
# `x_train`, `y_train`, `x_test`, `y_test` in an archive, or folders `train` and `test`.
#
# ## What does not fit
#
# Data are looked at before anything is trained, and what is wrong with them is said in one line, with
# what to do. Here are the usual mistakes:


# %%
def attempt(what, name="vae-digits", **numbers):
    try:
        zoo.recipe(name, **numbers).check_guide()
    except UserError as error:
        print(f"{what}:\n    {str(error).replace(f'{folder}/', '')}\n")


attempt("a path that is not there", data=folder / "picture")
attempt("pixels that were normalised", data=x / 127.5 - 1)
attempt("a missing value", data=np.where(x == 255, np.nan, x / 255))
attempt("labels that are not as many", data=(x, kinds[1:]))
attempt("very few", data=x[:5])
(folder / "mixed").mkdir()
for side in (28, 30):
    Image.new("L", (side, side)).save(folder / "mixed" / f"{side}.png")
attempt("two sizes", data=folder / "mixed")
attempt("a size that the networks do not take", data=x[:, :20, :20])
attempt("no labels, for a story of classes", "equivae-digits", data=x)

# %% [markdown]
# The last but one is mended by `networks="dense"`, which takes images of any size, and the last one by
# labels, as below.
#
# ## Train
#
# `data` takes the place of the recipe's own. On the command line it is
# `pyro-latents train vae-digits --data x.npy --networks dense --z-dim 8 --out runs/shapes`.

# %%
recipe = zoo.recipe("vae-digits", data=folder / "x.npy", networks="dense", z_dim=8, seed=0)
run = recipe.train(folder / "shapes", epochs=EPOCHS, progress=False)
test = run.parts.splits.test.x
rows = {
    "test": test[:10],
    "reconstructed": run.reconstruct(test[:10]),
    "prior draws": run.sample(10, seed=0),
}
image_rows(rows)

# %% [markdown]
# Places and sizes are there, and discs. Corners are not: a thousand pictures and a minute are few for
# outlines that turn.
#
# ## Encode
#
# `encode` takes whatever the data may be: an array, a folder, a file, one image. Places and sizes of the
# shapes are known here, so that the code can be asked for them, by a linear regression.

# %%
codes = run.encode(x)["z"].numpy()
design = np.column_stack([codes, np.ones(COUNT)])
for name, truth in {"place, x": places[:, 0], "place, y": places[:, 1], "size": sizes}.items():
    fitted = design @ np.linalg.lstsq(design, truth, rcond=None)[0]
    print(f"{name:<9} {1 - np.var(truth - fitted) / np.var(truth):6.1%} of the variance explained")
one = run.encode(folder / "pictures" / kinds[0] / "0000.png")["z"]
print("the same from the file of an image:", np.allclose(one, codes[:1], atol=1e-4))

# %% [markdown]
# The code knows the place almost exactly, although nothing asked for it. Of the size, a radius, half is
# explained: a triangle of the same radius has less than half of a disc's ink, and it is ink that the
# likelihood sees.
#
# ## Check
#
# A good reconstruction is not yet a good model. `check` replicates each test image from its posterior, and
# compares statistics of the replicates with the image's.

# %%
paths = run.check(images=20 if SHORT else 200, draws=20 if SHORT else 100)
print(*paths[-1].read_text().splitlines()[:11], sep="\n")

# %%
picture = plt.imread(run.path / "checks" / "replicates.png")
plt.figure(figsize=(8, 8 * picture.shape[0] / picture.shape[1]))
plt.imshow(picture)
plt.axis("off")
plt.show()

# %% [markdown]
# With 100 draws the smallest p-value is 2/101: "at most 0.02" means that none of the hundred was as
# extreme. Look first at the second number, the share of images outside the central 95 per cent of their
# replicates: 5 per cent is what a right model has. Ink, centre, elongation and slant are near it, and their
# p-values are unremarkable. `edge_energy` is outside for almost all images, and `euler_number`, the pieces
# less the holes, for one in ten: the model draws each pixel by itself, which leaves rough outlines and
# specks where it does not know the edge. `spread` says the same, as specks lie far out. A small p-value alone
# says that a difference is there; the share and the picture say that it matters. `asymmetry_y` is the
# other way round: its p-value, of the mean over all images, is large, and 15 per cent of the images are outside
# nevertheless, as errors to either side cancel in a mean. More training helps, or a longer code.
#
# These replicates are of the image that the code was inferred from, which flatters the model. The file has
# two more checks, of hidden halves and of draws from the prior; [tutorial 7](07_predictive_checks.ipynb)
# reads them.
#
# ## Labels
#
# The EquiVAE infers a class and a style apart, and learns from labelled points. The archive has labels, and
# so has the folder of folders; classes are numbered in the order of their names.

# %%
recipe = zoo.recipe("equivae-digits", data=folder / "pictures", seed=0)
labelled = recipe.train(folder / "labelled", epochs=CLASS_EPOCHS, progress=False)
test = labelled.parts.splits.test
right = labelled.encode(test.x)["y"] == test.y
print(f"{right.double().mean():.1%} of {len(test)} test images in their class")
styles = {
    kind: labelled.sample(10, given={"y": y}, seed=1) for y, kind in enumerate(sorted(set(kinds)))
}
image_rows(styles)

# %% [markdown]
# A row is a class, a column a style: place and size are the same down each column. With the class given, the
# outlines are there too, after fewer epochs. The percentage is of test images that `q(y | x)` puts into the
# class of their folder.
#
# `equivae-semi-digits` does the same where few points have labels. The triplet story and VAELLS need no labels
# to train, and use them for some of their figures.
#
# ## Come back later
#
# A run keeps the path of its data, not the data. `zoo.open_run("runs/shapes")` finds them there;
# `data_dir=` names the folder that they have moved to, and `data=` gives others of the same shape. Arrays in
# memory are kept nowhere:

# %%
recipe = zoo.recipe("vae-digits", data=x, networks="dense")
recipe.train(folder / "memory", steps=2, progress=False)
try:
    zoo.open_run(folder / "memory").evaluate()
except UserError as error:
    print(error)
again = zoo.open_run(folder / "memory", data=x)
print(*again.evaluate(particles=10, likelihood_points=10, limit_test=10), sep="  ")

# %% [markdown]
# ## What to try next
#
# * `likelihood="normal"`, for photographs: grey values then need not be probabilities of ink. `scale` is
#   the standard deviation of a pixel.
# * Colour: a folder of RGB images, or an array `n 3 height width`, with `networks="dense"`.
# * Vectors: an array `n features` with `likelihood="normal"`.
# * `pose-dtvae-digits`, whose pose can take place and size out of the code.
