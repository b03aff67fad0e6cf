"""What a model that is checked costs where it is deployed."""

from __future__ import annotations

from torch import nn

from robustbench_local.data.images import Images
from robustbench_local.models.measured import latency, size
from robustbench_local.regression.outcome import Cost

BATCH = 32  # images of a question


def cost(model: nn.Module, images: Images) -> Cost:
    """Seconds for an image in batches of 32, and bytes on the disk."""
    taken = latency(model, images[:BATCH])
    return Cost(taken.seconds, taken.fastest, taken.slowest, size(model))
