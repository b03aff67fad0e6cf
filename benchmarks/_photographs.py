"""Folders of made-up photographs: any size, any format that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".tif")


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """Smooth colours that no other seed has."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def make_photographs(root: Path, count: int, *, classes: int = 2, smallest: int = 40, largest: int = 90) -> None:
    """ROOT/class0/0000.jpg and so on, each side between the two."""
    sides = np.random.default_rng(count).integers(smallest, largest, (count, 2))
    for k, (width, height) in enumerate(sides.tolist()):
        folder = root / f"class{k % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        photograph(k, width, height).save(folder / f"{k:04}{SUFFIXES[k % len(SUFFIXES)]}")
