"""What each diagnostic says of guides of one frozen model, some of them wrong on purpose.

    python benchmarks/good_guide.py [--out FOLDER] [--images N] [--epochs N]

The running example of the chapter "Is my guide any good?": a VAE of the embedded digits, trained
once with its own guide, then left as it is. Beside that guide stand a flow, trained for the frozen
model, and three that are spoilt: half as wide, moved aside, and the prior, which looks at no
image. Each diagnostic is asked of each guide. Written are ``good_guide.json`` and the ranks of the
calibration as a picture; seconds are those of one guide. Run again, it goes on with the trainings
that are in the folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyro
import torch
from matplotlib.figure import Figure
from pyro.distributions import Normal
from torch import Tensor, nn

from pyro_latents import zoo
from pyro_latents.checks import IMAGE_STATISTICS, replicates
from pyro_latents.data.batches import Plain
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation import annealed_evidence, evidence_interval, trusted_posterior
from pyro_latents.evaluation.bound import bound_by_point
from pyro_latents.evaluation.calibration import calibrate, kolmogorov_band, p_values
from pyro_latents.evaluation.calibration import symmetry_p_values as symmetry
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.evaluation.reference import reference_posterior, score_against
from pyro_latents.files import write_json
from pyro_latents.plots import save
from pyro_latents.reproduce.experiment import hardware

MEASURED = Path(__file__).resolve().parent.parent / "docs" / "measured"
# Small and quick, so that a reader has the same in a minute.
OPTIONS: dict[str, Any] = {"networks": "dense", "z_dim": 8, "seed": 0}
REFERENCES, SIMULATED, DRAWS = 20, 360, 200

Row = dict[str, Any]


def spoilt(of: nn.Module, *, width: float = 1.0, aside: float = 0.0) -> Callable[..., Tensor]:
    """Return another guide's normal as a guide, with other widths, and moved aside by some."""

    def guide(x: Tensor, **options: Any) -> Tensor:
        q = of.posterior(x)["z"].base_dist
        with pyro.plate("data", len(x), dim=-1):
            z = Normal(q.loc + aside * q.scale, width * q.scale)
            return pyro.sample("z", z.to_event(1))

    return guide


def prior(x: Tensor, **options: Any) -> Tensor:
    """Draw from the model's prior, whatever the image."""
    with pyro.plate("data", len(x), dim=-1):
        return pyro.sample("z", Normal(x.new_zeros(OPTIONS["z_dim"]), 1.0).to_event(1))


def guides(out: Path, epochs: int | None) -> tuple[Any, dict[str, Callable], Tensor]:
    """Return the frozen model, the guides by name, and the test images."""
    if not (out / "model").exists():
        zoo.recipe("vae-digits", **OPTIONS).train(out / "model", epochs=epochs)
    if not (out / "flow").exists():
        of_model = zoo.recipe("vae-digits", model_from=out / "model", guide="flow", seed=0)
        of_model.train(out / "flow", epochs=epochs)
    run, flow = zoo.open_run(out / "model"), zoo.open_run(out / "flow")
    paper = run.parts.guide
    found = {
        "paper": paper,
        "flow": flow.parts.guide,
        "half as wide": spoilt(paper, width=0.5),
        "moved aside": spoilt(paper, aside=1.0),
        "prior": prior,
    }
    return run.parts.model, found, run.parts.splits.test.x


def bound(model: Any, guide: Any, x: Tensor) -> Row:
    """The bound, of the first images."""
    elbo = bound_by_point(model, guide, Plain(Examples(x)), seed=0)["elbo"]
    return {"bound": _with_error(elbo)}


def importance(model: Any, guide: Any, x: Tensor) -> Row:
    """Importance sampling, and what its weights say of themselves."""
    found = log_evidence(model, guide, x, num_particles=1000)
    return {
        "IWAE, 1000 draws": _with_error(found.log_evidence),
        "k-hat above 0.7": f"{100 * found.is_unreliable(1000).double().mean():.0f} %",
        "draws worth, of 1000": f"{found.ess.median():.0f}",
    }


def annealing(model: Any, guide: Any, x: Tensor) -> Row:
    """Annealing, on the images and on simulated ones."""
    found = annealed_evidence(model, guide, x)
    lower, upper = evidence_interval(model, guide, x)
    elbo = bound_by_point(model, guide, Plain(Examples(x)), seed=0)["elbo"]
    return {
        "annealed": _with_error(found.log_evidence),
        "annealed less the bound": _with_error(found.log_evidence - elbo),
        "width of the interval": _with_error(upper - lower),
    }


def verdict(model: Any, guide: Any, x: Tensor) -> Row:
    """Where draws of the posterior come from."""
    shares = trusted_posterior(model, guide, x, num_temperatures=50).shares
    return {f"draws: {kind}": f"{share:.0f} %" for kind, share in shares.items()}


def calibration(model: Any, guide: Any, x: Tensor) -> Row:
    """The p-values of ranks on simulated data."""
    ranks = calibrate(model, guide, x[:SIMULATED], num_draws=DRAWS)
    return {
        "calibration, p": _p(p_values(ranks)["z"]),
        "its symmetry, p": _p(symmetry(ranks)["z"]),
    }


def predictive(model: Any, guide: Any, x: Tensor) -> Row:
    """The statistic of replicates that differs most from the images'."""
    found = replicates(
        model, guide, Plain(Examples(x)), IMAGE_STATISTICS, draws=DRAWS, progress=False
    )
    outside = found.outside()
    worst = max(outside, key=lambda name: outside[name])
    return {"replicates outside 95 %, worst": f"{100 * outside[worst]:.0f} % ({worst})"}


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/good-guide"))
    parser.add_argument("--epochs", type=int, help="of both trainings")
    parser.add_argument("--images", type=int, default=50, help="test images, the first ones")
    parser.add_argument("--written", type=Path, default=MEASURED, help="the folder of the figures")
    given = parser.parse_args()
    model, by_name, test = guides(given.out, given.epochs)
    x = test[: given.images]
    torch.manual_seed(0)
    began = time.perf_counter()
    # Chains that begin with the flow's draws: they hold for every guide.
    reference = reference_posterior(model, by_name["flow"], x[:REFERENCES])
    drawn = time.perf_counter() - began

    def against_reference(model: Any, guide: Any, x: Tensor) -> Row:
        """How near the guide is to the reference posteriors."""
        score = score_against(reference, model, guide, x[:REFERENCES])
        return {
            "centre off by": f"{score.mean_error.mean():.2f}",
            "spread": f"{score.spread.mean():.2f}",
            "90 % interval covers": f"{100 * score.coverage[90].mean():.0f} %",
            "energy distance": f"{score.energy_distance.mean():.2f}",
        }

    rows: dict[str, list[Any]] = {}
    asked: tuple[tuple[Callable[..., Row], Tensor, float], ...] = (
        (bound, x, 0.0),
        (importance, x, 0.0),
        (annealing, x, 0.0),
        (against_reference, x, drawn),
        (verdict, x, 0.0),
        (calibration, test, 0.0),
        (predictive, x, 0.0),
    )
    for diagnostic, images, seconds in asked:
        began = time.perf_counter()
        told = []
        for guide in by_name.values():
            torch.manual_seed(0)
            told.append(diagnostic(model, guide, images))
        spent = seconds + time.perf_counter() - began
        for name in told[0]:
            rows[name] = [*(row[name] for row in told), round(spent / len(told), 1)]
            print(name, *rows[name], sep="\t", flush=True)
    kept = {
        "command": "python benchmarks/good_guide.py",
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "said": f"the first {len(x)} test images, of which {REFERENCES} have reference posteriors "
        f"whose chains agree for {int(reference.is_agreed.sum())}; {SIMULATED} simulated images "
        "for the calibration.",
        "columns": ["ask", *by_name, "seconds a guide"],
        "rows": [[name, *cells] for name, cells in rows.items()],
    }
    given.written.mkdir(parents=True, exist_ok=True)
    write_json(given.written / "good_guide.json", kept)
    print(save(ranks_of(model, by_name, test), given.written / "good_guide_ranks.png"))


def ranks_of(model: Any, by_name: dict[str, Callable], test: Tensor) -> Figure:
    """Draw the distribution functions of ranks of every guide, less that of uniform ones."""
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    axes = figure.subplots(1, len(by_name), sharey=True)
    for axis, (name, guide) in zip(axes, by_name.items(), strict=True):
        torch.manual_seed(0)
        ranks = calibrate(model, guide, test[:SIMULATED], num_draws=DRAWS)["z"].double()
        count, coordinates = ranks.shape
        points, low, high = kolmogorov_band(count, 1 - 0.05 / coordinates)
        axis.fill_between(points, low - points, high - points, color="0.88", lw=0)
        for values in ranks.T:
            ordered = values.sort().values
            axis.plot(ordered, torch.arange(1, count + 1) / count - ordered, lw=0.8)
        axis.set(title=name, xlim=(0, 1), xlabel="rank of the truth")
        axis.set_xticks((0, 0.5, 1), labels=("0", "½", "1"))
    axes[0].set_ylabel("share below,\nless the rank")
    return figure


def _with_error(values: Tensor) -> str:
    error = values.double().std() / len(values) ** 0.5
    return f"{values.double().mean():.2f} ± {error:.2f}"


def _p(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else "below 0.01"


if __name__ == "__main__":
    main()
