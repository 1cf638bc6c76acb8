"""Numbers as a page has them: base64 of 16 or 32 bits each."""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch import Tensor


class Numbers:
    """The constants of a page, each kept once whoever uses it."""

    def __init__(self) -> None:
        self._content = {16: bytearray(), 32: bytearray()}
        self._places: list[tuple[int, int, int]] = []
        self._known: dict[tuple[int, bytes], int] = {}

    def add(self, value: Tensor, *, half: bool = False) -> int:
        """Keep a tensor, in 16 bits or in 32, and return its number."""
        bits, kind = (16, torch.float16) if half else (32, torch.float32)
        content = value.detach().cpu().to(kind).contiguous().numpy().tobytes()
        key = bits, content
        if key not in self._known:
            self._known[key] = len(self._places)
            # Where it begins and how long it is, in numbers.
            start = len(self._content[bits]) * 8 // bits
            self._places.append((bits, start, value.numel()))
            self._content[bits] += content
        return self._known[key]

    def as_json(self) -> dict[str, Any]:
        """Return what the page reads: the numbers, little-endian, and where each constant is."""
        packed = {
            f"bits{bits}": base64.b64encode(content).decode()
            for bits, content in self._content.items()
        }
        return {**packed, "places": self._places}
