"""Corruptions beside independent renderings of the published formulas, by NumPy, SciPy, Pillow and scikit-image."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from skimage import feature
from torch import Tensor

from benchmarks._published import RENDERINGS
from robustbench_local.attacks.corruptions._edges import canny
from robustbench_local.attacks.corruptions._plasma import clouds, plasma
from robustbench_local.attacks.corruptions.blur import along
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws
from tests.helpers.wrapping import digits, photos

Picture = npt.NDArray[Any]  # (H, W, C) float64 in [0, 1]
LEVEL = 1 / 255


def corruption(name: str, severity: int) -> Corruption:
    found = find_attack(name, {"severity": severity})
    assert isinstance(found, Corruption)
    return found


def exactly(name: str, severity: int, x: Tensor) -> Tensor:
    """Before it is rounded to 256 levels."""
    return corruption(name, severity).corrupt(x, Draws(0, torch.arange(len(x)))).clamp(0, 1)


def pictures(x: Tensor) -> list[Picture]:
    return list(x.double().permute(0, 2, 3, 1).numpy())


# how far at most, and on average; codecs differ by a rounded coefficient now and then
DETERMINISTIC: dict[str, tuple[float, float]] = dict.fromkeys(
    ("defocus_blur", "gaussian_blur", "zoom_blur", "brightness", "saturate", "contrast", "pixelate"), (1e-5, 1e-6)
) | {"jpeg_compression": (80 * LEVEL, 0.5 * LEVEL)}


def rendered(name: str, severity: int, x: Tensor) -> Picture:
    """(N, H, W, C) in [0, 1], as the published formula has it before it is cut to 256 levels."""
    rng = np.random.default_rng(0)
    return np.stack([RENDERINGS[name](image, severity, rng) for image in pictures(x)]) / 255


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_cifar_10_cs_deterministic_ones_are_the_published_formulas(name: str, severity: int) -> None:
    most, mean = DETERMINISTIC[name]
    x = photos(6)
    expected = rendered(name, severity, x)
    difference = np.abs(np.stack(pictures(exactly(name, severity, x))) - expected)
    assert difference.max() <= most and difference.mean() <= mean
    other = exactly(name, severity % 5 + 1, x)  # the constants of another severity are told apart
    assert np.abs(np.stack(pictures(other)) - expected).mean() > mean


def test_grey_and_black_have_the_hue_and_saturation_that_colorsys_gives_them() -> None:
    x = torch.tensor([[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1], [0.2, 0, 0]]).T.view(1, 3, 2, 2).contiguous()
    for name, channel, severity, factor, offset in (
        ("brightness", 2, 1, 1, 0.05),
        ("brightness", 2, 5, 1, 0.3),
        ("saturate", 1, 1, 0.3, 0),
        ("saturate", 1, 5, 2.5, 0.2),
    ):
        seen = pictures(exactly(name, severity, x))[0]
        for place in np.ndindex(2, 2):
            hsv = list(colorsys.rgb_to_hsv(*pictures(x)[0][place]))
            hsv[channel] = min(max(hsv[channel] * factor + offset, 0), 1)
            assert np.allclose(seen[place], colorsys.hsv_to_rgb(*hsv), atol=1e-6)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_glass_blur_is_the_published_loop_over_the_same_draws(severity: int) -> None:
    sigma, turns = [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)][severity - 1]
    x = photos(3)
    draws = Draws(0, torch.arange(3))
    steps = [draws.integers(4, 30, 30).numpy() for _ in range(turns)]
    for number, image in enumerate(pictures(x)):
        pixels = np.floor(255 * ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest") + 1e-4) / 255
        for step in steps:
            for h in range(31, 1, -1):
                for w in range(31, 1, -1):
                    dx, dy = -(step[number, h - 2, w - 2] & 1), -(step[number, h - 2, w - 2] >> 1)
                    # as published: both names are views of one array, and only one pixel changes
                    pixels[h, w], pixels[h + dy, w + dx] = pixels[h + dy, w + dx], pixels[h, w]
        expected = ndimage.gaussian_filter(pixels, (sigma, sigma, 0), mode="nearest")
        assert np.allclose(pictures(exactly("glass_blur", severity, x))[number], expected, atol=1e-5)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_mnist_cs_glass_blur_swaps_one_pixel_after_another(severity: int) -> None:
    sigma, reach, turns = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][severity - 1]
    x = digits(2)
    draws = Draws(0, torch.arange(2))
    moves = []
    for _ in range(turns):
        step = (draws.integers(2 * reach, 2, 784) - reach).view(2, 2, 28, 28).numpy()
        moves.append((step, draws.integers(2, 784).view(2, 28, 28).numpy()))
    for number, image in enumerate(pictures(x)):
        pixels = np.floor(255 * ndimage.gaussian_filter(image[:, :, 0], (sigma, 0), mode="nearest") + 1e-4) / 255
        for step, coin in moves:
            for h in range(28 - reach, reach, -1):
                for w in range(28 - reach, reach, -1):
                    if coin[number, h, w]:
                        there = h + step[number, 0, h, w], w + step[number, 1, h, w]
                        pixels[h, w], pixels[there] = pixels[there], pixels[h, w]
        expected = ndimage.gaussian_filter(pixels, (sigma, 0), mode="nearest")
        assert np.allclose(pictures(exactly("mnist_glass_blur", severity, x))[number][:, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize(("radius", "sigma"), [(6, 1), (8, 2), (9, 2.5), (10, 3)])
def test_motion_blur_adds_up_the_image_along_a_line(radius: int, sigma: float) -> None:
    x, angles = photos(5), [-45.0, -17.0, 0.0, 30.0, 45.0]
    found = pictures(along(x, radius, sigma, torch.tensor(angles)))
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    for image, angle, seen in zip(pictures(x), angles, found, strict=True):
        total = np.zeros_like(image)
        for i, weight in enumerate(weights / weights.sum()):
            down, right = (
                math.ceil(i * way - 0.5) for way in (math.sin(math.radians(angle)), math.cos(math.radians(angle)))
            )
            rows, columns = (np.clip(np.arange(32) + by, 0, 31) for by in (down, right))
            total += weight * image[rows][:, columns]
        assert np.abs(total - seen).max() < 0.1 * LEVEL  # what is left out of the tail
    assert (along(x, radius, sigma, -torch.tensor(angles)) - along(x, radius, sigma, torch.tensor(angles))).std() > 0.01


@pytest.mark.parametrize("severity", [1, 2, 5])
def test_elastic_transform_moves_three_points_and_then_every_pixel(severity: int) -> None:
    reach, sigma, corner = [(0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)][
        severity - 1
    ]
    x = photos(3)
    draws = Draws(0, torch.arange(3))
    points = 16.0 + 10 * np.array([[1, 1], [-1, 1], [-1, -1]])  # (row, column)
    moved = points + (2 * draws.uniform(3, 2).double().numpy() - 1) * corner
    field = 2 * draws.uniform(2, 32, 32).double().numpy() - 1 if reach else np.zeros((3, 2, 32, 32))
    places = np.stack([*np.mgrid[0:32, 0:32]], -1).reshape(-1, 2)
    for number, image in enumerate(pictures(x)):
        back = np.linalg.solve(np.c_[moved[number], np.ones(3)], points)
        source = (np.c_[places, np.ones(1024)] @ back).T.reshape(2, 32, 32)
        bent = [ndimage.map_coordinates(plane, source, order=1, mode="mirror") for plane in np.moveaxis(image, 2, 0)]
        push = [reach * ndimage.gaussian_filter(f, sigma, mode="reflect", truncate=3) for f in field[number]]
        there = np.mgrid[0:32, 0:32] + np.stack(push)
        expected = np.stack([ndimage.map_coordinates(plane, there, order=1, mode="reflect") for plane in bent], 2)
        assert np.abs(pictures(exactly("elastic_transform", severity, x))[number] - expected).max() < 1e-3


def test_elastic_transform_moves_the_points_that_opencv_would() -> None:
    """Severity 1 is that map alone: OpenCV's of the same three points, which are (x, y) there."""
    x = photos(20)
    points = np.array([[26, 26], [26, 6], [6, 6]], np.float32)
    moved = points + 2.56 * (2 * Draws(0, torch.arange(20)).uniform(3, 2).flip(2).numpy() - 1)
    for image, there, seen in zip(pictures(x), moved, pictures(exactly("elastic_transform", 1, x)), strict=True):
        matrix = cv2.getAffineTransform(points, there.astype(np.float32))
        expected = cv2.warpAffine(image.astype(np.float32), matrix, (32, 32), borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(seen - expected).mean() < 0.3 * LEVEL  # versions of OpenCV round places to 1/32 of a pixel


def test_a_plasma_is_diamonds_and_squares() -> None:
    """Size 4, point by point: each new one is the mean of its four neighbours, which wrap around, and its own noise."""
    noise = (2 * Draws(0, torch.arange(2)).uniform(15) - 1).double().numpy()
    found = plasma(4, 2.0, Draws(0, torch.arange(2))).double().numpy()
    for each, map_ in zip(noise, found, strict=True):
        grid = np.zeros((4, 4))
        grid[2, 2] = grid[0, 0] + each[0]
        grid[0, 2] = (2 * grid[0, 0] + 2 * grid[2, 2]) / 4 + each[1]
        grid[2, 0] = (2 * grid[0, 0] + 2 * grid[2, 2]) / 4 + each[2]
        fine = (each[3:] / 2).reshape(3, 2, 2)
        for i, j in np.ndindex(2, 2):
            h, w = 2 * i, 2 * j
            grid[h + 1, w + 1] = (
                np.mean([grid[h, w], grid[h, w - 2], grid[h - 2, w], grid[h - 2, w - 2]]) + fine[0, i, j]
            )
        for i, j in np.ndindex(2, 2):
            h, w = 2 * i, 2 * j
            grid[h, w + 1] = (
                np.mean([grid[h, w], grid[h, w - 2], grid[h - 1, w + 1], grid[h - 3, w + 1]]) + fine[1, i, j]
            )
            grid[h + 1, w] = (
                np.mean([grid[h, w], grid[h - 2, w], grid[h + 1, w - 1], grid[h + 1, w - 3]]) + fine[2, i, j]
            )
        assert np.allclose(map_, (grid - grid.min()) / (grid.max() - grid.min()), atol=1e-5)


@pytest.mark.parametrize("severity", [1, 5])
def test_fog_and_frost_mix_their_texture_in_by_the_published_formula(severity: int) -> None:
    x = photos(4)
    thickness, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][severity - 1]
    layer = np.stack(pictures(clouds(x, decay**2, Draws(0, torch.arange(4)))))
    most = x.amax((1, 2, 3)).double().numpy().reshape(-1, 1, 1, 1)
    expected = (np.stack(pictures(x)) + thickness * layer) * most / (most + thickness)
    assert np.allclose(np.stack(pictures(exactly("fog", severity, x))), np.clip(expected, 0, 1), atol=1e-5)
    kept, added = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][severity - 1]
    frosted = exactly("frost", severity, x)
    ice = exactly("frost", severity, torch.zeros_like(x)) / added
    assert torch.allclose(frosted, (kept * x + added * ice).clamp(0, 1), atol=1e-5)
    assert 0.2 < ice.mean() < 0.7 and (ice[:, 2] >= ice[:, 0]).all()  # bluish, and neither bare nor a wall


@pytest.mark.parametrize("name", ["shear", "rotate", "scale", "translate"])
@pytest.mark.parametrize("severity", [1, 2, 3, 5])
def test_mnist_cs_maps_are_scipys(name: str, severity: int) -> None:
    x = digits(4)
    found = np.stack(pictures(exactly(name, severity, x)))[..., 0]
    level = {"scale": [0.9, 0.8, 0.7, 0.6, 0.5]}.get(name, [0.2, 0.4, 0.6, 0.8, 1.0])[severity - 1]
    for image, seen in zip(pictures(x), found, strict=True):
        candidates = []
        for sign in (-1, 1):
            angle = sign * level
            offset = np.zeros(2)
            matrix = {  # over (row, column), where scikit-image has (column, row)
                "shear": np.array([[math.cos(angle), 0], [-math.sin(angle), 1]]),
                "rotate": np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]),
                "scale": np.eye(2) / level,
                "translate": np.eye(2),
            }[name]
            middle = np.array([13.5, 13.5])
            offsets = [(sign * severity, other * severity) for other in (-1, 1)] if name == "translate" else [offset]
            for by in offsets:
                shift = middle - matrix @ middle + np.array(by)
                candidates.append(
                    ndimage.affine_transform(image[:, :, 0], matrix, shift, order=1, mode="grid-constant")
                )
        assert min(np.abs(seen - each).max() for each in candidates) < 1e-4


def test_stripes_lines_and_zigzags_are_where_mnist_c_draws_them() -> None:
    x = digits(5)
    striped = exactly("stripe", 3, x)
    assert torch.equal(striped[..., :7], 1 - x[..., :7]) and torch.equal(striped[..., 21:], 1 - x[..., 21:])
    assert torch.equal(striped[..., 7:21], x[..., 7:21])
    black = torch.zeros_like(x)
    ends = Draws(0, torch.arange(5)).integers(27, 2).numpy()
    for number, image in enumerate(pictures(exactly("dotted_line", 1, black))):
        rows, columns = np.mgrid[0:28, 0:28]
        far = np.abs(rows - (ends[number, 0] + (ends[number, 1] - ends[number, 0]) / 27 * columns))
        line = np.clip(1 + np.log(1 - np.clip(far, 0, 2.3 - 1e-6) / 2.3), 0, 1)
        line[:, 27:] = 0
        assert np.allclose(image[:, :, 0], line * (columns // 2 % 2 == 1), atol=1e-5)
    draws = Draws(0, torch.arange(5))
    starts, tilts = draws.integers(27).numpy(), draws.integers(10).numpy() - 5
    for start, tilt, image in zip(starts, tilts, pictures(exactly("zigzag", 1, black)), strict=True):
        assert np.allclose(image[:, :, 0], zigzag(start, tilt), atol=1e-5)


def zigzag(start: float, tilt: float) -> Picture:
    """White on black: corners 2 above and below a line from (column 2, row start) to (25, start + tilt), every 4."""
    theta = math.atan(tilt / 23)
    length = 23 / math.cos(theta)
    corners = [(0.0, 0.0), *((2 + 4 * i, 2 * (-1) ** i) for i in range(6)), (length, -2 / (2 * (length - 20)))]
    turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    points = np.array(corners) @ turn.T + [2, start]
    drawn = np.zeros((28, 28))
    for (c0, r0), (c1, r1) in pairwise(points):
        for row, column in np.ndindex(28, 28):
            far = abs(row - (r0 + (r1 - r0) / (c1 - c0) * (column - c0)))
            if math.floor(c0) <= column < math.ceil(c1) and far < 2.3:
                drawn[row, column] = min(1.0, float(drawn[row, column]) + max(0.0, 1 + math.log(1 - far / 2.3)))
    return drawn


def test_canny_edges_are_scikit_images() -> None:
    x = digits(30)
    found = np.stack(pictures(exactly("canny_edges", 1, x)))[..., 0]
    expected = np.stack([feature.canny(image[:, :, 0]) for image in pictures(x)])
    assert (found == expected).all()
    naive = canny(x, low=0.1, high=0.2).squeeze(1).numpy()  # without the blur before, another picture
    assert (naive == expected).mean() < 0.99


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_shot_noise_is_poisson(rate: float) -> None:
    level = round(rate * 255) / 255
    x = torch.full((40, 1, 32, 32), level)
    for severity, grains in ((1, 500), (5, 50)):
        counts = (corruption("shot_noise", severity).corrupt(x, Draws(1, torch.arange(40))) * grains).round().flatten()
        for k in (stats.poisson.ppf(share, level * grains) for share in (0.01, 0.2, 0.5, 0.9, 0.99)):
            share, expected = float((counts <= k).double().mean()), stats.poisson.cdf(k, level * grains)
            assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / counts.numel())


MOMENTS: list[tuple[str, int, Callable[[float], float]]] = [
    ("gaussian_noise", 3, lambda v: 0.08**2),
    ("speckle_noise", 3, lambda v: (0.12 * v) ** 2),
    ("shot_noise", 3, lambda v: v / 100),
    ("sensor_noise", 3, lambda v: v / 150 + (6 / 150) ** 2),
    ("mnist_shot_noise", 1, lambda v: v / 60),
]


@pytest.mark.parametrize(("name", "severity", "variance"), MOMENTS)
def test_noise_has_the_published_moments(name: str, severity: int, variance: Callable[[float], float]) -> None:
    for level in (0.2, 0.6):
        x = torch.full((30, 3, 32, 32), level)
        values = corruption(name, severity).corrupt(x, Draws(2, torch.arange(30))).double()
        assert abs(values.mean() - level) < 4 * math.sqrt(variance(level) / values.numel())
        assert abs(float(values.var()) / variance(level) - 1) < 0.03
        planes = values - values.mean()
        assert abs(float((planes[:, 0] * planes[:, 1]).mean())) / variance(level) < 0.03  # channels apart


@pytest.mark.parametrize(("name", "severity", "share"), [("impulse_noise", 3, 0.03), ("mnist_impulse_noise", 4, 0.17)])
def test_impulses_replace_their_share(name: str, severity: int, share: float) -> None:
    x = torch.full((50, 3, 32, 32), 0.5)
    values = exactly(name, severity, x)
    n = values.numel()
    for end in (0, 1):
        assert abs(float((values == end).double().mean()) - share / 2) < 4 * math.sqrt(share / 2 / n)
    assert float((values == 0.5).double().mean()) == pytest.approx(1 - share, abs=0.005)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_resolution_is_pillows_bilinear_and_quantise_rounds(severity: int) -> None:
    x = photos(3)
    size = int(32 * [0.75, 0.6, 0.5, 0.375, 0.25][severity - 1])
    for image, seen in zip(pictures(x), pictures(exactly("resolution", severity, x)), strict=True):
        small = Image.fromarray(np.uint8(np.round(image * 255))).resize((size, size), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(small.resize((32, 32), Image.Resampling.BILINEAR)) / 255 - seen).max() < 2 * LEVEL
    assert len(exactly("quantise", severity, x).unique()) <= 2 ** (6 - severity)
