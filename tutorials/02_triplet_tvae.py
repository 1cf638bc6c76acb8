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
# # 2. A transformation as a latent variable: the triplet TVAE
#
# Show a model an image, the image under some transformation, and the image under the inverse of it,
# and never say what the transformation was. You will write the model of
# *No Representation without Transformation* (Giannone, Masci and Osendorfer, 2019), train it with
# an objective that compares distributions by a kernel, infer a transformation from one triplet, and
# apply it to other images. You will also measure whether that works, and meet a reading of the
# objective with which it does not. It takes two or three minutes on a laptop.
#
# You need the first steps of [tutorial 1](01_svi_by_hand.ipynb).

# %%
# %matplotlib inline
import os

import matplotlib.pyplot as plt
import pyro
import torch
from pyro.distributions import Delta, Normal
from pyro.nn import PyroModule
from torch import nn

from pyro_latents import SVI
from pyro_latents.data.batches import Batches
from pyro_latents.data.sources import load
from pyro_latents.distributions.likelihoods import Bernoulli
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.plots import image_rows
from pyro_latents.stories.triplet_tvae.batches import Triplets

# The tests run this notebook in a short form.
SHORT = "PYRO_LATENTS_SHORT" in os.environ
EPOCHS, TRIPLETS = (1, 20) if SHORT else (50, 300)
Z_DIM, WEIGHT = 10, 200.0

splits = load("digits", validation=180)
x_test = splits.test.x

# %% [markdown]
# ## Triplets
#
# Every batch draws new affine maps $f$ (rotation, scale, shear, shift), and makes
# $x_1 = f(x)$ and $x_2 = f^{-1}(x)$. Each view is then cropped at random, on its own, so that the
# two are not quite inverse to each other.

# %%
batches = Batches(Triplets(splits.train), 100, seed=0, drop_last=True)
x, x1, x2 = batches.batch(0)
image_rows({"x": x[:12], "x1": x1[:12], "x2": x2[:12]})

# %% [markdown]
# ## The model
#
# A code $z$, a transformation $T$, and three codes that follow from them: one under the identity,
# one under $T$ and one under its inverse. All three are decoded by the same network:
#
# $$p = \mathcal{N}(z; 0, I) \, \mathcal{N}(T; 0, I) \; r(z_0 \mid z, T_{id}) \, r(z_1 \mid z, T) \,
#   r(z_2 \mid z, T^{-1}) \; p(x \mid z_0) \, p(x_1 \mid z_1) \, p(x_2 \mid z_2) \qquad (1)$$
#
# The paper's transformation of a code is addition, $r(z, T) = z + T$, with $T_{id} = 0$ and
# $T^{-1} = -T$. Here $r$ has a little normal noise, so that every site has a density.


# %%
class Model(PyroModule):
    def __init__(self, z_dim):
        super().__init__()
        self.z_dim = z_dim
        self.decoder = DenseDecoder(z_dim, (1, 28, 28))
        self.likelihood = Bernoulli()

    def render(self, z):
        return self.likelihood(self.decoder(z))

    def r(self, z, T):
        return Normal(z + T, 0.1).to_event(1)

    def forward(self, x=None, x1=None, x2=None, size=1):
        standard_normal = Normal(0.0, 1.0).expand([self.z_dim]).to_event(1)
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", standard_normal)
            T = pyro.sample("T", standard_normal)
            z0 = pyro.sample("z0", self.r(z, torch.zeros_like(T)))  # r(z0 | z, T_id)
            z1 = pyro.sample("z1", self.r(z, T))  # r(z1 | z, T)
            z2 = pyro.sample("z2", self.r(z, -T))  # r(z2 | z, T^-1)
            pyro.sample("x1", self.render(z1), obs=x1)  # p(x1 | z1)
            pyro.sample("x2", self.render(z2), obs=x2)  # p(x2 | z2)
            return pyro.sample("x", self.render(z0), obs=x)  # p(x | z0)


# %% [markdown]
# ## The guide
#
# It goes the other way. One encoder serves the three images, and $z$ and $T$ are inferred from the
# codes of the two views, not from pixels:
#
# $$q = q_\phi(z_0 \mid x) \, q_\phi(z_1 \mid x_1) \, q_\phi(z_2 \mid x_2) \;
#   q_\psi(z \mid z_1, z_2) \, q_\xi(T \mid z_1, z_2) \qquad (2)$$
#
# $q_\xi$ is *implicit*: the value of a network, $T = h_\xi(z_1, z_2)$. Its draws are random because
# $z_1$ and $z_2$ are, but nobody knows their density. In Pyro that is a `Delta`.


# %%
class Guide(PyroModule):
    def __init__(self, z_dim):
        super().__init__()
        self.encoder = nn.Sequential(DenseEncoder((1, 28, 28)), nn.Linear(256, 2 * z_dim))
        self.h_psi = nn.Sequential(DenseEncoder((2 * z_dim,)), nn.Linear(256, 2 * z_dim))
        self.h_xi = nn.Sequential(DenseEncoder((2 * z_dim,)), nn.Linear(256, z_dim))

    def code(self, output):
        loc, log_scale = output.chunk(2, dim=-1)
        return Normal(loc, log_scale.exp()).to_event(1)

    def forward(self, x, x1, x2, size=1):
        outputs = self.encoder(torch.stack([x, x1, x2]))
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", self.code(outputs[1]))
            z2 = pyro.sample("z2", self.code(outputs[2]))
            both = torch.cat([z1, z2], dim=-1)
            pyro.sample("z", self.code(self.h_psi(both)))
            pyro.sample("T", Delta(self.h_xi(both), event_dim=1))
            pyro.sample("z0", self.code(outputs[0]))


# %% [markdown]
# ## Why not simply the ELBO?
#
# The bound would need the divergence of $q$ from $p$ at every latent site. At $T$ there is none,
# since $q_\xi$ has no density. At $z_1$ there is one, but it asks too much: each single
# $q(z_1 \mid x_1)$ would be pulled into the narrow $r(z_1 \mid z, T)$, however far it is.
#
# A **maximum mean discrepancy** compares two distributions by a kernel $k$,
#
# $$\mathrm{MMD}^2 = \mathbb{E}\,k(a, a') - 2\,\mathbb{E}\,k(a, b) + \mathbb{E}\,k(b, b'),
#   \qquad a, a' \sim q, \quad b, b' \sim p,$$
#
# which is zero only if they are the same, and never more than two. `TraceMMD_ELBO` takes it where
# it is told to, with a weight each, and the KL elsewhere:
#
# $$-\sum \mathbb{E}_q[\log p(x_i \mid z_i)] \;+\; \lambda \big(\mathrm{MMD}^2_z +
#   \mathrm{MMD}^2_{z_1} + \mathrm{MMD}^2_{z_2}\big) \;+\; \mathrm{KL}_{z_0} \qquad (3)$$
#
# *Which* two distributions? $z$ has no parents: there the codes of a batch are compared with as many
# draws of $p(z)$, so that a single posterior may stay narrow. $z_1$ has two, $z$ and $T$: there, in
# each triplet, $q(z_1 \mid x_1)$ is compared with $r(z_1 \mid z, T)$ at the guide's own $z$ and $T$.
# Both are normal, so with a Gaussian kernel the discrepancy is a formula, without draws.
#
# One could as well pool $z_1$ over the batch and compare that: `compare="marginal"`. It is the reading
# of the word that one meets most often, and you will see what is lost. At `T` the weight is zero: as
# in the paper, nothing ties $T$ to its prior.
#
# `copies` says that $z_0$ is $z$ under the identity. So its KL is to the standard normal that $z$
# has, and the image is scored once more, rendered from $z$ itself: a term $-\log p(x \mid z)$. That
# is the paper's, and it is there because the network that infers $z$ sees only the views, and must
# be told what they have in common.

# %%
from pyro_latents.guides import check_guide
from pyro_latents.losses import TraceMMD_ELBO

weights = {"z": WEIGHT, "z1": WEIGHT, "z2": WEIGHT, "T": 0.0}
losses = {
    compare: TraceMMD_ELBO(weights, compare=compare, copies={"z0": "z"}, max_plate_nesting=1)
    for compare in ("conditional", "marginal")
}
check_guide(Model(Z_DIM), Guide(Z_DIM), x[:4], x1[:4], x2[:4])

# %% [markdown]
# ## Train, twice
#
# Once with each comparison. The loop is Pyro's own, by `pyro_latents.SVI`: it is `pyro.infer.SVI`, but
# that the parameters of a model stay with it. In Pyro's global store two models of one class have
# parameters of the same names, and the second would not learn.


# %%
def train(loss):
    pyro.set_rng_seed(0)
    model, guide = Model(Z_DIM), Guide(Z_DIM)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss)
    for epoch in range(EPOCHS):
        batches.set_epoch(epoch)
        for batch in batches:
            svi.step(*batch)
    return model, guide


trained = {name: train(loss) for name, loss in losses.items()}

# %%
with torch.no_grad():
    for name, (model, guide) in trained.items():
        print(name)
        for term, value in losses[name].terms(model, guide, x, x1, x2).items():
            print(f"   {term:<12} {value / len(x):8.3f} nats per image")

# %% [markdown]
# ## A transformation from one triplet
#
# The terms `mmd` are the discrepancies, times their weight; at the views they are small in both
# lists, and the images cost nearly the same. But the second list is about batches: it does not say
# that *each* triplet's $T$ leads to its own views.
#
# Take one test image and turn it by 35 degrees to both sides. The guide reads $T$ off the two
# views. Now add this one $T$ to the codes of *other* images, and decode: they should turn by as
# much as the first one did. Under them, the same with $-T$. The first column is the triplet itself.

# %%
from pyro_latents.data.affine import rotate


def transferred(model, guide, x1, x2, others):
    with torch.no_grad():
        z1, z2, z = (guide.code(guide.encoder(images)).mean for images in (x1, x2, others))
        T = guide.h_xi(torch.cat([z1, z2], dim=-1))
        return [model.render(code).mean for code in (z, z + T, z - T)]


def figure3(name):
    angle = torch.full((10,), 35.0).deg2rad()
    first, others = x_test[:1].expand(10, -1, -1, -1), x_test[1:11]
    x1, x2 = rotate(first, angle), rotate(first, -angle)
    upright, moved, back = transferred(*trained[name], x1, x2, others)
    rows = {"image": (first, upright), "T": (x1, moved), "inverse of T": (x2, back)}
    return image_rows({row: torch.cat([one[:1], many]) for row, (one, many) in rows.items()})


# %% [markdown]
# Compared within each triplet:

# %%
figure3("conditional")

# %% [markdown]
# Compared over the batch:

# %%
figure3("marginal")

# %% [markdown]
# In the first figure every image leans to one side, and to the other. They are soft: ten numbers
# hold class, style and pose here, after a minute of training, and must lie so that addition turns
# them. In the second nothing moves. With $T = 0$ and codes of the views that are spread like those of
# the images, a batch looks as it should; a small weight leaves $T$ alive, and it turns what it
# likes.

# %% [markdown]
# ## Measure it
#
# Turn many test images by random angles, infer $T$ from each pair of views, apply it to another
# test image, and search for the rotation that brings the image's reconstruction nearest to the
# result. If $T$ turned every image as it turned its own, all points would lie on the diagonal.

# %%
from pyro_latents.evaluation.registration import rotation_between
from pyro_latents.reproduce.giannone_turns import correlation, slope

generator = torch.Generator().manual_seed(0)
index = torch.randint(len(x_test), (2, TRIPLETS), generator=generator)
angle = 45 * (2 * torch.rand(TRIPLETS, generator=generator) - 1)
x1, x2 = (rotate(x_test[index[0]], sign * angle.deg2rad()) for sign in (1, -1))

figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), sharey=True, layout="constrained")
for axis, (name, (model, guide)) in zip(axes, trained.items(), strict=True):
    upright, moved, back = transferred(model, guide, x1, x2, x_test[index[1]])
    there, again = rotation_between(upright, moved), rotation_between(upright, back)
    for what, found in (("T", there), ("its inverse", again)):
        r, b = correlation(angle, found), slope(angle, found)
        print(f"{name:<15} {what:<12} correlation {r:5.2f}   slope {b:5.2f}")
    axis.plot([-45, 45], [-45, 45], color="0.7", lw=1)
    axis.plot(angle, there, ".", ms=4)
    axis.set(title=name, xlabel="angle of the triplet, degrees")
axes[0].set_ylabel("angle of the other image, degrees")
plt.show()

# %% [markdown]
# Why do they differ? Over a batch it is enough that the codes $z + T$ are spread like the $z_1$ are,
# whichever $T$ belongs to which triplet; $-T$ would do as well. Within a triplet $z + T$ must be the
# code of *this* view, so $T$ must carry what was done to this image, and, as addition is the same
# for every $z$, it carries it to others.
#
# ## What to try next
#
# * Weights of 20 in the place of 200. How much coherence does $T$ need?
# * `transferred` with a scaled or a sheared view. Where does addition stop being a good $r$?
# * A matrix in the place of addition, the paper's outlook, turns further: `zoo.recipe(
#   "triplet-tvae-digits", transformation="matrix")`, six generators that all images share.
# * Give $T$ a density, `Normal` in the place of `Delta`, and compare the two guides as in
#   [tutorial 6](06_swap_the_guide.ipynb): `zoo.recipe("triplet-tvae-digits",
#   guide="gaussian-transformation")`.
# * The paper's convolutions and data: `pyro-latents train triplet-tvae-matrix-mnist --data-dir DATA`,
#   and its figure: `pyro-latents reproduce giannone-figure3 --data-dir DATA`.
