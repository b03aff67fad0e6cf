"""A sheet of tiles: each where the page looks for it, whatever the images' form."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustbench_local.gallery.sprite import LARGEST, sprite


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float64) / 255


def plain(*shades: float, shape: tuple[int, int, int]) -> Tensor:
    return torch.tensor(shades).view(-1, 1, 1, 1).expand(-1, *shape)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 224, 224), (4, 20, 20), (2, 16, 16)])
def test_a_row_an_image_and_a_column_a_picture(shape: tuple[int, int, int]) -> None:
    content, side = sprite([plain(0.1, 0.5, shape=shape), plain(0.3, 0.9, shape=shape)])
    assert side == min(max(shape[1:]), LARGEST) and content[8:12] == b"WEBP"
    sheet = pixels(content)
    assert sheet.shape == (2 * side, 2 * side, 3)
    middles = sheet[side // 2 :: side, side // 2 :: side, 0]
    assert np.abs(middles - [[0.1, 0.3], [0.5, 0.9]]).max() < 0.02


def test_images_that_are_not_square_are_whole_and_in_the_middle() -> None:
    content, side = sprite([plain(1.0, shape=(3, 40, 20))])
    sheet = pixels(content)
    assert side == 40 and sheet[:, 10:30].mean() > 0.97 and abs(sheet[:, :6].mean() - 0.5) < 0.03


def test_nine_noisy_photographs_take_some_kilobytes() -> None:
    noise = torch.rand(9, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    content, _ = sprite([noise] * 6)
    assert len(content) < 400_000
    small, _ = sprite([noise[:, :, :32, :32]] * 6)
    assert len(small) < 60_000
