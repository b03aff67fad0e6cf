"""Many small pictures in one: rows of square tiles, encoded as WebP."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

LARGEST = 96  # pixels of a tile's side; larger images are averaged down
QUALITY = 55  # of WebP: noise as attacks make it takes more bytes than all else
_PAPER = 0.5  # around images that are not square


def sprite(columns: Sequence[Tensor]) -> tuple[bytes, int]:
    """(WebP, side of a tile): an image a row, and a column for each of its pictures, (N, C, H, W) in [0, 1].

    Of C = 1 they are grey; of more than three channels the first three are shown.
    """
    tiles = torch.stack([_tiles(column) for column in columns], 1)  # (N, columns, 3, side, side)
    side = tiles.shape[-1]
    sheet = tiles.permute(0, 3, 1, 4, 2).reshape(len(tiles) * side, len(columns) * side, 3)
    file = io.BytesIO()
    pixels = (sheet.clamp(0, 1) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue(), side


def _tiles(images: Tensor) -> Tensor:
    """(N, 3, side, side) on the host."""
    images = images.detach().float().cpu()
    images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]
    images = pad(images, (0, 0, 0, 0, 0, 3 - images.shape[1]))
    height, width = images.shape[2:]
    if (longer := max(height, width)) > LARGEST:
        size = [max(1, round(side * LARGEST / longer)) for side in (height, width)]
        images = interpolate(images, size, mode="area")
        height, width = size
    side = max(height, width)
    above, left = (side - height) // 2, (side - width) // 2
    return pad(images, (left, side - width - left, above, side - height - above), value=_PAPER)
