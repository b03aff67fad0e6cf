"""Pictures for a page: an image as a data URI, with the words below it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

LARGE = 96 * 96  # pixels of an image that is shown with loss


@dataclass(frozen=True)
class View:
    """One picture with the words below it."""

    title: str
    uri: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One image and what became of it."""

    id: int
    label: str
    fate: str
    views: tuple[View, ...]


def picture(x: Tensor) -> str:
    """One image (C, H, W) in [0, 1]."""
    pixels = (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return encoded(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])


def change(x: Tensor, x_adv: Tensor) -> View:
    """What was added to an image (C, H, W), amplified around grey."""
    added = x_adv - x
    largest = float(added.abs().max())
    scale = 0.5 / largest if largest else 0.0
    return View("change", picture(0.5 + scale * added), (f"amplified ×{scale:.3g}" if scale else "no change",))


def encoded(pixels: npt.NDArray[np.uint8]) -> str:
    """A data URI: of small images every pixel, as PNG; of large ones JPEG, where noise takes a fifth of the bytes."""
    file, large = io.BytesIO(), pixels.shape[0] * pixels.shape[1] > LARGE
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if large:
        image.save(file, "JPEG", quality=90, subsampling="4:4:4")
    else:
        image.save(file, "PNG", optimize=True)
    return f"data:image/{'jpeg' if large else 'png'};base64,{base64.b64encode(file.getvalue()).decode()}"
