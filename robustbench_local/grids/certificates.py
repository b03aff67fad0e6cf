"""What is certain of a model's images within a threat model: by bounds, or where it certifies itself, by sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_local.bounds.certify import certify
from robustbench_local.core.bound_methods import Method
from robustbench_local.core.containment import contained
from robustbench_local.core.defense import Defended
from robustbench_local.core.errors import ModelError
from robustbench_local.core.progress import Progress
from robustbench_local.core.source import Source
from robustbench_local.core.threat import TOLERANCE, Norm, ThreatModel
from robustbench_local.metrics.rates import rate
from robustbench_local.storage.npz import Array

_BLOCK = 50  # images between two words of progress


@dataclass(frozen=True)
class Certificate:
    """Of N images: certified (N,) bool, that no image of the ball is answered otherwise than the label.

    margin: (N,) lower bounds of z_y - max z_j over the ball; None of sampling, which gives radius (N,) of L2 instead,
    NaN where it certifies nothing. confidence: with which each image by itself is certified, None of a proof; draws:
    that each image took.
    """

    certified: Tensor
    margin: Tensor | None = None
    radius: Tensor | None = None
    confidence: float | None = None
    draws: int | None = None

    @property
    def bound(self) -> Tensor:
        """(N,), what was found of each: a margin, or a radius."""
        found = self.radius if self.margin is None else self.margin
        assert found is not None
        return found


def certificate(
    model: nn.Module, images: Source, threat: ThreatModel, method: Method, progress: Progress | None = None
) -> Certificate:
    """Of all images. BoundsError where none is known, with the reason."""
    found = []
    for start in range(0, len(images), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(images)))
        found.append(_certified(model, images[rows], images.labels[rows], images.ids[rows], threat, method))
        if progress is not None:
            progress.advance(f"{method} {threat}", rows.stop / len(images))
    return Certificate(
        certified=torch.cat([each.certified for each in found]),
        margin=_joined([each.margin for each in found]),
        radius=_joined([each.radius for each in found]),
        confidence=found[0].confidence,
        draws=found[0].draws,
    )


def arrays_of(found: Certificate, images: Source) -> dict[str, Array]:
    """{name: (N,)}: the images, which of them are certified, and the bound of each, rounded down."""
    kept = {"labels": images.labels, "ids": images.ids, "certified": found.certified}
    kept["radius" if found.margin is None else "margin"] = _rounded_down(found.bound)
    return {name: np.asarray(tensor.cpu().contiguous()) for name, tensor in kept.items()}


def summary_of(found: Certificate) -> dict[str, Any]:
    """The results of its row, but for the time it took."""
    share = rate(found.certified.cpu().double().numpy())
    return {
        "n": len(found.certified),
        "certified_accuracy": share.value,
        "certified_interval": [share.low, share.high],
        "confidence": found.confidence,
        "draws": found.draws,
    }


def _certified(model: nn.Module, x: Tensor, y: Tensor, ids: Tensor, threat: ThreatModel, method: Method) -> Certificate:
    with contained(ModelError, "the model"):
        if isinstance(model, Defended) and threat.norm is Norm.L2:
            sampled = model.certified_by_sampling(x, y, ids)
            if sampled is not None:
                reach = threat.eps + 2 * TOLERANCE * max(1.0, threat.eps)  # as far as a verdict may tolerate, see Ball
                inside = sampled.radii > reach  # never of NaN
                return Certificate(inside, radius=sampled.radii, confidence=sampled.confidence, draws=sampled.draws)
        bounds = certify(model, x, y, threat, method=method)
    return Certificate(bounds.certified, margin=bounds.margins)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _rounded_down(bound: Tensor) -> Tensor:
    """float32, never above what was found."""
    near = bound.float()
    return torch.where(near.double() > bound.double(), near.nextafter(torch.full_like(near, -torch.inf)), near)
