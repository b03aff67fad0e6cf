"""JPEG as libjpeg does it (ITU-T T.81 with libjpeg's subsampling and smooth upsampling), for a batch on any device.

What a file would keep without loss, the entropy coding, is left out. Beside Pillow the mean difference is below 0.5
grey levels: the constants of the cosine transform are exact here and have 13 bits there, so that now and then a
coefficient is rounded to the other side.
"""

from __future__ import annotations

import functools
import io
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from robustbench_local.core.errors import ConfigError
from robustbench_local.ops.constants import constant
from robustbench_local.ops.separable import separable
from robustbench_local.ops.soft_rounding import smooth_round

Subsampling = Literal["4:2:0", "4:4:4"]
Surrogate = Literal["identity", "soft"]

# quantisation of brightness and of colour at quality 50, T.81 tables K.1 and K.2
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))

BLUR = 0.25  # of a quantisation step, see smooth_round: the attacker's best of 0.2 to 0.4, MNIST and CIFAR-10 together

_ROW = 4 * math.sqrt(8)  # one over the unit in which libjpeg keeps sums of rows or columns


def check_settings(qualities: tuple[int, ...], subsampling: str) -> None:
    for quality in qualities:
        if not 1 <= quality <= 100:
            raise ConfigError(f"quality is {quality}: it must be in [1, 100], as libjpeg counts")
    if subsampling not in ("4:2:0", "4:4:4"):
        raise ConfigError(f'subsampling "{subsampling}" is unknown: 4:2:0 or 4:4:4')


def compressed(x: Tensor, quality: int, subsampling: Subsampling) -> Tensor:
    """x (N, 1 or 3, H, W) in [0, 1], through JPEG and back: grey levels out of 255."""
    return _coded((x * 255).round(), quality, subsampling, hard=True).clamp(0, 255) / 255


def softly(x: Tensor, quality: int, subsampling: Subsampling) -> Tensor:
    """The same where only coefficients are rounded, smoothly, and nothing is clamped: neither stops a gradient.

    Were rounding passed over instead, the way there and back would be the identity, and pixels that the network does
    not look at would have no gradient; but through rounding every pixel of a block of 8 x 8 moves all the others.
    """
    return _coded(x * 255, quality, subsampling, hard=False) / 255


def by_pillow(x: Tensor, quality: int, subsampling: Subsampling) -> Tensor:
    """What Pillow's codec gives, image by image on the CPU."""
    from PIL import Image

    levels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    images = []
    for image in levels:
        file = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
            file, "jpeg", quality=quality, subsampling=subsampling
        )
        images.append(np.atleast_3d(np.asarray(Image.open(file))))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(x) / 255


def _whole(z: Tensor, hard: bool, bias: float | Tensor = 0.5) -> Tensor:
    """An integer where hard, as libjpeg's shifts give it: rounded down after a bias is added."""
    return (z + bias).floor() if hard else z


def _coefficient(z: Tensor, hard: bool) -> Tensor:
    """To the nearest integer, halves away from zero; or smoothly so."""
    return torch.copysign((z.abs() + 0.5).floor(), z) if hard else smooth_round(z, BLUR)


def _coded(levels: Tensor, quality: int, subsampling: Subsampling, hard: bool) -> Tensor:
    """levels in 0 .. 255 -> levels, not clamped."""
    channels = levels.shape[1]
    if channels == 1:
        return _plane(levels - 128, quality, _LUMA, hard) + 128
    if channels != 3:
        raise ConfigError(f"JPEG takes images of 1 or 3 channels, these have {channels}")
    luma, chroma = _whole(_mix(levels, _TO_YCC), hard).split((1, 2), 1)  # chroma about 0
    luma = _plane(luma - 128, quality, _LUMA, hard) + 128
    if subsampling == "4:4:4":
        chroma = _plane(chroma, quality, _CHROMA, hard)
    else:
        height, width = levels.shape[2:]
        down, across = (constant(levels, _halving, length) for length in (height, width))
        halved = _whole(
            separable(chroma, down, across), hard, constant(levels, _alternating, len(across), 1 / 4, 2 / 4)
        )
        up, along = (constant(levels, _doubling, length) for length in (height, width))
        doubled = separable(_plane(halved, quality, _CHROMA, hard), up, along)
        chroma = _whole(doubled, hard, constant(levels, _alternating, width, 8 / 16, 7 / 16))
    return _whole(_mix(torch.cat([luma, chroma], 1), _TO_RGB), hard)


def _mix(x: Tensor, weights: tuple[tuple[float, ...], ...]) -> Tensor:
    """Each channel of the result is a weighted sum of the channels of x."""
    return torch.einsum("kc,nchw->nkhw", constant(x, _matrix, weights), x)


def _matrix(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _plane(plane: Tensor, quality: int, table: tuple[tuple[int, ...], ...], hard: bool) -> Tensor:
    """One channel about 0 (-128 .. 127): cosine transform of 8 x 8 blocks, quantisation, and back.

    Edges are repeated to whole blocks. libjpeg keeps three bits of a coefficient, two more than a sum of rows has.
    """
    height, width = plane.shape[2:]
    down, across = (constant(plane, _cosines, length) for length in (height, width))
    back, along = (constant(plane, _blocks, length)[:length] for length in (height, width))
    step = constant(plane, _scaled, table, quality).repeat(len(down) // 8, len(across) // 8)
    exact = down @ _fixed(plane @ across.mT, _ROW, hard)
    kept = _coefficient(_fixed(exact, 8, hard) / step, hard) * step
    out = _whole(_fixed(back @ kept, _ROW, hard) @ along.mT, hard)
    return out.clamp(-128, 127) if hard else out


def _fixed(z: Tensor, scale: float, hard: bool) -> Tensor:
    """Kept in units of 1 / scale."""
    return _whole(z * scale, hard) / scale


def _scaled(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """The table at a quality of 1 .. 100, as libjpeg scales it."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.tensor([[min(max((entry * percent + 50) // 100, 1), 255) for entry in row] for row in table])


@functools.cache
def _blocks(length: int) -> Tensor:
    """The inverse transform of every whole or begun block of 8, (L, L) float64."""
    place = torch.arange(8, dtype=torch.float64)
    one = torch.cos((2 * place[:, None] + 1) * place * math.pi / 16) / 2
    one[:, 0] /= math.sqrt(2)
    whole: Tensor = torch.block_diag(*[one] * -(-length // 8))
    return whole


def _cosines(length: int) -> Tensor:
    """(L, length) float64: the edge repeated to whole blocks, then their transform."""
    transform = _blocks(length).mT
    folded = transform[:, :length].clone()
    folded[:, -1] += transform[:, length:].sum(1)
    return folded


def _halving(length: int) -> Tensor:
    """(ceil(length / 2), length) float64: means of pairs, a last odd one alone."""
    place = torch.arange(length)
    pairs = torch.zeros((length + 1) // 2, length, dtype=torch.float64)
    pairs[place // 2, place] = 0.5
    pairs[-1] /= pairs[-1].sum()
    return pairs


def _doubling(length: int) -> Tensor:
    """(length, ceil(length / 2)) float64: 3/4 of the nearer sample and 1/4 of the further, at the edge its own."""
    count = (length + 1) // 2
    place = torch.arange(length)
    further = (place // 2 + 2 * (place % 2) - 1).clamp(0, count - 1)
    weights = torch.zeros(length, count, dtype=torch.float64)
    weights[place, place // 2] += 0.75
    weights.index_put_((place, further), torch.tensor(0.25, dtype=torch.float64), accumulate=True)
    return weights


def _alternating(length: int, even: float, odd: float) -> Tensor:
    return torch.tensor([even, odd], dtype=torch.float64).repeat((length + 1) // 2)[:length]
