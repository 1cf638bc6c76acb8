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
# # 9. MCMC beside the guide
#
# An amortised guide gives the posterior of an image in one pass of its encoder, as near as its family
# and its training allow. Markov chain Monte Carlo takes seconds for the same image and, if its chains
# have converged, draws from the posterior itself. You will put the two side by side on one frozen
# model: Pyro's NUTS on one image, the batched Hamiltonian Monte Carlo of this package on twenty,
# ArviZ's diagnostics of the chains, and what they say about the guide.
#
# The code has two numbers, so that the posterior can be summed on a grid. This gives an exact
# answer to hold both against, which a larger code does not have.

# %%
# %matplotlib inline
import os
import tempfile
import time
from pathlib import Path

import arviz
import matplotlib.pyplot as plt
import pyro
import torch
import xarray
from pyro.distributions import Normal
from pyro.infer import MCMC, NUTS

from pyro_latents import zoo
from pyro_latents.programs import local_parameters

# The tests run this notebook in a short form.
SHORT = "PYRO_LATENTS_SHORT" in os.environ
EPOCHS, IMAGES, CHAINS = (5, 6, 4) if SHORT else (60, 20, 4)
WARM_UP, DRAWS = (5, 10) if SHORT else (100, 250)

# %% [markdown]
# ## One frozen model
#
# A VAE of the digits that come with scikit-learn, and the mean-field normal that was trained with it.
# From here on the model's parameters stay as they are: what is inferred is the code of a test image.

# %%
recipe = zoo.recipe("vae-digits", networks="dense", z_dim=2, seed=0)
run = recipe.train(Path(tempfile.mkdtemp()) / "model", epochs=EPOCHS, progress=False)
model = run.parts.model.requires_grad_(False)
x = run.parts.splits.test.x[:IMAGES]
q = run.posterior(x)["z"]

# %% [markdown]
# ## The exact posterior
#
# On a grid of codes with the spacing $h$,
#
# $$p(x) \approx h^2 \sum_z p(x, z), \qquad p(z \mid x) = p(x, z) \,/\, p(x),$$
#
# and the divergence of the guide, the gap of its bound, is
# $\mathrm{KL}(q \,\|\, p) = \mathbb{E}_q[\log q(z \mid x) - \log p(z \mid x)]$.

# %%
axis = torch.linspace(-4.5, 4.5, 61 if SHORT else 151)
codes, spacing = torch.cartesian_prod(axis, axis), axis[1] - axis[0]


def log_joint(z):
    """log p(x, z) of codes `n 2`, or `n images 2`, of shape `n images`."""
    z = z[:, None] if z.dim() == 2 else z
    prior = Normal(0.0, 1.0).log_prob(z).sum(-1)
    return prior + model.likelihood(model.decoder(z)).log_prob(x)


with torch.no_grad():
    joint = torch.cat([log_joint(part) for part in codes.split(250)])
    log_evidence = joint.logsumexp(0) + 2 * spacing.log()
    density = (joint - log_evidence).exp().reshape(len(axis), len(axis), -1)
    z = q.sample((1000,))
    divergence = (q.log_prob(z) - log_joint(z) + log_evidence).mean(0)
print(f"log p(x)        {log_evidence.mean():8.2f} nats, the mean over {IMAGES} images")
print(
    f"KL(q || p)      {divergence.mean():8.2f} nats, between {divergence.min():.2f} and {divergence.max():.2f}"
)

# %% [markdown]
# The guide costs 0.9 nats of the bound on average, and the average says little: for some images the
# guide is nearly exact, and for one it is almost seven nats off.
#
# ## NUTS on one image
#
# Any model of this package is a Pyro model, so `pyro.infer.NUTS` runs on it as it is. The chains begin
# with draws of the prior, far apart, so that their agreement means something. `local_parameters`
# keeps the weights with the model instead of in Pyro's global store.

# %%
IMAGE = 2


def chain(seed):
    pyro.set_rng_seed(seed)
    kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True)
    begin = {"z": torch.randn(1, 2)}
    mcmc = MCMC(kernel, DRAWS, WARM_UP, initial_params=begin, disable_progbar=True)
    mcmc.run(x[IMAGE : IMAGE + 1])
    return mcmc.get_samples()["z"][:, 0]


began = time.perf_counter()
with local_parameters(model):
    by_nuts = torch.stack([chain(seed) for seed in range(CHAINS)])
seconds = time.perf_counter() - began

began = time.perf_counter()
run.posterior(x[IMAGE])["z"].sample((CHAINS * DRAWS,))
by_guide = time.perf_counter() - began
print(f"{CHAINS} chains of NUTS  {seconds:8.3f} s")
print(f"the guide         {by_guide:8.3f} s")

# %% [markdown]
# ## Have the chains converged?
#
# $\hat R$ compares the variance between chains with that within them: it is near 1 where they have
# found the same distribution, and 1.01 is the usual limit for chains that are run until it is reached.
# The **effective sample size** (ESS) says how many independent draws the correlated ones are worth.
# ArviZ computes both for each coordinate.

# %%
chains = xarray.Dataset({"z": (("chain", "draw", "coordinate"), by_nuts.numpy())})
r_hat, ess = arviz.rhat(chains)["z"], arviz.ess(chains)["z"]
for i in range(2):
    print(
        f"coordinate {i}   r-hat {float(r_hat[i]):5.3f}   ESS {float(ess[i]):4.0f} of {CHAINS * DRAWS} draws"
    )

# %% [markdown]
# Look at what the chains did, beside the exact posterior: its regions of highest density, which hold 50
# and 95 per cent of it.


# %%
def frame(panel, image, *draws):
    p = density[..., image].T
    ordered = p.flatten().sort(descending=True).values
    held = ordered.cumsum(0) / ordered.sum()
    levels = [ordered[(held < share).sum()] for share in (0.95, 0.5)]
    panel.contour(axis, axis, p, levels=levels, colors="black", linewidths=1)
    inside = axis[(p > levels[0]).nonzero()].flip(1)
    shown = torch.cat([inside, *(d.reshape(-1, 2) for d in draws)])
    (left, low), (right, high) = shown.quantile(0.002, 0) - 0.2, shown.quantile(0.998, 0) + 0.2
    panel.set(xlim=(left, right), ylim=(low, high))


def dots(panel, draws, **options):
    draws = draws.reshape(-1, 2)
    few = draws[torch.linspace(0, len(draws) - 1, 250).long()]
    panel.plot(*few.T, ".", ms=3, alpha=0.7, **options)


figure, panels = plt.subplots(
    1, 3, figsize=(10, 3.2), layout="constrained", width_ratios=[1, 3, 3]
)
panels[0].imshow(1 - x[IMAGE, 0], cmap="gray")
panels[0].axis("off")
panels[1].plot(by_nuts[..., 0].T, lw=0.7)
panels[1].set(xlabel="draw", ylabel="$z_1$", title="four chains of NUTS")
frame(panels[2], IMAGE, by_nuts, z[:, IMAGE])
dots(panels[2], by_nuts, color="C0", label="NUTS")
dots(panels[2], z[:, IMAGE], color="C1", label="guide")
panels[2].set(xlabel="$z_1$", ylabel="$z_2$", title="draws and the exact posterior")
panels[2].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# The posterior is an arc, denser at its left end. The guide, a normal along the axes, lies across it:
# too much in the middle, too little at both ends. NUTS follows the arc, but crosses from one end to the
# other only now and then. This is what the diagnostics of $z_1$ say: a thousand draws are worth 150, and
# $\hat R$ is near 1.05. That is enough for a mean with an error of a twelfth of the posterior's width, and
# not enough for its tails: those need longer chains.
#
# ## Many images at once
#
# NUTS takes one image at a time. `pyro_latents.evaluation.reference` moves the chains of all images in one
# program, with a step size and a metric for each image. Its chains begin with draws of the guide, which
# are annealed to the posterior in a hundred steps. For a run, `reference` does this with the first test
# images and keeps the draws in the run's folder, where ArviZ opens them.

# %%
from pyro_latents.runs.references import reference

pyro.set_rng_seed(0)
began = time.perf_counter()
chains = reference(run, images=IMAGES).reference
print(
    f"{chains.draws['z'].shape[0]} chains an image  {(time.perf_counter() - began) / IMAGES:6.2f} s an image"
)
r_hat, ess = chains.r_hat["z"].amax(-1), chains.ess["z"].amin(-1)
print(
    f"r-hat             {r_hat.median():6.3f} of the median image, {r_hat.max():.3f} of the worst"
)
print(f"ESS               {ess.median():6.0f} of the median image, {ess.min():.0f} of the worst")
agreed = chains.is_agreed
print(f"chains agree      {int(agreed.sum()):6d} of {IMAGES} images")

# %% [markdown]
# "Agree" means, here, that $\hat R$ is at most 1.05 and the ESS at least 100 for each coordinate. The
# chains of most images do, and those of the median image are worth a thousand draws, in a fraction of the
# time that NUTS took. Those of three images do not, and an $\hat R$ of almost 5 is not mended by some more
# draws: the last section looks at it.
#
# ## Score the guide
#
# Where the chains agree, the guide is scored by its draws against theirs. To see what a score means,
# there is a second guide for the same model: `Refined` takes the first one's normal and moves its mean
# and its width by gradient steps on the bound of each image. What it wins is the **amortisation gap**,
# the encoder's part of the error. What is left is the gap of the family, normals along the axes.

# %%
from pyro_latents.evaluation.reference import score_against
from pyro_latents.guides.refined import Refined

guides = {
    "guide": run.parts.guide,
    "refined": Refined(model, run.parts.guide, steps=10 if SHORT else 100),
}
drawn, exact, scores = {}, {}, {}
for name, guide in guides.items():
    pyro.set_rng_seed(0)
    with local_parameters(model, guide), torch.no_grad():
        q = guide.posterior(x)["z"]
        drawn[name] = q.sample((1000,))
        exact[name] = (q.log_prob(drawn[name]) - log_joint(drawn[name]) + log_evidence).mean(0)
    scores[name] = score_against(chains, model, guide, x).by_name()

print(f"{'':<28}" + "".join(f"{name:>10}" for name in guides))


def row(title, values):
    print(f"{title:<38}" + "".join(f"{value.mean():10.2f}" for value in values))


row("KL(q || p), exact, where chains agree", [exact[name][agreed] for name in guides])
row("KL(q || p), exact, of all images", exact.values())
for score in scores["guide"]:
    row(score, [scores[name][score] for name in guides])

# %% [markdown]
# Read the column of the guide. Its means are off by half a standard deviation of the posterior. Its widths
# are right: `spread` is the ratio of the guide's standard deviation to the posterior's. Its central
# intervals of 50 and 90 per cent hold 44 and 86 per cent of the posterior. The **energy distance** compares
# the draws as a whole, and is zero where the distributions are the same; its unit is the posterior's
# standard deviation. `divergence` is the KL of two normals with the moments of the draws, in nats.
#
# The refined guide has the same family, and most of the error is gone: 0.13 nats are left of 0.45, and
# the means are off by a quarter of what they were. So it was the encoder that was at fault, not the
# family. Coverage hardly saw this: intervals of the right width cover much, also when they are off to a
# side.
#
# Beside the draws, the images of the smallest, the median and the largest energy distance of the guide.

# %%
energy = scores["guide"]["reference_energy_distance"]
images = agreed.nonzero()[:, 0][energy.argsort()]
chosen = images[[0, len(images) // 2, -1]].tolist()

figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for panel, image in zip(panels, chosen, strict=True):
    frame(panel, image, chains.draws["z"][:, :, image], drawn["guide"][:, image])
    dots(panel, chains.draws["z"][:, :, image], color="C0", label="chains")
    dots(panel, drawn["guide"][:, image], color="C1", label="guide")
    panel.set(
        title=f"energy distance {energy[agreed.nonzero()[:, 0] == image].item():.2f}",
        xlabel="$z_1$",
    )
panels[0].set(ylabel="$z_2$")
panels[2].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# Both scores can be held against the exact divergence, an image a dot:

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for name in guides:
    for panel, score in zip(panels, ("divergence", "energy_distance"), strict=True):
        panel.loglog(
            exact[name][agreed], scores[name][f"reference_{score}"], "o", ms=4, label=name
        )
        panel.set(xlabel="KL(q || p), exact, nats", ylabel=score.replace("_", " "))
panels[0].axline((0.1, 0.1), (1, 1), color="0.7", lw=1, zorder=0)
panels[1].legend(frameon=False)
plt.show()

# %% [markdown]
# They order the images much as the exact divergence does. Most dots of the left panel lie below the line,
# where the two would be equal: draws with the right mean and width look right to a KL of normals, although
# the posterior is an arc. The energy distance has no such line, and is a scale of its own. At the lower
# left dots scatter, where scores are as small as the error of some hundred effective draws.
#
# ## Where chains do not agree

# %%
worst = int(r_hat.argmax())
draws = chains.draws["z"][:, :, worst]
split = drawn["guide"][:, worst, 0].mean()
right = draws[..., 0] > split
mass = density[axis > split][..., worst].sum() / density[..., worst].sum()
print(f"r-hat {r_hat[worst]:.2f}, KL(q || p) of the guide {exact['guide'][worst]:.2f} nats")
print(
    f"right of the guide's mean: {mass:.0%} of the posterior, {right.float().mean():.0%} of the draws"
)
print("of each chain:", *(f"{share:.0%}" for share in right.float().mean(1)))

figure, panel = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
frame(panel, worst, draws, drawn["guide"][:, worst])
for chain in draws:
    panel.plot(*chain[::5].T, ".", ms=3)
dots(panel, drawn["guide"][:, worst], color="0.6", zorder=0)
panel.set(xlabel="$z_1$", ylabel="$z_2$", title="eight chains, and the guide in grey")
plt.show()

# %% [markdown]
# The image has two explanations, far apart. Each chain went to one of them when it was annealed, and stays
# there: within itself every chain looks converged, and only their comparison, $\hat R$, says otherwise. The
# shares of the draws say where chains began, not what the posterior is: most of it is on the right, and
# one chain of eight. Longer chains do not help, and no score is given for such an image.
#
# The guide lies between the two, where the posterior has nothing, and this image is its worst one. That is
# no accident: what is hard for chains is hard for a normal too. Look at the first two rows of the table
# again. Over the images with a reference the guide's divergence is 0.45 nats, over all of them 0.87: half
# of the error is in the three images that the scores leave out.
#
# ## What this says of a guide, and what not
#
# | | says | does not say |
# | --- | --- | --- |
# | $\hat R$, ESS | whether chains that were run agree, and how many draws they are worth | anything of the guide; or of a mode that no chain has visited |
# | mean error, spread, coverage | which way the guide is wrong | shape: an arc, two modes |
# | energy distance | how far the joint distributions are apart | how many nats that is |
# | divergence of moments | the same in nats, for posteriors near a normal | the rest of the KL; it is too small for others |
# | all scores | the error for images whose chains agree | the error for the others, which are the hard ones |
#
# With more than two or three latent numbers there is no grid. The count of images without a reference is
# then part of the result, and the gap of the bound by annealed importance sampling, which needs no
# agreement of chains, stands beside the scores.
#
# ## What to try next
#
# * `run.trusted_posterior(x)` decides for each image: the guide's draws where importance weights allow,
#   smoothed weights where these suffice, chains where not; and it says of which images none are to be trusted.
# * `pyro-latents reference RUN`, then `pyro-latents compare RUN OTHER`: the same scores for several guides
#   of one model, as in [tutorial 6](06_swap_the_guide.ipynb).
# * `zoo.recipe("vae-digits", model_from=run, guide="flow")`, whose normals bend: does it follow the arc, and
#   what does it do with two modes?
# * `z_dim=8`: how many of the images have a reference then?
