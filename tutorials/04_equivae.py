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
# # 4. Class and style apart: the EquiVAE
#
# A digit has a class, and a style: slant, width, how the loop is closed. You will write the model of
# *Invariant-Equivariant Representation Learning for Multi-Class Data* (Feige, 2019), which puts the
# first into a code $r$ and the second into a code $v$, with no term in the objective that pushes them
# apart. You will classify with $r$ by distances alone, give one digit the style of another, and
# then do with 100 labels what you did with all of them, by summing over the unknown ones. It
# takes two or three minutes on a laptop.
#
# You need the first steps of [tutorial 1](01_svi_by_hand.ipynb).

# %%
# %matplotlib inline
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import torch
from pyro.distributions import Categorical, Normal
from pyro.infer import SVI
from pyro.nn import PyroModule
from torch import nn

from pyro_latents.data.batches import Batches
from pyro_latents.data.sources import load
from pyro_latents.distributions.likelihoods import Bernoulli
from pyro_latents.models.equivae import joined
from pyro_latents.nets.initial import initialise_for_relu
from pyro_latents.nets.mlp import DenseDecoder
from pyro_latents.nets.sets import Codes, SetEncoder
from pyro_latents.plots import image_rows
from pyro_latents.stories.equivae.batches import ClassTable, Complementary
from pyro_latents.stories.equivae.networks import EquivariantEncoder, InvariantEncoder
from pyro_latents.stories.equivae.objective import SupervisedBound

# The tests run this notebook in a short form.
SHORT = "PYRO_LATENTS_SHORT" in os.environ
EPOCHS, SEMI_EPOCHS, CLASSIFIER_STEPS = (1, 1, 2) if SHORT else (30, 40, 300)
R_DIM, V_DIM = 8, 4

pyro.clear_param_store()
pyro.set_rng_seed(0)
splits = load("digits", validation=180)
train, test = splits.train, splits.test

# %% [markdown]
# ## Complementary sets
#
# Each image $x$ of class $y$ comes with $m$ *other* images of its class, a new choice in every
# batch, with $m$ drawn too, for each image. They can tell a model what a 3 is, but not how this 3 was
# written. The sets of a batch share their members, a `Pool`, so that each is encoded once: a row of
# `shares` has what every member counts in one image's set.

# %%
batches = Batches(Complementary(train, ClassTable(train, 10), m_max=5), 100, seed=0)
x, y, sets = batches.batch(1)
most = sets.shares[:12].topk(5, dim=1)
members = sets.members[most.indices] * (most.values > 0)[..., None, None, None]
image_rows({"x": x[:12], **{f"set, {i + 1}": members[:, i] for i in range(5)}})

# %% [markdown]
# ## The model
#
# The code of the class is the mean of a network over the set,
#
# $$r_y = \frac{1}{m} \sum_{i=1}^m f_{inv}(x_i) \qquad (2)$$
#
# and not a random variable: given the set, it is known. The style is drawn. Both are decoded together:
#
# $$p(x, v, r, y) = p(y) \, \delta(r - r_y) \, \mathcal{N}(v; 0, I) \, p(x \mid r, v)
#   \qquad (1)$$
#
# `pyro.deterministic` records $r$ in the trace without a density. The `SetEncoder` is equation (2);
# it takes sets, or `Codes` that are known already. What `encoded` is for will be said below.


# %%
class Model(PyroModule):
    def __init__(self):
        super().__init__()
        f_inv = InvariantEncoder((1, 28, 28), R_DIM, dropout=0.2)
        self.invariant = SetEncoder(f_inv, R_DIM, num_classes=10)
        self.decoder = DenseDecoder(R_DIM + V_DIM, (1, 28, 28), (512, 512))
        initialise_for_relu(self.decoder)
        self.likelihood = Bernoulli()

    def encoded(self, x, y, sets):
        return x, y, Codes(self.invariant(sets))

    def forward(self, x, y, sets):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", Categorical(logits=torch.zeros(10)), obs=y)
            r = pyro.deterministic("r", self.invariant(sets), event_dim=1)
            v = pyro.sample("v", Normal(0.0, 1.0).expand([V_DIM]).to_event(1))
            return pyro.sample("x", self.likelihood(self.decoder(joined(r, v))), obs=x)


# %% [markdown]
# ## The guide
#
# Only $v$ is unknown. Its posterior sees the image *and* the code of the class,
#
# $$q(v \mid r_y, x) = \mathcal{N}\big(\mu(r_y, x), \mathrm{diag}\,\sigma(r_y, x)^2\big)
#   \qquad (3)$$
#
# so that it need not say again what $r$ says already. That is the whole trick: information about
# the class is free in $r$, and costs nats of divergence in $v$.


# %%
class Guide(PyroModule):
    def __init__(self, model):
        super().__init__()
        self.invariant = model.invariant
        self.encoder = EquivariantEncoder((1, 28, 28), R_DIM)
        self.head = nn.Linear(self.encoder.features_dim, 2 * V_DIM)

    def posterior(self, x, r):
        loc, log_scale = self.head(self.encoder(x, r)).chunk(2, dim=-1)
        return Normal(loc, log_scale.exp()).to_event(1)

    def forward(self, x, y, sets):
        r = self.invariant(sets)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("v", self.posterior(x, r))


model = Model()
guide = Guide(model)

# %% [markdown]
# ## Train
#
# Guide and model need the same codes, and left to themselves each would encode the sets, under a
# dropout of its own. `SupervisedBound` is `TraceMeanField_ELBO` but for one thing: it calls
# `encoded` first and gives both programs the codes in the place of the sets.

# %%
svi = SVI(model, guide, pyro.optim.Adam({"lr": 2e-3}), SupervisedBound())
losses = []
for epoch in range(EPOCHS):
    batches.set_epoch(epoch)
    losses.append(sum(svi.step(*batch) for batch in batches) / len(train))

plt.figure(figsize=(5, 3))
plt.plot(range(1, EPOCHS + 1), losses, marker="." if EPOCHS < 3 else "")
plt.xlabel("epoch")
plt.ylabel("loss, nats per image")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## A classifier without parameters
#
# $f_{inv}$ was trained to describe a class, never to tell one from another. Still, the mean code of
# each class is a classifier: take the nearest. And how much of the class is left in $v$? Ask the
# five nearest neighbours of each code.

# %%
from pyro_latents.evaluation.knn import knn_accuracy
from pyro_latents.stories.equivae.metrics import distance_error

model.eval()
guide.eval()
with torch.no_grad():
    r_train, r_test = model.invariant.embed(train.x), model.invariant.embed(test.x)
    class_means = torch.stack([r_train[train.y == label].mean(0) for label in range(10)])
    v_train = guide.posterior(train.x, class_means[train.y]).mean
    v_test = guide.posterior(test.x, class_means[test.y]).mean

error = distance_error(r_test, class_means, test.y)
print(f"nearest class mean of r  {100 - error:5.1f} % of test images right")
for name, found in (("r", (r_train, r_test)), ("v", (v_train, v_test))):
    accuracy = knn_accuracy(found[0], train.y, found[1], test.y)
    print(f"nearest neighbours in {name}  {accuracy:5.1f} %")

# %% [markdown]
# The rule that nobody trained does nearly as well as neighbours do. In $v$ there is much less of the
# class, but more than chance: some styles go with some classes, and nothing in the objective
# forbids to say a thing twice, it only makes it dear.
#
# Test images by the two largest directions of each code, a colour a class:

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for axis, (name, found) in zip(axes, {"r": r_test, "v": v_test}.items(), strict=True):
    centred = found - found.mean(0)
    plane = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    points = axis.scatter(*plane.T, c=test.y, s=6, cmap="tab10")
    axis.set(title=name, xticks=[], yticks=[])
figure.colorbar(points, label="class")
plt.show()

# %% [markdown]
# ## One digit in the style of another
#
# The style is read off the image on top of each column, the class is that of the row. The diagonal is
# a reconstruction. Look down a column: slant, width and stroke stay, as far as the class has
# them. Where it has not, such as the foot of a 2 under a 0, the ink fades.

# %%
first = torch.stack([torch.nonzero(test.y == label)[0, 0] for label in range(10)])
v = v_test[first]
rows = {"test": test.x[first]}
with torch.no_grad():
    for label in range(10):
        rows[f"as a {label}"] = model.decoder(joined(class_means[label], v)).sigmoid()
image_rows(rows)

# %% [markdown]
# ## With 100 labels
#
# For an image without a label, $y$ is a latent variable. The model is the same, with the sets of all
# ten classes in the place of one; the guide guesses the class,
#
# $$q(v, y \mid x) = q(v \mid r_y, x) \, q(y \mid x) \qquad (5)$$
#
# and the sum over $y$ in the bound is taken exactly. To Pyro that is one word in the guide. With it,
# `y` has an extra dimension of size ten, and all below it follows by broadcasting:
#
# ```python
# def forward(self, x, class_sets):  # of the guide; class_sets is 10 m 1 28 28
#     codes = self.invariant(class_sets)
#     with pyro.plate("data", len(x), dim=-1):
#         y = pyro.sample("y", q(y | x), infer={"enumerate": "parallel"})
#         pyro.sample("v", self.posterior(x, codes[y]))
#
# def forward(self, x, class_sets):  # of the model
#     codes = self.invariant(class_sets)
#     with pyro.plate("data", len(x), dim=-1):
#         y = pyro.sample("y", Categorical(logits=torch.zeros(10)))
#         r = pyro.deterministic("r", codes[y], event_dim=1)
#         ...  # as above
# ```
#
# `TraceEnum_ELBO` does the rest. Labelled images keep the bound from above, with $\log q(y \mid x)$
# added: without it nothing would teach $q(y \mid x)$ which class is which. The recipe
# `equivae-semi-digits` holds both programs in one, `models/equivae.py`, and brings them in step by
# step: labelled images alone, then all, then all with their say in $q(y \mid x)$.

# %%
from pyro_latents import zoo

recipe = zoo.recipe("equivae-semi-digits", seed=0)
run = recipe.train(Path(tempfile.mkdtemp()) / "semi", epochs=SEMI_EPOCHS, progress=False)

# %% [markdown]
# What are the images without labels worth? The same network that $q(y \mid x)$ is,
# trained on the 100 labelled images alone, is the benchmark.

# %%
from pyro_latents.stories.equivae.metrics import (
    classification_errors,
    fit_classifier,
    network_error,
)
from pyro_latents.stories.equivae.networks import LabelClassifier

semi = run.parts
labelled = semi.story.labelled(semi.splits)
errors = classification_errors(semi, semi.splits.test)
torch.manual_seed(0)
alone = fit_classifier(
    LabelClassifier((1, 28, 28), 10), labelled.x, labelled.y, steps=CLASSIFIER_STEPS, seed=0
)
print(f"{len(labelled)} labels alone         {network_error(alone, test.x, test.y):5.1f} % errors")
print(f"q(y | x), with the rest  {errors['error_rate']:5.1f} %")
print(f"nearest class mean       {errors['distance_error']:5.1f} %")

# %% [markdown]
# Draws of each class, a column a class: $r$ from the ten labelled images of it, $v$ from its prior.

# %%
with torch.no_grad():
    rows = {}
    for i in range(5):
        v = torch.randn(10, semi.model.v_dim)
        rows[f"draw {i + 1}"] = semi.model.decoder(joined(semi.model.class_means, v)).sigmoid()
image_rows(rows)

# %% [markdown]
# Far from the middle of $p(v)$ some are of another class: ten images say less well than a hundred
# what a class is.
#
# ## What to try next
#
# * `m_max=1`: a set of a single image. What happens to the distance rule, and why?
# * `V_DIM = 32`. Does more of the class move into $v$? The neighbours will tell.
# * Leave $r$ out of the guide's encoder: `torch.zeros_like(r)` in `posterior`. The code $v$ can no
#   longer know what $r$ says already.
# * `zoo.recipe("equivae-semi-digits", labels=50)`, or `label_weight=0.0`.
# * The paper's tables: `pyro-latents reproduce feige-table1 --data-dir DATA`, and `feige-table2`.
