"""Whatever a model returns, as logits (N, K): people's models return tuples, dicts, halves, and one logit for two."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_KEYS = ("logits", "scores", "output", "outputs", "out", "prediction", "predictions")  # the first that is there
HALVES = (torch.float16, torch.bfloat16)
_LEAST = 1e-37  # of a probability: its logarithm is finite in float32


def logits_of(returned: object) -> object:
    """The logits among what a model returned for N images, where there are some; anything else as it is.

    Of an object with an attribute `logits` that; of a dict the value of a usual key, or its only one; of a tuple or
    list the first; of halves float32; of one logit z an image, (N,) or (N, 1), the two of the classes 0 and 1,
    (-z/2, z/2), whose softmax is the sigmoid of z.
    """
    if isinstance(returned, Tensor):
        return _two_classes(returned.float() if returned.dtype in HALVES else returned)
    if isinstance(named := getattr(returned, "logits", None), Tensor):
        return logits_of(named)
    if isinstance(returned, Mapping):
        found = next((returned[key] for key in _KEYS if key in returned), None)
        if found is None and len(returned) == 1:
            found = next(iter(returned.values()))
        return logits_of(found) if found is not None else returned
    if isinstance(returned, tuple | list) and returned:
        return logits_of(returned[0])
    return returned


def log_probabilities(out: Tensor) -> Tensor:
    """The logarithms (N, K) of probabilities (N, K) over the classes; of one probability p an image, which `logits_of`
    made (-p/2, p/2) of, those of 1 - p and p.
    """
    if out.shape[1] == 2 and torch.equal(out[:, 0], -out[:, 1]):
        second = 2 * out[:, 1]
        out = torch.stack([1 - second, second], 1)
    return out.clamp_min(_LEAST).log()


def form_of(returned: object) -> str | None:
    """The form that `logits_of` took its logits from: "binary", "float16", "tuple"; None where they are as they are."""
    if not isinstance(returned, Tensor):
        return type(returned).__name__
    if returned.is_floating_point() and (returned.ndim == 1 or (returned.ndim == 2 and returned.shape[1] == 1)):
        return "binary"
    return str(returned.dtype).removeprefix("torch.") if returned.dtype in HALVES else None


def _two_classes(out: Tensor) -> Tensor:
    if not out.is_floating_point() or out.ndim not in (1, 2) or (out.ndim == 2 and out.shape[1] != 1):
        return out
    half = out.reshape(-1, 1) / 2
    return torch.cat([-half, half], 1)
