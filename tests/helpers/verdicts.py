"""A verdict that no attack made."""

from __future__ import annotations

import torch

from robustbench_local.core.verdict import Verdict


def a_verdict(**changes: object) -> Verdict:
    """On four images: one is robust, two are broken, and the last is wrong from the start."""
    bits = {"clean": [1, 1, 1, 0], "robust": [1, 0, 0, 0], "robust_8bit": [1, 1, 0, 0]}
    values: dict[str, object] = {name: torch.tensor(each, dtype=torch.bool) for name, each in bits.items()}
    values |= {
        "labels": torch.tensor([0, 1, 1, 0]),
        "ids": torch.arange(4),
        "x_adv": torch.zeros(4, 1, 2, 2),
        "distance": torch.tensor([0.3, 0.1, 0.2, 9.0]),
        "forwards": torch.tensor([41, 3, 5, 1]),
        "clean_scores": torch.zeros(4, 2),
        "scores": torch.zeros(4, 2),
        "backwards": torch.tensor([40, 2, 4, 0]),
        "flags": ("probabilities",),
        "seconds": 2.0,
    }
    return Verdict(**(values | changes))  # type: ignore[arg-type]
