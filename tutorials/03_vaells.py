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
# # 3. Paths in the latent space: VAELLS
#
# Data often lie on a curved surface, and a straight line between two codes leaves it. You will learn
# what **transport operators** are, how the model of *Variational Autoencoder with Learned Latent
# Structure* (Connor, Canal and Rozell, 2020) puts its codes on paths that start at anchors, how
# `TraceMax_ELBO` deals with variables that are maximised in the place
# of being integrated, and you will see, and measure, the paths that are learned on a swiss roll and
# between turned digits. It takes a few minutes on a laptop.
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
from pyro.distributions import Categorical, Laplace, Normal
from pyro.nn import PyroModule
from torch import nn

from pyro_latents import zoo
from pyro_latents.data.manifolds import swiss_roll, swiss_roll_anchors
from pyro_latents.losses import TraceMax_ELBO
from pyro_latents.nets.mlp import MLP
from pyro_latents.transport import TransportOperators

# The tests run this notebook in a short form.
SHORT = "PYRO_LATENTS_SHORT" in os.environ
folder = Path(tempfile.mkdtemp())
pyro.set_rng_seed(0)

# %% [markdown]
# ## Transport operators
#
# A matrix $\Psi$ is a direction of motion at every point at once, $\dot z = \Psi z$. To follow it
# for a time $c$ is to multiply by a matrix exponential; with several, their sum is followed:
#
# $$z(c) = T_\Psi(c) \, z_0, \qquad T_\Psi(c) = \exp\Big(\sum_m c_m \Psi_m\Big)$$
#
# Two of them, a rotation and a growth, and where each, and both, lead from one point:

# %%
operators = TransportOperators(2, 2)
operators.psi.data = torch.tensor([[[0.0, -1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
begin = torch.tensor([1.0, 0.0])
t = torch.linspace(0, 1, 60)[:, None]

plt.figure(figsize=(4, 3.4))
for name, c in {"rotation": (4, 0), "growth": (0, 0.8), "both": (4, 0.8)}.items():
    with torch.no_grad():
        plt.plot(*operators(t * torch.tensor(c), begin).T, label=name)
plt.plot(*begin, "k*", markersize=9)
plt.axis("equal")
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# The reverse is a search: which coefficients lead from one point to another, with a small price on
# their size?
#
# $$c^* = \arg\min_c \tfrac{1}{2} \|z_1 - T_\Psi(c) z_0\|^2 + \zeta \|c\|_1$$
#
# It has no closed form, and local minima: a full turn more or less ends in the same place. It
# is done for whole batches at once, without a gradient.

# %%
true = torch.tensor([[1.0, 0.3], [-0.5, 0.1], [2.5, -0.4]])
with torch.no_grad():
    ends = operators(true, begin)
    found, objective = operators.infer(begin.expand_as(ends), ends, l1_weight=1e-6)
for a, b in zip(true.tolist(), found.tolist(), strict=True):
    print(f"true {a[0]:5.2f} {a[1]:5.2f}    inferred {b[0]:5.2f} {b[1]:5.2f}")

# %% [markdown]
# ## The model
#
# Some data points are **anchors** $a_k$. A code lies near a path that starts at the encoding
# of one of them:
#
# $$p = \frac{1}{N_a} \; \prod_m \frac{\zeta}{2} e^{-\zeta |c_m|} \;
#   \mathcal{N}\big(z; T_\Psi(c) f_\phi(a_k), \gamma^2 I\big) \; p_\theta(x \mid z)
#   \qquad (1, 5, 7)$$
#
# Run forward it is an ordinary program: pick an anchor, draw coefficients, move, decode.
#
# Given $z$ there is nothing to draw. What the objective needs of $c$ and $k$ is $p(z)$, an integral
# that the paper replaces by its largest term, $\max_{k, c} p(z \mid c, a_k) \, p(c)$. In this package
# that is said at the site: `infer={"maximize": solver}`. The solver gets the values of the other
# sites and returns the best value for this one. Two sites whose best values belong together name
# one solver, which returns both by name.


# %%
class Model(PyroModule):
    def __init__(self, anchors):
        super().__init__()
        self.encoder, self.decoder = MLP(20, [512], 2), MLP(2, [512], 20)
        self.operators = TransportOperators(1, 2)
        self.anchors = nn.Parameter(anchors)

    def forward(self, x=None, size=1):
        starts = self.encoder(self.anchors)

        def best_path(values):
            ends = values["z"][:, None].expand(-1, len(starts), -1)
            c, objective = self.operators.infer(starts.expand_as(ends), ends, 1e-6)
            k = objective.argmin(-1)
            return {"k": k, "c": c[torch.arange(len(k)), k]}

        with pyro.plate("data", size if x is None else len(x), dim=-1):
            uniform = Categorical(logits=torch.zeros(len(starts)))
            k = pyro.sample("k", uniform, infer={"maximize": best_path})
            rate = Laplace(0.0, 1.0).expand([1]).to_event(1)
            c = pyro.sample("c", rate, infer={"maximize": best_path})
            z = pyro.sample("z", Normal(self.operators(c, starts[k]), 0.1).to_event(1))
            return pyro.sample("x", Normal(self.decoder(z), 0.1).to_event(1), obs=x)


# %% [markdown]
# ## The guide
#
# It is the same idea around the encoding of the observation itself, with the same encoder and
# operators:
#
# $$q(z, c \mid x) = \mathcal{N}\big(z; T_\Psi(c) f_\phi(x), \gamma^2 I\big) \,
#   \prod_m \frac{\zeta}{2} e^{-\zeta |c_m|} \qquad (5, 6)$$
#
# So a posterior is stretched along the operators, as far as the coefficients reach. Its
# $c$ is drawn to make a $z$, then forgotten, and the density of $z$ is again that of the best $c$.


# %%
class Guide(PyroModule):
    def __init__(self, model):
        super().__init__()
        self.encoder, self.operators = model.encoder, model.operators

    def forward(self, x, size=1):
        start = self.encoder(x)

        def path(values):
            return self.operators.infer(start, values["z"], 1e-6)[0]

        with pyro.plate("data", len(x), dim=-1):
            rate = Laplace(0.0, 1.0).expand([1]).to_event(1)
            c = pyro.sample("c", rate, infer={"maximize": path})
            pyro.sample("z", Normal(self.operators(c, start), 0.1).to_event(1))


# %% [markdown]
# $$\mathcal{L} = \mathbb{E}_q\Big[\log p(x \mid z) + \max_{k, c'} \log p(z \mid c', a_k) \, p(c') \, p(k)
#   - \max_c \log q(z \mid c, x) \, q(c)\Big] \qquad (10, 11)$$
#
# `TraceMax_ELBO` finds the sites that are marked, lets the solvers fill them in, and takes the
# densities at what they found, with gradients through everything else. Its three terms, before any
# training:

# %%
model = Model(swiss_roll_anchors(4).x)
guide = Guide(model)
x = swiss_roll().train.x[:100]
loss = TraceMax_ELBO(max_plate_nesting=1)
with torch.no_grad():
    for term, value in loss.terms(model, guide, x).items():
        print(f"{term:<11} {value / len(x):8.2f} nats per point")

# %% [markdown]
# ## Train on the swiss roll
#
# The recipe's model and guide, `models/vaells.py` and `guides/vaells.py`, are these two with the
# paper's options: classes with anchors of their own, sums over anchors, widths and rates. Its
# training is that of the paper's appendix B, for networks and operators do not learn well together:
# they take turns, and operators decay, so that those which are not needed vanish. (The paper takes a
# step of the operators back if it makes their part of the objective worse; here every step is
# taken, from which this seed learns more.) Objective and phases are written down in
# `pyro_latents/stories/vaells/plan.py`. This is a third of the paper's steps.

# %%
recipe = zoo.recipe("vaells-swiss-roll", seed=0, candidates=2 if SHORT else 200)
run = recipe.train(folder / "roll", steps=4 if SHORT else 1000, progress=False)
model, test = run.recipe.model, run.recipe.splits.test

# %% [markdown]
# The data are points of a plane spiral, mapped to 20 dimensions. On the left the codes, coloured by
# their place on the roll, with the orbits of the operator through some of them, in both directions.
# In the middle draws of the prior, coloured by their anchor (stars): coefficients drawn a tenth as wide
# as the recipe's prior has them spread them along the orbits. On the right the paths that the search finds between
# pairs of codes.

# %%
from pyro_latents.reproduce.connor import encoded
from pyro_latents.reproduce.connor_figures import operators_in_the_plane

codes = encoded(run.parts, test.x)
order = test.extras["position"].argsort()
with torch.no_grad():
    starts = model.starts()
    k = torch.randint(len(starts), (500,))
    draws = model.operators(Laplace(0.0, 10.0).sample((500, 1)), starts[k])
    paths = []
    for first, last in ((100, 500), (400, 900)):
        a, b = codes[order[first]], codes[order[last]]
        c, _ = model.operators.infer(a[None], b[None], model.inference_weight)
        paths.append(model.operators(torch.linspace(0, 1, 60)[:, None] * c, a))
operators_in_the_plane(
    model.operators.psi.detach(), codes, test.extras["position"], starts, (draws, k), paths
)

# %% [markdown]
# Is the coefficient of a path a distance *along* the roll? From each anchor to all test points, the
# rank correlation of $|c|$ with the true distance along the roll, beside that of the straight line
# between the codes:

# %%
from pyro_latents.stories.vaells.metrics import (
    path_length_correlation,
    rank_correlation,
    spiral_length,
)

length = spiral_length(test.extras["position"])
for number, anchor in enumerate(starts, start=1):
    along = (length - length[(codes - anchor).norm(dim=1).argmin()]).abs()
    path = path_length_correlation(model.operators, anchor, codes, along, model.inference_weight)
    line = rank_correlation((codes - anchor).norm(dim=1), along)
    print(f"anchor {number}   path {path:5.2f}   straight line {line:5.2f}")

# %% [markdown]
# After a third of the steps the operator turns and grows, as the roll does; its orbits follow the
# roll, and so do the draws of the prior. From every anchor the coefficient ranks the points nearly
# as the way along the roll does, where the straight line has half of it right, and from the outermost
# anchor nothing. Of the two paths that are drawn one is near the roll, the other takes a wider
# way around it. Not every training comes as far: with `seed=1` the operator winds the wrong way after
# as many steps, growing where the roll shrinks, and the correlations are .55 on average.
#
# ## Turned digits
#
# An operator can as well be what is done to an image. Each digit here is turned by a random angle, and
# has anchors of its own: its upright image in ten directions, 36 degrees apart. One operator, of a
# code of six dimensions, has to lead from one of them to it. No one says that it is an angle that
# differs, or how large it is.
#
# The model and the guide are the ones of the package; the networks are any that have the shapes.

# %%
from pyro_latents.data.affine import rotate
from pyro_latents.distributions.likelihoods import Normal as NormalPixels
from pyro_latents.guides.vaells import TransportGuide, WarmUpGuide
from pyro_latents.models.vaells import VAELLS

splits = zoo.recipe("vae-digits").splits
upright, unseen = (nn.functional.avg_pool2d(part.x, 2) for part in (splits.train, splits.test))
views = torch.arange(10) * 2 * torch.pi / 10


def turned(images):
    angles = 2 * torch.pi * torch.rand(len(images))
    return rotate(images, angles), rotate(images[:, None], views.expand(len(images), -1))


encoder = nn.Sequential(nn.Flatten(-3), MLP(196, [256, 128], 6))
decoder = nn.Sequential(MLP(6, [128, 256], 196), nn.Unflatten(-1, (1, 14, 14)))
model = VAELLS(
    encoder,
    decoder,
    TransportOperators(1, 6, init_scale=0.05),
    NormalPixels(0.05, event_dims=3),
    anchors=torch.zeros(1, 10, 1, 14, 14),  # in the place of which each batch brings its own
    noise_scale=0.05,
    learn_anchors=False,
)

# %% [markdown]
# Pixels and codes have the same width here, $\sigma = \gamma = 0.05$, in the model and in the guide:
# an error of a pixel weighs as much as the distance of a code from its path. Of the ten anchors the
# closest one alone is kept, without the $1/N_a$ (a weight of zero for $k$). A warm-up, with the
# likelihood alone, comes first: a guide that hardly moves codes, and the model without its prior. The
# phases that take turns are left away: one Adam for all will do for this. The last term is the price
# on the operators' size, a normal prior.

# %%
from pyro_latents.losses import LikelihoodLoss

loss = TraceMax_ELBO(max_plate_nesting=1, model_weights={"k": 0.0})
warm_up = LikelihoodLoss(), model.reconstruct, WarmUpGuide(model)
training = loss, model, TransportGuide(model, noise_scale=0.05)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
steps, warm_up_steps = (4, 2) if SHORT else (1500, 500)
for step in range(steps):
    objective, program, guide = warm_up if step < warm_up_steps else training
    x, anchors = turned(upright[torch.randint(len(upright), (32,))])
    value = objective.differentiable_loss(program, guide, x, None, anchors) / len(x)
    value = value + 2.0 * model.operators.psi.square().sum()
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
frequencies = torch.linalg.eigvals(model.operators.psi.detach()[0]).imag
print("frequencies", [round(f, 4) for f in sorted(frequencies.tolist()) if f > 0])

# %% [markdown]
# The operator has learned to turn: its eigenvalues are nearly imaginary, and where one frequency is
# twice another, codes turn once and twice in the time that the image takes for its turn, like the
# first two terms of a Fourier series of the angle. So the codes of digits that were not seen in
# training, moved along the operator, are digits turned. How far, is measured by
# turning the middle image until it fits:

# %%
from pyro_latents.evaluation.registration import rotation_between

reach = torch.pi / frequencies.max()  # half a turn of what turns fastest
c = torch.linspace(-1, 1, 13)
shown = unseen[:200]
with torch.no_grad():
    start = model.encoder(shown)[:, None]
    images = model.decoder(model.operators(reach * c[:, None], start)).clamp(0, 1)
middle = images[:, 6]
angles = torch.stack([rotation_between(middle, images[:, i], max_angle=180.0) for i in range(13)])

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(3, 2))
left.imshow(images[:5].squeeze(2).permute(0, 2, 1, 3).reshape(5 * 14, 13 * 14), cmap="gray_r")
left.set(xticks=[], yticks=[], title="five digits, a row each, along the operator")
low, median, high = angles.quantile(torch.tensor([0.1, 0.5, 0.9]), dim=1)
right.plot(c, median, "o-")
right.fill_between(c, low, high, alpha=0.2)
right.set(xlabel="coefficient, in half turns of the fastest plane", ylabel="degrees")
right.set_title("angle of the image: median and 80 % of 200 digits")
plt.show()

# %% [markdown]
# Half a turn of the fastest plane is a quarter turn of the image, to either side and in even steps,
# for four digits in five and more: an angle that nothing in the data names has become a coefficient.
# The shapes are coarse, as six numbers have to hold the digit, its style and its direction.
#
# ## What to try next
#
# * All of the paper's steps: leave `steps` away. `pyro-latents reproduce connor-swiss-roll --budget
#   paper` does, and draws the codes of three other models beside these.
# * `guide="amortised"`: a network that is trained with the rest guesses coefficients, and a short
#   descent from there takes the place of the search.
# * `zoo.recipe("vaells-circles")`: two circles, four operators, and an anchor sum in the place of the
#   closest one.
# * Images as in the paper: `pyro-latents train vaells-rotated-digits` has convolutions, ten
#   dimensions, the phases and trial steps, and takes most of an hour.
