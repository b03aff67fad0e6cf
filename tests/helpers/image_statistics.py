"""Figures of what a corruption did to images, (N, H, W, C) levels, by which two renderings of it are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def change(clean: Any, seen: Any) -> Any:
    return (seen - clean).mean((1, 2, 3))


def length(clean: Any, seen: Any) -> Any:
    return np.sqrt(((seen - clean) ** 2).mean((1, 2, 3)))


def uprightness(clean: Any, seen: Any) -> Any:
    """Differences of neighbours, below less beside: what was blurred one way only has another."""
    below, aside = (np.abs(np.diff(seen, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
    return below - aside


def roughness(clean: Any, seen: Any) -> Any:
    """Differences of neighbours: what a texture has of every size."""
    below, aside = (np.abs(np.diff(seen, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
    return below + aside


STATISTICS: list[Callable[[Any, Any], Any]] = [change, length, uprightness, roughness]
