"""When two answers to one image are the same: a model rounds, the more coarsely the shorter its numbers are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SAME = 1e-3  # of the answers' range: float32 kernels differ with the batch's shape by a thousandth of this
COARSE = (torch.float16, torch.bfloat16)


def rounding(model: nn.Module, answers: Tensor) -> float:
    """The share of the answers' range that rounding may move them by: more where the model computes in half precision,
    as its weights or its answers (n, K) tell, each of which is then such a number.
    """
    kinds = {tensor.dtype for tensor in (*model.parameters(), *model.buffers())}
    finite = answers[answers.isfinite()]
    coarse = [kind for kind in COARSE if kind in kinds or torch.equal(finite, finite.to(kind).to(finite))]
    return max([SAME, *(4 * torch.finfo(kind).eps for kind in coarse)])


def moved(a: Tensor, b: Tensor, same: float = SAME) -> Tensor:
    """(n,) bool: whose answers (n, K) differ by more than rounding, this share of their range. NaN equals NaN."""
    span = (a.nan_to_num(0, 0, 0).amax() - a.nan_to_num(0, 0, 0).amin()).clamp_min(1e-30)
    alike = ((a - b).abs() <= same * span) | (a.isnan() & b.isnan()) | (a == b)
    return ~alike.all(1)
