"""Observations scored at two values of a latent site in one run of a program."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_latents.programs import centre


class ScoredTwice(Messenger):
    """Runs a program with a second value at some latent sites, in a dimension left of all plates.

    What hangs on such a site has a log-density with two rows there, the first at the site's own
    value; all else is run once. The site itself is traced with its own value.

    Args:
        copies: The site whose value is the second one, by the name of the site: a site that is
            another one under the identity is scored at that one too.
        indirect: Sites whose second value is the centre of their distribution.
        nesting: Dimensions that plates take, counted from the right.
    """

    def __init__(self, copies: Mapping[str, str], indirect: Collection[str], nesting: int) -> None:
        super().__init__()
        self.copies = copies
        self.indirect = indirect
        self.nesting = nesting
        self._seen: dict[str, Tensor] = {}

    def __enter__(self) -> ScoredTwice:
        self._seen = {}
        return super().__enter__()

    def _pyro_post_sample(self, msg: Any) -> None:
        # The trace of the caller is further out: it has recorded the site's own value by now.
        name, value = msg["name"], msg["value"]
        if name in self.copies.values():
            self._seen[name] = value
        if name in self.copies:
            # Where there is no source yet, who asked for it is told later, of the whole trace.
            source = self._seen.get(self.copies[name], value)
            msg["value"] = self._both(value, source, msg["fn"].event_dim)
        elif name in self.indirect:
            msg["value"] = self._both(value, centre(msg["fn"]), msg["fn"].event_dim)

    def _both(self, value: Tensor, other: Tensor, event_dim: int) -> Tensor:
        value, other = torch.broadcast_tensors(value, other)
        ones = (1,) * (self.nesting + event_dim - value.dim())
        return torch.stack([value, other]).reshape(2, *ones, *value.shape)
