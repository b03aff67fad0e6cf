"""Denoisers beside SciPy, scikit-image, kornia and plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.config.plugins import find_defense
from robustbench_local.core.errors import ConfigError
from robustbench_local.defenses._lab import from_lab, to_lab
from robustbench_local.defenses._neighbours import weighted_mean
from robustbench_local.defenses._wrapper import Wrapper
from robustbench_local.defenses.bilateral import Bilateral
from robustbench_local.defenses.bit_depth import BLUR, BitDepth
from robustbench_local.defenses.gaussian_blur import GaussianBlur
from robustbench_local.defenses.median import Median, median_of_sorted_columns, sorting
from robustbench_local.defenses.non_local_means import NonLocalMeans
from robustbench_local.defenses.total_variation import TotalVariation
from robustbench_local.defenses.wavelet import Wavelet
from tests.helpers.wrapping import (
    deployed,
    differentiates,
    digits,
    draws,
    gradient,
    keeps_the_rules,
    photos,
    some_weights,
)

DENOISERS: list[Wrapper] = [
    Median(),
    Median(3),
    GaussianBlur(),
    Bilateral(),
    TotalVariation(steps=8),
    NonLocalMeans(5, 3),
    NonLocalMeans(5, 3, space="lab"),
    Wavelet(),
]
SMOOTH = [each for each in DENOISERS if each.differentiable]


def apply(wrapper: Wrapper, x: Tensor) -> Tensor:
    return wrapper.apply(x, None)


def per_image(x: Tensor, change: Callable[..., Any]) -> Tensor:
    """change takes and gives (H, W, C) float64."""
    out = [change(image.permute(1, 2, 0).double().numpy()) for image in x]
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("wrapper", [*DENOISERS, BitDepth(), BitDepth(1)], ids=str)
def test_every_denoiser_keeps_the_rules(wrapper: Wrapper) -> None:
    keeps_the_rules(wrapper)


@pytest.mark.parametrize("wrapper", SMOOTH, ids=str)
def test_autograd_agrees_with_finite_differences(wrapper: Wrapper) -> None:
    differentiates(wrapper)


@pytest.mark.parametrize("wrapper", [each for each in SMOOTH if not isinstance(each, GaussianBlur)], ids=str)
def test_the_identity_would_not_pass_for_its_gradient(wrapper: Wrapper) -> None:
    class Twin(type(wrapper)):  # type: ignore[misc]
        differentiable = False

    with pytest.raises(AssertionError):
        differentiates(Twin())


def test_bit_depth_rounds_to_equal_steps_and_its_gradient_is_that_of_smooth_rounding() -> None:
    x = torch.tensor([0.0, 0.09, 0.11, 0.5, 0.61, 1.0]).view(1, 1, 2, 3)
    assert torch.equal(apply(BitDepth(1), x).flatten(), torch.tensor([0.0, 0, 0, 0, 1, 1]))
    torch.testing.assert_close(apply(BitDepth(2), x).flatten() * 3, torch.tensor([0.0, 0, 0, 2, 2, 3]))
    grey = photos()
    torch.testing.assert_close(apply(BitDepth(8), grey), grey)
    assert len(apply(BitDepth(4), grey).unique()) == 16
    model = deployed(BitDepth())
    weights = some_weights(model, grey)
    slope = 1 - 2 * math.exp(-2 * (math.pi * BLUR) ** 2) * torch.cos(2 * math.pi * 15 * grey)
    torch.testing.assert_close(gradient(model, grey, weights), weights.view_as(grey) * slope)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_median_is_scipys(size: int) -> None:
    for x in (photos(4), digits(4)[:, :, :27]):
        expected = per_image(x, lambda image: scipy.ndimage.median_filter(image, (size, size, 1), mode="reflect"))
        assert torch.equal(apply(Median(size), x), expected)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_the_pruned_network_finds_the_median_of_zeros_and_ones_in_sorted_columns(size: int) -> None:
    """By the 0-1 principle it then does for all numbers."""
    ones = torch.cartesian_prod(*[torch.arange(size + 1)] * size)  # of each column, the last ones
    wires = [ones[:, j] >= size - i for i in range(size) for j in range(size)]
    network, middle = median_of_sorted_columns(size)
    for (a, b), felt in network:
        both = {a: wires[a] & wires[b], b: wires[a] | wires[b]}
        for wire in (a, b):
            wires[wire] = both[wire] if wire in felt else torch.zeros(len(ones)).bool()  # unfelt: anything will do
    assert torch.equal(wires[middle], ones.sum(1) >= size**2 - size**2 // 2)


def test_a_median_of_nine_takes_twenty_operations() -> None:
    network, _ = median_of_sorted_columns(3)
    assert 2 * len(sorting(3)) + sum(len(felt.intersection(pair)) for pair, felt in network) == 20


@pytest.mark.parametrize("denoiser", DENOISERS, ids=str)
def test_no_images_stay_none(denoiser: Wrapper) -> None:
    assert apply(denoiser, photos(2)[:0]).shape == (0, 3, 32, 32)


def test_the_median_of_many_images_is_that_of_each() -> None:
    x = photos(16).repeat(5, 1, 1, 1)
    whole = apply(Median(3), x)
    assert torch.equal(whole, torch.cat([apply(Median(3), each[None]) for each in x]))


def test_the_medians_gradient_goes_to_whom_it_picked() -> None:
    x = torch.tensor([[1.0, 5.0, 2.0], [4.0, 3.0, 9.0], [8.0, 7.0, 6.0]]).view(1, 1, 3, 3) / 10
    weights = torch.zeros(1, 9)
    weights[0, 4] = 1
    assert torch.equal(gradient(deployed(Median(3)), x, weights).nonzero(), torch.tensor([[0, 0, 0, 1]]))
    flat = gradient(deployed(Median(3)), torch.full((1, 1, 5, 5), 0.5), torch.ones(1, 25))
    torch.testing.assert_close(flat.sum(), torch.tensor(25.0))


@pytest.mark.parametrize("sigma", [0.3, 0.7, 2.0])
def test_gaussian_blur_is_scipys(sigma: float) -> None:
    for x in (photos(4), digits(4)):
        expected = per_image(x, lambda image: scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="mirror"))
        torch.testing.assert_close(apply(GaussianBlur(sigma), x), expected, atol=1e-5, rtol=0)


def by_hand(x: Tensor, reach: int, radius: int, weight: Callable[..., Any]) -> Tensor:
    """Weighted means in plain loops, of one image (C, H, W); weight(patch difference, i, j)."""
    channels, height, width = x.shape
    edge = reach + radius
    padded = np.pad(x.double().numpy(), ((0, 0), (edge, edge), (edge, edge)), mode="reflect")
    out = np.zeros((channels, height, width))

    def patch(r: int, c: int) -> npt.NDArray[Any]:
        return padded[:, r + edge - radius : r + edge + radius + 1, c + edge - radius : c + edge + radius + 1]

    for r in range(height):
        for c in range(width):
            total = 0.0
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    w = weight(((patch(r, c) - patch(r + i, c + j)) ** 2), i, j)
                    out[:, r, c] += w * padded[:, r + i + edge, c + j + edge]
                    total += w
            out[:, r, c] /= total
    return torch.from_numpy(out).float()


def test_bilateral_and_non_local_means_are_their_definitions() -> None:
    for x in (photos(2)[1, :, 3:15, 5:16], digits(2)[1, :, 3:15, 5:16]):
        expected = by_hand(
            x, 2, 0, lambda d, i, j: math.exp(-(i * i + j * j) / (2 * 1.5**2) - float(d.sum()) / (2 * 0.2**2))
        )
        torch.testing.assert_close(apply(Bilateral(5, 1.5, 0.2), x[None])[0], expected, atol=1e-5, rtol=0)
        expected = by_hand(x, 2, 1, lambda d, i, j: math.exp(-float(d.mean()) / 0.15**2))
        torch.testing.assert_close(apply(NonLocalMeans(5, 3, 0.15), x[None])[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window, patch, strength", [(11, 3, 20), (7, 5, 40)])
def test_non_local_means_is_opencvs(window: int, patch: int, strength: int) -> None:
    cv2 = pytest.importorskip("cv2")
    for x in (photos(4), digits(4)):
        levels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        answers = [np.atleast_3d(cv2.fastNlMeansDenoising(image, None, strength, patch, window)) for image in levels]
        expected = torch.from_numpy(np.stack(answers)).permute(0, 3, 1, 2)
        off = (apply(NonLocalMeans(window, patch, strength / 255), x) * 255 - expected).abs()
        assert off.mean() < 0.5 and off.max() < 4  # it counts in whole levels, and distances in a table


@pytest.mark.parametrize("window, patch, strength", [(11, 3, 4), (13, 3, 2)])  # feature squeezing's
def test_non_local_means_in_lab_is_opencvs_of_coloured_images(window: int, patch: int, strength: int) -> None:
    cv2 = pytest.importorskip("cv2")
    x = photos(8)
    levels = (x * 255).round().to(torch.uint8).flip(1).permute(0, 2, 3, 1).numpy()  # it reads B, G, R
    answers = [
        cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(image), None, strength, strength, patch, window)
        for image in levels
    ]
    expected = torch.from_numpy(np.stack(answers)).permute(0, 3, 1, 2).flip(1)
    off = (apply(NonLocalMeans(window, patch, strength / 255, "lab"), x) * 255 - expected).abs()
    assert off.mean() < 1 and off.max() < 7  # it counts in whole levels of Lab
    plain = (apply(NonLocalMeans(window, patch, strength / 255), x) * 255 - expected).abs()
    assert plain.mean() > 1.3  # in RGB the same strength is another filter


def test_lab_is_scikit_images() -> None:
    color = pytest.importorskip("skimage.color")
    x = torch.cat([photos(2), torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32), torch.full((1, 3, 32, 32), 0.004)])
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)  # it undoes the gamma of sRGB first
    expected = torch.from_numpy(color.rgb2lab(x.permute(0, 2, 3, 1).double().numpy())).permute(0, 3, 1, 2)
    found = (to_lab(linear.double()) - torch.tensor([0, 0.5, 0.5]).view(3, 1, 1)) * torch.tensor([100, 255, 255]).view(
        3, 1, 1
    )
    assert (found - expected).abs().max() < 0.02
    torch.testing.assert_close(from_lab(to_lab(linear)), linear, atol=1e-5, rtol=0)


def test_total_variation_is_scikit_images() -> None:
    restoration = pytest.importorskip("skimage.restoration")
    for images in (photos(4), digits(4)):
        expected = per_image(  # its first iteration only looks
            images, lambda image: restoration.denoise_tv_chambolle(image, 0.1, eps=0, max_num_iter=21, channel_axis=2)
        )
        torch.testing.assert_close(apply(TotalVariation(0.1, 20), images), expected.clamp(0, 1), atol=1e-5, rtol=0)


def test_weights_by_patches_and_by_nearness_at_once_are_their_definition() -> None:
    x, reach, radius, scale, nearness = photos(2).double(), 2, 1, 3.0, 0.2
    found = weighted_mean(x, reach, radius, scale, nearness)
    padded = F.pad(x, (reach + radius,) * 4, mode="reflect")

    def patch(row: int, column: int) -> torch.Tensor:
        return padded[..., row + reach : row + reach + 3, column + reach : column + reach + 3]

    for row, column in ((0, 0), (5, 31), (17, 9)):
        weights, taps = [], []
        for i, j in product(range(-reach, reach + 1), repeat=2):
            there = patch(row + i, column + j)
            far = scale * (patch(row, column) - there).square().sum((1, 2, 3)) + nearness * (i**2 + j**2)
            weights.append(torch.exp(-far))
            taps.append(there[..., 1, 1] * weights[-1][:, None])
        expected = torch.stack(taps).sum(0) / torch.stack(weights).sum(0)[:, None]
        torch.testing.assert_close(found[..., row, column], expected)


def test_bilateral_is_kornias() -> None:
    filters = pytest.importorskip("kornia.filters")
    x = photos(4)
    expected = filters.bilateral_blur(x, 5, 0.1, (1.0, 1.0), color_distance_type="l2")
    torch.testing.assert_close(apply(Bilateral(5, 1.0, 0.1), x), expected, atol=1e-5, rtol=0)


def test_total_variation_nears_the_minimum_and_has_less_variation() -> None:
    def variation(u: Tensor) -> Tensor:
        down, across = u.diff(dim=2)[..., :, :-1], u.diff(dim=3)[..., :-1, :]
        return (down**2 + across**2).sqrt().sum()

    x = photos(4)
    energies = []
    for steps in (5, 20, 80, 320):
        u = apply(TotalVariation(0.1, steps), x)
        energies.append(float((u - x).square().sum() / 2 + 0.1 * variation(u)))
    assert energies == sorted(energies, reverse=True) and energies[2] - energies[3] < 0.01 * energies[3]
    assert variation(u) < 0.5 * variation(x)


def test_wavelet_shrinks_haar_coefficients() -> None:
    """The transform as matrices, of one level on 2 x 2 and of two on 4 x 4."""
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    haar = torch.tensor([[1.0, 1.0, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    coefficients = x.flatten(1) @ haar.T
    small = torch.nn.functional.softshrink(coefficients[:, 1:], 0.05)
    expected = torch.cat([coefficients[:, :1], small], 1) @ haar
    torch.testing.assert_close(apply(Wavelet(0.05, 1), x).flatten(1), expected)
    x = photos(3)
    torch.testing.assert_close(apply(Wavelet(0, 3), x), x)  # with no threshold a perfect reconstruction
    blocks = x.unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5))
    wide = apply(Wavelet(10, 3), x)  # with an endless one the means of blocks
    torch.testing.assert_close(wide, blocks.repeat_interleave(8, 2).repeat_interleave(8, 3))


def test_wavelet_is_scikit_images() -> None:
    pytest.importorskip("pywt")
    restoration = pytest.importorskip("skimage.restoration")
    x = photos(3)
    sigma = 0.1 / math.sqrt(2 * math.log(32 * 32))
    expected = per_image(
        x,
        lambda image: restoration.denoise_wavelet(image, sigma, "haar", "soft", 2, channel_axis=2, method="VisuShrink"),
    )
    torch.testing.assert_close(apply(Wavelet(0.1, 2), x), expected.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrapper", [Median(3), GaussianBlur(1), Bilateral(), TotalVariation(), NonLocalMeans()], ids=str
)
def test_noise_is_taken_away(wrapper: Wrapper) -> None:
    x = torch.full((4, 3, 16, 16), 0.5)
    noisy = x + 0.05 * draws(4).normal(3, 16, 16)
    assert (apply(wrapper, noisy) - x).square().mean() < 0.5 * (noisy - x).square().mean()


@pytest.mark.parametrize(
    "name, settings, text",
    [
        ("bit_depth", {"bits": 0}, "bits is 0"),
        ("bit_depth", {"bits": 9}, "1, 8"),
        ("median", {"size": 1}, "size is 1"),
        ("gaussian_blur", {"sigma": 0}, "sigma is 0"),
        ("bilateral", {"window": 4}, "window is 4"),
        ("bilateral", {"sigma_colour": -1}, "sigma_colour"),
        ("total_variation", {"steps": 0}, "steps is 0"),
        ("total_variation", {"weight": math.nan}, "is nan: it must be a number"),
        ("non_local_means", {"patch": 2}, "odd"),
        ("non_local_means", {"space": "hsv"}, '"rgb" or "lab"'),
        ("wavelet", {"levels": 0}, "levels is 0"),
        ("wavelet", {"treshold": 0.1}, "threshold"),
    ],
)
def test_bad_settings_are_refused(name: str, settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_defense(name, settings)
