"""Time a training step of every story against a loop written by hand in PyTorch, in one run.

A loop by hand has the recipe's networks, batches, objective and optimiser, and neither Pyro nor
Lightning. The plain one, which the others are compared with, has them without what makes them
quick on a CPU: its weights are in the usual layout, and its transposed convolutions PyTorch's own.
`SVI` is Pyro's; the trainer runs as `pyro-latents train --eager` does, and as `pyro-latents train`
does, with captured steps; in bf16 too where the processor has its instructions. Making batches is
not timed. VAELLS has no loop by hand, since most of it would be the inference of coefficients,
phases and trial steps written once more: there the base is the eager trainer. Images are noise in
the shape of MNIST. The contestants take turns in short blocks, so that a machine whose speed
drifts treats them alike; the medians of the ratios of neighbouring blocks are printed. Times are
the processor's, of this process alone.

With `--profile` operations of a captured step are timed one by one in the place of the contest,
beside what the processor's rate of matrix products allows.

    python benchmarks/story_steps.py [--recipes vae-mnist ...] [--rounds 30] [--threads 1]
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import lightning_fabric
import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode
from turns import in_turns

from pyro_latents import SVI, captured, zoo
from pyro_latents.data.batches import Batches
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.guides.families import MIN_SCALE
from pyro_latents.losses.kernels import (
    RBF,
    InverseMultiquadric,
    mmd_squared,
    normal_mmd_squared,
)
from pyro_latents.losses.products import quicken_products
from pyro_latents.memory import keep_freed_memory
from pyro_latents.models.pose_tvae import CLIP
from pyro_latents.nets.conv import Conv, TransposedConv
from pyro_latents.nets.sets import Sets
from pyro_latents.programs import local_parameters
from pyro_latents.reproduce.experiment import processor
from pyro_latents.runs.recipe import Recipe
from pyro_latents.training.fit import check_hardware
from pyro_latents.training.loop import Loop
from pyro_latents.training.options import FitOptions
from pyro_latents.training.step import CAPTURED_FROM

KINDS = ("by_hand", "SVI", "eager", "captured", "bf16")
STEPS_PER_BLOCK = 10
LAST = 10**6
WARM_UP = 3  # rounds
PROFILED = 20
CLASSES = 10
# Losses by hand and by the recipe differ by their draws only.
EVALUATIONS, TOLERANCE = 5, 0.02

Batch = tuple[Any, ...]
Block = Callable[[], None]
Loss = Callable[..., Tensor]


def mean_field(head: nn.Module, features: Tensor) -> Normal:
    """A diagonal normal, its parameters unchecked as they are in a training."""
    loc, log_scale = head(features).chunk(2, dim=-1)
    return Normal(loc, log_scale.exp() + MIN_SCALE, validate_args=False)


def kl_to_standard(q: Normal) -> Tensor:
    """The divergence from a standard normal, summed."""
    return kl_divergence(q, Normal(torch.zeros_like(q.loc), 1.0, validate_args=False)).sum()


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Minus the log-likelihood of pixels, summed."""
    return binary_cross_entropy_with_logits(logits, x, reduction="sum")


def vae(model: Any, guide: Any, x: Tensor) -> Tensor:
    """The negative bound of a VAE."""
    q = mean_field(guide.families["z"].head, guide.encoder(x))
    return cross_entropy(model.decoder(q.rsample()), x) + kl_to_standard(q)


def triplet_tvae(model: Any, guide: Any, x: Tensor, x1: Tensor, x2: Tensor) -> Tensor:
    """Equation (3) of Giannone et al., with the recipe's weight of the discrepancies."""
    features = guide.encoder(torch.stack([x, x1, x2]))
    q0, q1, q2 = (mean_field(guide.view_family.head, part) for part in features)
    z0, z1, z2 = q0.rsample(), q1.rsample(), q2.rsample()
    codes = torch.cat([z1, z2], dim=-1)
    z = mean_field(guide.z_family.head, guide.z_features(codes)).rsample()
    T = guide.T_family.head(guide.T_features(codes))
    loss = kl_to_standard(q0)
    for code, image in ((z0, x), (z, x), (z1, x1), (z2, x2)):
        loss = loss + cross_entropy(model.decoder(code), image)
    scale = torch.full_like(z, model.transition_scale)
    coherence = len(x) * mmd_squared(z, torch.randn_like(z), InverseMultiquadric())
    for q, moved in ((q1, z + T), (q2, z - T)):
        pair = (q.loc, q.scale), (moved, scale)
        coherence = coherence + normal_mmd_squared(*pair, RBF()).sum()
    return loss + WEIGHT * coherence


def equivae(model: Any, guide: Any, x: Tensor, y: Tensor, sets: Sets) -> Tensor:
    """Equation (4) of Feige, of labelled points."""
    r = model.invariant(sets)
    q = mean_field(guide.v.head, guide.encoder(x, r))
    logits = model.decoder(torch.cat([r, q.rsample()], dim=-1))
    return cross_entropy(logits, x) + kl_to_standard(q) - model.class_weights.log()[y].sum()


def pose_tvae(model: Any, guide: Any, x: Tensor) -> Tensor:
    """Equation (9) of Vivé, with a point mass of the pose and no prior of it."""
    features = guide.encoder(x)
    q = mean_field(guide.z.head, features)
    pose = guide.u.head(features)
    pixels = model.warp(torch.sigmoid(model.decoder(q.rsample())), pose)
    return cross_entropy(torch.logit(pixels, eps=CLIP), x) + kl_to_standard(q)


# Settings are named where a loop by hand relies on them.
STORIES: dict[str, tuple[Loss | None, dict[str, Any]]] = {
    "vae-mnist": (vae, {}),
    "triplet-tvae-mnist": (triplet_tvae, {"transformation": "additive"}),
    "equivae-mnist": (equivae, {}),
    "pose-tvae-mnist": (pose_tvae, {"warp": "affine6", "pose_prior": "none"}),
    "vaells-swiss-roll": (None, {"candidates": 0}),
}
WEIGHT = zoo.recipes()["triplet-tvae-mnist"].coherence_weight


def build(name: str) -> Recipe:
    """A recipe on noise in the place of images, the same at each call."""
    recipe = zoo.recipe(name, as_published=True, **STORIES[name][1])
    if recipe.story.data == "mnist":
        return with_noise(recipe, STEPS_PER_BLOCK * recipe.story.batch_size)
    return recipe


def with_noise(recipe: Recipe, size: int) -> Recipe:
    """A recipe with so many images of noise in the place of its data."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size, *recipe.story.x_shape, generator=generator)
    part = Examples(x, torch.arange(size) % CLASSES)
    recipe.splits = Splits(part, part.take(slice(0)), part, num_classes=CLASSES)
    return recipe


def by_hand(recipe: Recipe, loss: Loss, batches: list[Batch]) -> Block:
    """A training loop as one would write it for this model alone."""
    model, guide = recipe.model, recipe.guide
    parameters = list(nn.ModuleList([model, guide]).parameters())
    optimizer = torch.optim.Adam(parameters, lr=recipe.story.learning_rate, fused=True)

    def block() -> None:
        for batch in batches:
            optimizer.zero_grad()
            value = loss(model, guide, *batch) / len(batch[0])
            value.backward()
            optimizer.step()
            # Every trainer looks at its loss, if only to see that it is a number.
            value.item()

    return block


def plain(recipe: Recipe) -> Recipe:
    """The recipe without its quicker layout and layers."""
    for program in (recipe.model, recipe.guide):
        program.to(memory_format=torch.contiguous_format)
        for module in program.modules():
            if isinstance(module, Conv):
                module.__class__ = nn.Conv2d
            if isinstance(module, TransposedConv):
                module.__class__ = nn.ConvTranspose2d
    return recipe


def by_svi(recipe: Recipe, batches: list[Batch]) -> Block:
    """The steps of Pyro's own SVI."""
    optim = pyro.optim.Adam({"lr": recipe.story.learning_rate})
    svi = SVI(recipe.model, recipe.guide, optim, recipe.loss)

    def block() -> None:
        for batch in batches:
            svi.step(*batch)

    return block


def captured_loop(recipe: Recipe, precision: str = "32-true", *, eager: bool = False) -> Loop:
    """The training loop of a recipe, from where on steps are captured."""
    options = FitOptions(steps=LAST, accelerator="cpu", precision=precision, progress=False)
    fabric = check_hardware(recipe, options, Path())
    fabric.launch()
    loop = Loop(fabric, recipe, Path(), eager=eager)
    loop.steps.last, loop.progress.step = LAST, CAPTURED_FROM
    return loop


def by_trainer(recipe: Recipe, batches: list[Batch], precision: str, *, eager: bool) -> Block:
    """The steps of `pyro-latents train`."""
    loop = captured_loop(recipe, precision, eager=eager)

    def block() -> None:
        for batch in batches:
            loop.progress.count(loop.step(batch))

    return block


def check_same_objective(recipe: Recipe, loss: Loss, batch: Batch) -> None:
    """See that the loss by hand is the recipe's, but for its draws."""
    model, guide = recipe.model, recipe.guide
    with torch.no_grad(), local_parameters(model, guide):
        ours = mean(recipe.loss.loss(model, guide, *batch) for _ in range(EVALUATIONS))
        hand = mean(loss(model, guide, *batch).item() for _ in range(EVALUATIONS))
    assert abs(hand - ours) <= TOLERANCE * abs(ours), f"{recipe.name}: {hand} by hand, not {ours}"


def contest(name: str, rounds: int, *, bf16: bool) -> dict[str, Any]:
    """Time the contestants of one story."""
    loss, _ = STORIES[name]
    recipe = build(name)
    source = Batches(recipe.batches(), recipe.story.batch_size, seed=0)
    batches = [source.batch(i) for i in range(STEPS_PER_BLOCK)]
    contestants: dict[str, Block] = {}
    if loss is not None:
        check_same_objective(recipe, loss, batches[0])
        contestants["plain"] = by_hand(plain(build(name)), loss, batches)
        contestants["by_hand"] = by_hand(recipe, loss, batches)
        contestants["SVI"] = by_svi(build(name), batches)
    contestants["eager"] = by_trainer(build(name), batches, "32-true", eager=True)
    contestants["captured"] = by_trainer(build(name), batches, "32-true", eager=False)
    if bf16 and loss is not None:
        contestants["bf16"] = by_trainer(build(name), batches, "bf16-mixed", eager=False)
    seconds = in_turns(contestants, rounds, warm_up=WARM_UP)
    base = next(iter(contestants))
    found: dict[str, Any] = {"milliseconds": 1e3 * median(seconds[base]) / STEPS_PER_BLOCK}
    for kind, measured in seconds.items():
        found[kind] = median(a / b for a, b in zip(measured, seconds[base], strict=True))
    return found


def profile(name: str) -> None:
    """Print where the time of a captured step goes, and what the processor could do at best."""
    recipe = build(name)
    source = Batches(recipe.batches(), recipe.story.batch_size, seed=0)
    batch = source.batch(0)
    optimizer = recipe.plan.build_optimizers()["all"]
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    step = captured(recipe.loss, recipe.model, recipe.guide, optimizer)
    for _ in range(2):
        step(*batch)
    (replayed,) = step._graphs.values()
    assert replayed is not None
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0] * PROFILED)

    class Timed(torch.fx.Interpreter):
        round = 0

        def run_node(self, n: torch.fx.Node) -> Any:
            began = time.process_time()
            value = super().run_node(n)
            if n.op == "call_function":
                seconds[str(n.target)][self.round] += time.process_time() - began
            return value

    timed = Timed(replayed._graph)
    # A loop by hand does the same work, by operations that are counted.
    with FlopCounterMode(display=False) as counter, local_parameters(recipe.model, recipe.guide):
        recipe.loss.differentiable_loss(recipe.model, recipe.guide, *batch).backward()
    with torch.no_grad():
        for timed.round in range(PROFILED):
            timed.run(*tree_flatten(batch)[0], *replayed.state)
    a = torch.randn(1024, 1024)
    product = make_fx(torch.mm)(a, a)
    quicken_products(product)
    gemm = []
    for _ in range(PROFILED):
        began = time.process_time()
        product(a, a)
        gemm.append(time.process_time() - began)
    rate, work = 2 * 1024**3 / min(gemm) / 1e9, counter.get_total_flops() / 1e9
    least = {target: min(times) for target, times in seconds.items()}
    whole = sum(least.values())
    print(
        f"{name}: {1e3 * whole:.1f} ms in {len(replayed._graph.graph.nodes)} nodes, {work:.2f} "
        f"GFLOP; a product of 1024 x 1024 matrices has {rate:.0f} GFLOP a second: "
        f"{1e3 * work / rate:.1f} ms at best"
    )
    for target, time_ in sorted(least.items(), key=lambda item: -item[1])[:12]:
        print(f"  {target:<52}{1e3 * time_:>8.2f} ms{100 * time_ / whole:>7.1f} %")


def has_bf16() -> bool:
    """Whether the processor has instructions for bfloat16."""
    path = Path("/proc/cpuinfo")
    return path.exists() and bool({"avx512_bf16", "amx_bf16"} & set(path.read_text().split()))


def main() -> None:
    """Run the contests and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=STORIES, default=list(STORIES))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="where captured steps spend it")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pyro.enable_validation(False)
    keep_freed_memory()
    if given.profile:
        for name in given.recipes:
            profile(name)
        return
    bf16 = has_bf16()
    print(f"{'recipe':<20}{'base, ms':>9}" + "".join(f"{kind:>10}" for kind in KINDS))
    stories = {}
    for name in given.recipes:
        stories[name] = found = contest(name, given.rounds, bf16=bf16)
        cells = [f"{found[kind]:.3f}" if kind in found else "-" for kind in KINDS]
        print(f"{name:<20}{found['milliseconds']:>9.2f}" + "".join(f"{c:>10}" for c in cells))
        sys.stdout.flush()
    result = {
        "rounds": given.rounds,
        "threads": given.threads,
        "stories": stories,
        "processor": processor(),
        "torch": torch.__version__,
        "lightning_fabric": lightning_fabric.__version__,
    }
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
