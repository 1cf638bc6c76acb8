"""Guides of one's own: an object, a factory that is given the model, or the path of a factory.

A factory is a class, or a function whose first argument is called ``model``; anything else that
can be called is a guide itself. Its import path, ``package.module:NAME``, is what a run keeps.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import nn

from pyro_latents.errors import UserError
from pyro_latents.programs import local_parameters, paired_traces, unconstrained


def is_path(guide: str) -> bool:
    """Whether a word is an import path and no name of a guide."""
    return ":" in guide


def imported(path: str) -> Callable:
    """Return the factory, or the function, that an import path names.

    Raises:
        UserError: if there is nothing, it fails when it is imported, or it is an object, whose
            parameters all runs of it would share.
    """
    module, _, name = path.partition(":")
    advice = "a guide's path is package.module:NAME, its package installed or on PYTHONPATH."
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise UserError(f"{path!r} is no import path: {advice}")
    try:
        found: Any = import_module(module)
    except Exception as error:  # whatever goes wrong in a package of someone's
        raise UserError(
            f"the guide {path} cannot be imported: {type(error).__name__}: {error}; {advice}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise UserError(f"{module} has no {name}: {advice}")
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        raise UserError(
            f"{path} is an object, whose parameters all its runs would share: give its class, or "
            "a function of the model that makes it."
        )
    if not callable(found):
        raise UserError(f"{path} is no guide, and nothing that makes one: {found!r}.")
    return found


def path_of(guide: Callable) -> str | None:
    """Return the import path of a class or function, None where Python would not find it there."""
    module, name = getattr(guide, "__module__", None), getattr(guide, "__qualname__", None)
    # What stands in a notebook or a script is not there in another process.
    if module in (None, "__main__") or name is None:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is guide else None


def name_of(guide: Callable) -> str:
    """Return what an object or a factory is called."""
    return getattr(guide, "__name__", type(guide).__name__)


def is_factory(guide: Callable) -> bool:
    """Whether it makes a guide of the model, and is none itself."""
    if isinstance(guide, type):
        return True
    if isinstance(guide, nn.Module):
        return False
    return next(iter(inspect.signature(guide).parameters), None) == "model"


def built(guide: Callable, model: Any) -> Callable:
    """Return a guide, made of the model where it is a factory.

    Raises:
        UserError: if the factory cannot be called with the model alone, fails, or makes no guide.
    """
    if not is_factory(guide):
        return guide
    name = name_of(guide)
    try:
        inspect.signature(guide).bind(model)
    except TypeError as error:
        raise UserError(
            f"{name} cannot be called with the model alone ({error}): let the model be its first "
            "argument, and give all others defaults."
        ) from error
    try:
        made = guide(model)
    except UserError:
        raise
    except Exception as error:  # whatever goes wrong in a package of someone's
        raise UserError(f"{name} fails at the model: {type(error).__name__}: {error}") from error
    if not callable(made):
        raise UserError(f"{name} makes no guide of the model, but {made!r}.")
    return made


def check_trainable(
    model: Any, guide: Callable, batch: tuple[Any, ...], smaller: tuple[Any, ...]
) -> None:
    """Raise a `UserError` unless all parameters of a guide would be trained, on any batch.

    Args:
        model: The model.
        guide: A guide that fits it.
        batch: The arguments of both, for a few data points.
        smaller: The same for fewer of them.
    """
    with torch.random.fork_rng(), torch.no_grad(), local_parameters(model, guide):
        trace = poutine.trace(guide).get_trace(*batch)
        if isinstance(guide, AutoGuide):
            _check_any_size(model, guide, smaller)
    modules = [program for program in (model, guide) if isinstance(program, nn.Module)]
    held = {id(parameter) for module in modules for parameter in module.parameters()}
    for name, site in trace.nodes.items():
        if site["type"] == "param" and id(unconstrained(site["value"])) not in held:
            raise UserError(
                f"the guide's parameter {name!r} is in Pyro's global store, and would not be "
                "trained: make the guide a `PyroModule` that holds it."
            )


def _check_any_size(model: Any, guide: Callable, batch: tuple[Any, ...]) -> None:
    try:
        paired_traces(model, guide, *batch)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{type(guide).__name__} has parameters of each data point of the one batch that it "
            "sees first, and a training draws others: give a guide with an encoder."
        ) from error
