"""Images as the judge and a defense read them, wherever they come from."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Source(Protocol):
    """Images with labels: what a judge reads, data.Images or a user's tensors."""

    @property
    def labels(self) -> Tensor: ...
    @property
    def ids(self) -> Tensor: ...

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice | Tensor, /) -> Tensor: ...
