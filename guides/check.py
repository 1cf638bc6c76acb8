"""Whether a guide fits a model, said before training in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Predictive
from pyro.poutine import Trace

from pyro_latents.errors import UserError
from pyro_latents.programs import (
    Site,
    latent_sites,
    local_parameters,
    plate_nesting,
    random_sites,
    vectorised,
)

PARTICLES = 3


class GuideMismatch(UserError):
    """A guide that does not fit its model; the message says which side to change."""


def check_guide(model: Callable, guide: Callable, *batch: Any) -> None:
    """Check that a guide has the latent sites of a model, as they are in the model.

    Guide and model run on the batch once, then with several vectorised particles, and at last in
    `pyro.infer.Predictive` with ``parallel=True``. No parameter changes, and the random state is
    put back.

    Args:
        model: The generative model, a function or a module.
        guide: The guide, with the same arguments.
        *batch: The arguments of both; a few data points are enough.

    Raises:
        GuideMismatch: if a latent site is missing, extra, of another event shape or in other
            plates, if it has batch dimensions outside of every plate, if the guide's values leave
            the model's support, or if one of the two cannot run with leading dimensions.

    Example:
        >>> check_guide(recipe.model, recipe.guide, x)  # doctest: +SKIP
    """
    # Pyro's own checks would stop at the first problem with a message of theirs.
    unchecked = pyro.validation_enabled(False)
    with torch.random.fork_rng(), torch.no_grad(), local_parameters(model, guide), unchecked:
        guide_trace, model_trace = _traces(model, guide, batch)
        _check_names(model_trace, guide_trace)
        for name, site in latent_sites(model_trace):
            if name in guide_trace.nodes:
                _check_site(name, site, guide_trace.nodes[name])
        _check_plates_hold_every_dimension(guide_trace, "guide")
        _check_plates_hold_every_dimension(model_trace, "model")
        _check_particles(model, guide, batch, plate_nesting(model_trace, guide_trace))
        _check_predictive(model, guide, batch)


def _traces(model: Callable, guide: Callable, batch: tuple[Any, ...]) -> tuple[Trace, Trace]:
    guide_trace = poutine.trace(guide).get_trace(*batch)
    try:
        model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*batch)
    except (RuntimeError, ValueError, IndexError) as error:
        # Values of the wrong shape may break the model; on its own it still tells its sites.
        model_trace = poutine.trace(model).get_trace(*batch)
        _check_names(model_trace, guide_trace)
        for name, site in latent_sites(model_trace):
            _check_event_shape(name, site, guide_trace.nodes[name])
        raise GuideMismatch(
            f"the model fails at the guide's values: {_line(error)}. Compare the shapes of the "
            "guide's sites with those of the model."
        ) from error
    return guide_trace, model_trace


def _check_names(model_trace: Trace, guide_trace: Trace) -> None:
    latent = dict(latent_sites(model_trace))
    held = dict(latent_sites(guide_trace))
    missing = [
        name for name, site in latent.items() if name not in held and not _marginalised(site)
    ]
    extra = [name for name in held if name not in latent]
    observed = [
        name
        for name in extra
        if name in model_trace.nodes and model_trace.nodes[name]["type"] == "sample"
    ]
    if observed:
        raise GuideMismatch(
            f"the guide samples {_listed(observed)}, observed in the model: remove it from the "
            "guide, or do not observe it in the model."
        )
    if missing and extra:
        raise GuideMismatch(
            f"the guide samples {_listed(extra)}, and the model {_listed(missing)} in its place: "
            "rename the site of the guide."
        )
    if missing:
        raise GuideMismatch(
            f"the guide does not sample {_listed(missing)}, latent in the model: add it to the "
            "guide, or observe it in the model."
        )
    if extra:
        raise GuideMismatch(
            f"the guide samples {_listed(extra)}, which the model does not have: remove it from "
            'the guide, or mark it with infer={"is_auxiliary": True}.'
        )


def _check_site(name: str, model_site: Site, guide_site: Site) -> None:
    _check_event_shape(name, model_site, guide_site)
    plates, theirs = _plates(model_site), _plates(guide_site)
    if plates != theirs:
        raise GuideMismatch(
            f"site {name!r} is in {_plates_in_words(plates)} in the model, and in "
            f"{_plates_in_words(theirs)} in the guide: sample it in the same `pyro.plate`s there."
        )
    support = getattr(model_site["fn"], "support", None)
    if support is not None and not bool(support.check(guide_site["value"]).all()):
        raise GuideMismatch(
            f"the guide's values of {name!r} lie outside of its support in the model, {support}: "
            "give the guide a distribution on that support."
        )


def _check_event_shape(name: str, model_site: Site, guide_site: Site) -> None:
    ours, theirs = model_site["fn"].event_shape, guide_site["fn"].event_shape
    if ours != theirs:
        raise GuideMismatch(
            f"site {name!r} has event shape {tuple(ours)} in the model and {tuple(theirs)} in "
            "the guide: change the guide's distribution, or its `.to_event(...)`."
        )


def _check_plates_hold_every_dimension(trace: Trace, where: str) -> None:
    for name, site in random_sites(trace):
        held = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
        shape = site["fn"].batch_shape
        for dim in range(-len(shape), 0):
            if shape[dim] != 1 and dim not in held:
                raise GuideMismatch(
                    f"site {name!r} of the {where} has a batch dimension {dim} of size "
                    f"{shape[dim]} outside of every plate: put it in a `pyro.plate` of the "
                    f"{where}, or make it a part of the event with `.to_event(...)`."
                )


def _check_particles(
    model: Callable, guide: Callable, batch: tuple[Any, ...], nesting: int
) -> None:
    with _explained("guide", f"{PARTICLES} vectorised particles"):
        guide_trace = poutine.trace(vectorised(guide, PARTICLES, nesting)).get_trace(*batch)
        guide_trace.compute_log_prob()
    with _explained("model", f"{PARTICLES} vectorised particles"):
        replayed = poutine.replay(vectorised(model, PARTICLES, nesting), guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*batch)
        model_trace.compute_log_prob()
    for where, trace in (("model", model_trace), ("guide", guide_trace)):
        for name, site in random_sites(trace):
            shape = site["log_prob"].shape
            sizes = {f.dim: f.size for f in site["cond_indep_stack"] if f.vectorized}
            wanted = tuple(sizes.get(dim, 1) for dim in range(-nesting - 1, 0))
            found = (1,) * (nesting + 1 - len(shape)) + tuple(shape)
            if any(f not in (1, w) for f, w in zip(found[-nesting - 1 :], wanted, strict=True)):
                raise GuideMismatch(
                    f"under {PARTICLES} vectorised particles the log-density of {name!r} in the "
                    f"{where} has shape {tuple(shape)}, not {wanted}: let the networks of the "
                    f"{where} take any leading dimensions."
                )


def _check_predictive(model: Callable, guide: Callable, batch: tuple[Any, ...]) -> None:
    with _explained("guide", "Predictive(parallel=True)"):
        draws = Predictive(guide, num_samples=PARTICLES, return_sites=None, parallel=True)(*batch)
    with _explained("model", "Predictive(parallel=True)"):
        names = [name for name, _ in latent_sites(poutine.trace(model).get_trace(*batch))]
        values = {name: draws[name] for name in names if name in draws}
        Predictive(poutine.uncondition(model), values, parallel=True)(*batch)


@contextmanager
def _explained(where: str, how: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, IndexError, NotImplementedError) as error:
        raise GuideMismatch(
            f"the {where} fails under {how}: {_line(error)}. Let its networks take any leading "
            "dimensions, and let plates hold every batch dimension."
        ) from error


def _marginalised(site: Site) -> bool:
    """Whether the model's own side takes a site out, by its sum or by its maximum."""
    return bool(site["infer"].get("enumerate") or site["infer"].get("maximize"))


def _plates(site: Site) -> dict[str, int]:
    return {frame.name: frame.size for frame in site["cond_indep_stack"] if frame.vectorized}


def _plates_in_words(plates: dict[str, int]) -> str:
    if not plates:
        return "no plate"
    return " and ".join(f"plate {name!r} of size {size}" for name, size in plates.items())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split()).rstrip(".")
