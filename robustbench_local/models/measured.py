"""What a model costs where it is deployed: seconds for an image, bytes on the disk."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call, draws_for
from robustbench_local.core.device import synchronise
from robustbench_local.models.int8 import deployed_state
from robustbench_local.models.pruning import prunable


@dataclass(frozen=True)
class Latency:
    """Seconds for an image: the median of several repeats, the fastest and the slowest of them."""

    seconds: float
    fastest: float
    slowest: float
    repeats: int

    def __str__(self) -> str:
        low, middle, high = (1e3 * each for each in (self.fastest, self.seconds, self.slowest))
        return f"{middle:.3g} ms an image ({low:.3g} to {high:.3g} in {self.repeats} repeats)"


def latency(model: nn.Module, x: Tensor, *, repeats: int = 9, warmup: int = 2) -> Latency:
    """How long the model takes for an image of the batch x (N, C, H, W), on the device where x is, without gradients.

    The first `warmup` questions, which set things up, are not counted. It depends on N, on the number of threads and
    on what else the machine does: compare models on one machine, one after the other.
    """
    taken = []
    draws = draws_for(x, None)
    with torch.inference_mode():
        for _ in range(warmup + repeats):
            synchronise(x.device)
            started = time.perf_counter()
            call(model, x, draws[:])
            synchronise(x.device)
            taken.append((time.perf_counter() - started) / len(x))
    counted = taken[warmup:]
    return Latency(median(counted), min(counted), max(counted), repeats)


def size(model: nn.Module) -> int:
    """Bytes of the file that torch.save makes of the parameters, buffers and packed weights that are shipped.

    Of an int8 model the float network that gives its gradients is none of them. A pruned model is stored densely: its
    zeros take as much room as other weights (see `nonzero`).
    """
    file = io.BytesIO()
    torch.save({name: tensor.detach().clone() for name, tensor in deployed_state(model).items()}, file)
    return len(file.getvalue())


def nonzero(model: nn.Module) -> float:
    """The share of the float weights of convolutional and linear layers that is not 0; NaN where there are none."""
    weights = prunable(model)
    count = sum(weight.numel() for weight in weights)
    return sum(int(weight.count_nonzero()) for weight in weights) / count if count else float("nan")
