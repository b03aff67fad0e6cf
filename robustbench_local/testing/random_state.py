"""Global random numbers, which nothing here may draw: have they moved?"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator

import numpy as np
import torch


def state() -> dict[str, bytes]:
    """{whose: where it is}."""
    return {
        "torch's": torch.get_rng_state().numpy().tobytes(),
        "NumPy's": pickle.dumps(np.random.get_state()),
        "Python's": pickle.dumps(random.getstate()),
    }


def moved(before: dict[str, bytes]) -> Iterator[str]:
    """In words, whose have moved since."""
    now = state()
    yield from (f"{whose} global random numbers moved on" for whose, where in before.items() if now[whose] != where)
