"""How photographs of any size become images of one: turned upright, scaled, cut out of the middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from robustbench_local.core.errors import DataError

LARGEST = 4096  # pixels of a side


@dataclass(frozen=True)
class Transform:
    """resize: the length of the shorter side. crop: (height, width) out of the middle; without resize the picture is
    first scaled so that it just covers that. One of the two at least.

    As torchvision's Resize (bilinear, antialiased) and CenterCrop do to Pillow images, pixel for pixel; before that,
    the picture is turned as its EXIF orientation says.
    """

    resize: int | None = None
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.resize is None and self.crop is None:
            raise DataError("a transform needs resize, crop or both")
        sides = {"resize": (self.resize,), "crop": self.crop or ()}
        for name, given in sides.items():
            for side in given:
                if side is not None and not 1 <= side <= LARGEST:
                    raise DataError(
                        f"{name}={side} lies outside [1, {LARGEST}]: give pixels, as in resize=256, crop=224"
                    )
        if self.resize is not None and self.crop is not None and min(self.crop) > self.resize:
            height, width = self.crop
            raise DataError(
                f"a crop of {height}x{width} (height x width) does not fit into pictures whose shorter side is"
                f" resize={self.resize}: give a larger resize, as 256 for a crop of 224"
            )

    @classmethod
    def of(cls, resize: int | None, crop: int | Sequence[int] | None) -> Transform | None:
        """None where neither is given. crop: one side of a square, or (height, width)."""
        if resize is None and crop is None:
            return None
        if isinstance(crop, Sequence) and len(crop) != 2:
            raise DataError(
                f"crop={list(crop)} has {len(crop)} numbers: give one side, or height and width: [224, 160]"
            )
        return cls(resize, (crop, crop) if isinstance(crop, int) else (crop[0], crop[1]) if crop else None)

    def definition(self) -> dict[str, Any]:
        """What a row records of it, and the arguments of `open_data` that ask for it."""
        found = {"resize": self.resize, "crop": None if self.crop is None else list(self.crop)}
        return {name: value for name, value in found.items() if value is not None}

    def apply(self, image: Image.Image, mode: str, name: str) -> Image.Image:
        """The picture in that mode, transformed. DataError, with its name, where the crop does not fit into it."""
        upright = ImageOps.exif_transpose(image).convert(mode)
        width, height = size = self._scaled(*upright.size)
        if size != upright.size:
            if max(size) > 4 * LARGEST:
                raise DataError(
                    f"{name} is {upright.width}x{upright.height}: {width}x{height} after resizing is too long"
                )
            upright = upright.resize(size, Image.Resampling.BILINEAR)
        if self.crop is None:
            return upright
        rows, columns = self.crop
        if rows > height or columns > width:
            raise DataError(
                f"{name} is {width}x{height} (width x height) after resize={self.resize}, and the crop"
                f" {columns}x{rows}: give a larger resize, or leave it out to scale each picture to the crop"
            )
        left, top = round((width - columns) / 2), round((height - rows) / 2)
        return upright.crop((left, top, left + columns, top + rows))

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after scaling."""
        if self.resize is not None:
            shorter, longer = min(width, height), max(width, height)
            sides = self.resize, int(self.resize * longer / shorter)  # torchvision's rounding
            return sides if width <= height else sides[::-1]
        assert self.crop is not None  # see __post_init__
        rows, columns = self.crop
        if columns * height >= rows * width:  # the width decides
            return columns, max(rows, int(columns * height / width))
        return max(columns, int(rows * width / height)), rows


def arguments_of(transform: Transform | None) -> dict[str, Any]:
    """The arguments of `open_data` that ask for a transform, or for none."""
    return {} if transform is None else transform.definition()
