"""Pictures for a page: an image as a data URI, with the words below it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

_RAMP = ((243, 239, 230), (169, 208, 201), (27, 110, 106))
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


def amplified(x: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
    """(pictures (N, C, H, W), factors (N,)): what was added to images, amplified around grey as far as each can be; 0
    where nothing was.
    """
    added = x_adv - x
    largest = added.abs().flatten(1).amax(1)
    factors = torch.where(largest > 0, 0.5 / largest, 0)
    return 0.5 + factors.view(-1, 1, 1, 1) * added, factors


def change(x: Tensor, x_adv: Tensor) -> View:
    """What was added to an image (C, H, W)."""
    (shown,), (factor,) = amplified(x[None], x_adv[None])
    return View("change", picture(shown), (f"amplified ×{factor:.3g}" if factor else "no change",))


def heat(maps: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] of maps (N, H, W): from paper to teal, which all but the largest hundredth reach."""
    bright = maps.flatten(1).quantile(0.99, 1).clamp(min=torch.finfo(maps.dtype).tiny)
    share = (maps / bright[:, None, None]).clamp(0, 1)[:, None]
    paper, middle, teal = (torch.tensor(colour).view(3, 1, 1).to(maps) / 255 for colour in _RAMP)
    return torch.where(share < 0.5, torch.lerp(paper, middle, 2 * share), torch.lerp(middle, teal, 2 * share - 1))


def encoded(pixels: npt.NDArray[np.uint8]) -> str:
    """A data URI: of small images every pixel, as PNG; of large ones JPEG, where noise takes a fifth of the bytes."""
    file, large = io.BytesIO(), pixels.shape[0] * pixels.shape[1] > LARGE
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if large:
        image.save(file, "JPEG", quality=90, subsampling="4:4:4")
    else:
        image.save(file, "PNG", optimize=True)
    return f"data:image/{'jpeg' if large else 'png'};base64,{base64.b64encode(file.getvalue()).decode()}"
