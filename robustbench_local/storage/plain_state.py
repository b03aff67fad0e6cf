"""A state dict of any network as tensors of ordinary numbers: quantised layers keep theirs in packed forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def plain_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same state in tensors that any program reads. One that holds nothing else is as it was.

    A quantised tensor becomes its whole numbers, under its name, with `.scale` and `.zero_point`; the members of tuples
    and of packed weights follow each other as `.0`, `.1`; a text, a number or a type becomes the bytes of its words.
    """
    return {key: tensor for name, value in state.items() for key, tensor in _plain(name, value)}


def _plain(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield from _quantised(name, value) if value.is_quantized else [(name, value)]
    elif isinstance(value, tuple | list):
        for place, item in enumerate(value):
            yield from _plain(f"{name}.{place}", item)
    elif isinstance(value, torch.ScriptObject):  # packed weights
        yield from _plain(name, value.__getstate__())
    else:
        yield name, torch.tensor(list(repr(value).encode()), dtype=torch.uint8)


def _quantised(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield name, value.int_repr()
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        yield f"{name}.scale", torch.tensor(value.q_scale(), dtype=torch.float64)
        yield f"{name}.zero_point", torch.tensor(value.q_zero_point())
    else:  # a scale for each channel
        yield f"{name}.scale", value.q_per_channel_scales()
        yield f"{name}.zero_point", value.q_per_channel_zero_points()
