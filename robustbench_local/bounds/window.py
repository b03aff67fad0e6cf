"""A window of an image's rows and columns: what a few values of a network hang on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Window(NamedTuple):
    """Rows top to bottom and columns left to right, the ends left out; it may hang over an image's edge."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Window:
        """All values of this shape. Where they are no image (C, H, W), there is no other window."""
        return cls(0, shape[1], 0, shape[2]) if len(shape) == 3 else cls(0, 0, 0, 0)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def read_by(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int] = (1, 1),
    ) -> Window:
        """What a kernel reads to make this window."""
        ends: list[int] = []
        for first, many, size, step, zeros, spread in zip(
            (self.top, self.left), self.sides, kernel, stride, padding, dilation, strict=True
        ):
            start = first * step - zeros
            ends += [start, start + (many - 1) * step + spread * (size - 1) + 1]
        return Window(*ends)

    def hull(self, other: Window) -> Window:
        """The smallest that holds both."""
        low, high = Window(*map(min, self, other)), Window(*map(max, self, other))
        return Window(low.top, high.bottom, low.left, high.right)

    def common(self, other: Window) -> Window:
        """What lies in both, if they meet."""
        low, high = Window(*map(min, self, other)), Window(*map(max, self, other))
        return Window(high.top, low.bottom, high.left, low.right)

    def meets(self, other: Window) -> bool:
        """Whether anything lies in both."""
        return all(side > 0 for side in self.common(other).sides)

    def padding_to(self, other: Window) -> tuple[int, int, int, int]:
        """What F.pad makes the other of it by: (left, right, top, bottom), negative where it is cut."""
        return self.left - other.left, other.right - self.right, self.top - other.top, other.bottom - self.bottom

    def of(self, values: Tensor) -> Tensor:
        """Of values (..., H, W), as a view; all along an axis over which they are only spread."""
        if values.ndim > 1 and values.shape[-2] > 1:
            values = values[..., self.top : self.bottom, :]
        if values.ndim > 0 and values.shape[-1] > 1:
            values = values[..., self.left : self.right]
        return values
