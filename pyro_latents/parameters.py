"""Modules for a while in another mode: with parameters of their own, or without dropout."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from pyro.nn import PyroModule
from torch import nn


@contextmanager
def local_parameters(*modules: object) -> Iterator[None]:
    """Run models and guides with the parameters that they hold themselves.

    In Pyro's default mode parameters live in a global store under names such as
    ``decoder$$$weight``: a second model of the same class in one process reads those of the first
    and silently does not learn. Everything in this package that trains or evaluates runs inside
    this context instead; Pyro's setting is put back at the end.

    Args:
        *modules: The models and guides that run in the context. Pyro prepares a module for this
            mode only if it was built in it; those that were not are prepared here. Functions
            pass.

    Example:
        >>> with local_parameters(model, guide):  # doctest: +SKIP
        ...     Trace_ELBO()(model, guide)(x).backward()
    """
    for module in modules:
        for child in module.modules() if isinstance(module, nn.Module) else ():
            if isinstance(child, PyroModule) and not hasattr(child._pyro_context, "param_state"):
                child._pyro_context.param_state = {"params": {}, "constraints": {}}
    with pyro.settings.context(module_local_params=True):
        yield


@contextmanager
def evaluation_mode(*programs: object) -> Iterator[None]:
    """Run models and guides in evaluation mode, and put each back into the mode it was in.

    Args:
        *programs: Models and guides; functions pass.
    """
    modules = [program for program in programs if isinstance(program, nn.Module)]
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.train(mode)
