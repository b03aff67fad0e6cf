"""Images of 64 pixels and more meet ImageNet-C's constants: at 224 pixels beside renderings of the published script."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import data
from torch import Tensor

from benchmarks._published_large import RENDERINGS
from robustbench_local.attacks.corruptions._plasma import clouds
from robustbench_local.attacks.corruptions.weather import Frost
from robustbench_local.config.plugins import ATTACKS, find_attack, listing
from robustbench_local.config.schema import GridConfig, ModelConfig
from robustbench_local.core.corruption import Corruption, truncated
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import open_data
from robustbench_local.defenses.none import Undefended
from robustbench_local.grids.cell import Cell, Task
from robustbench_local.training.spec import ModelSpec
from tests.helpers.image_statistics import STATISTICS

Levels = npt.NDArray[Any]
LEVEL = 1 / 255
SIDE = 224
NAMES = {
    row.name
    for row in listing(ATTACKS)
    if "severity" in row.settings
    and isinstance(attack := find_attack(row.name), Corruption)
    and attack.benchmark.startswith("CIFAR-10-C")
}
# how far at most, and on average; codecs differ by a rounded coefficient now and then
DETERMINISTIC: dict[str, tuple[float, float]] = dict.fromkeys(
    ("defocus_blur", "gaussian_blur", "zoom_blur", "brightness", "saturate", "contrast", "pixelate"), (2e-5, 2e-6)
) | {"jpeg_compression": (120 * LEVEL, 0.7 * LEVEL)}


def crops(n: int, side: int = SIDE) -> Tensor:
    """(n, 3, side, side): pieces of a photograph, whole levels."""
    photograph: Tensor = torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255
    places = np.random.default_rng(0).integers(0, 512 - side, (n, 2))
    return torch.stack([photograph[:, row : row + side, column : column + side] for row, column in places])


def large(name: str, severity: int, side: int = SIDE) -> Corruption:
    found = find_attack(name, {"severity": severity})
    assert isinstance(found, Corruption)
    return found.at(side, side)


def pictures(x: Tensor) -> Levels:
    pixels: Levels = x.double().permute(0, 2, 3, 1).numpy()
    return pixels


def each(x: Tensor) -> Draws:
    return Draws(0, torch.arange(len(x)))


def exactly(name: str, severity: int, x: Tensor) -> Levels:
    """Before it is cut to 256 levels."""
    return pictures(large(name, severity).corrupt(x, each(x)).clamp(0, 1))


def rendered(name: str, severity: int, x: Tensor) -> Levels:
    """(N, H, W, C) in [0, 1], before it is cut to 256 levels."""
    rng = np.random.default_rng(severity)
    return np.stack([RENDERINGS[name](image, severity, rng) for image in pictures(x)]) / 255


def test_the_published_set_is_whole_and_begins_at_64_pixels() -> None:
    assert len(NAMES) == 19 and NAMES - {"frost"} == RENDERINGS.keys()
    for name in NAMES:
        corruption = find_attack(name)
        assert isinstance(corruption, Corruption)
        small, ours = corruption.at(63, 200), corruption.at(200, 64)
        assert small.benchmark in ("CIFAR-10-C", "CIFAR-10-C extra") and small.levels == corruption.levels
        assert ours.benchmark == small.benchmark.replace("CIFAR-10-C", "ImageNet-C")
        assert ours.levels != corruption.levels and len(ours.levels) == 5 and ours == corruption
        assert ours.at(224, 224).levels == ours.levels  # a second time changes nothing
    fog = find_attack("mnist_fog")
    assert isinstance(fog, Corruption) and fog.at(224, 224).benchmark == "MNIST-C"


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_what_draws_nothing_is_the_published_formula(name: str, severity: int) -> None:
    most, mean = DETERMINISTIC[name]
    x = crops(2)
    expected = rendered(name, severity, x)
    difference = np.abs(exactly(name, severity, x) - expected)
    assert difference.max() <= most and difference.mean() <= mean
    other = exactly(name, severity % 5 + 1, x)  # the constants of another severity are told apart
    assert np.abs(other - expected).mean() > mean


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_glass_blur_is_the_published_loop_over_the_same_draws(severity: int) -> None:
    """Pixels that come later in the loop take what earlier ones took: their reach is more than one pixel here."""
    sigma, reach, turns = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][severity - 1]
    side = 64
    x = crops(2, side)
    draws = each(x)
    steps = [draws.integers((2 * reach) ** 2, *[side - 2 * reach] * 2).numpy() for _ in range(turns)]
    found = pictures(large("glass_blur", severity, side).corrupt(x, each(x)))
    for number, image in enumerate(pictures(x)):
        pixels = np.floor(255 * ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest") + 1e-4) / 255
        forgetful = pixels.copy()  # the broken twin: takes what was there before the turn
        for step in steps:
            before = forgetful.copy()
            for h in range(side - reach, reach, -1):
                for w in range(side - reach, reach, -1):
                    at = step[number, h - reach - 1, w - reach - 1]
                    dy, dx = reach - 1 - at // (2 * reach), reach - 1 - at % (2 * reach)
                    # as published: both names are views of one array, and only one pixel changes
                    pixels[h, w], pixels[h + dy, w + dx] = pixels[h + dy, w + dx], pixels[h, w]
                    forgetful[h, w] = before[h + dy, w + dx]
        apart, wrong = (
            np.abs(found[number] - ndimage.gaussian_filter(each, (sigma, sigma, 0), mode="nearest"))
            for each in (pixels, forgetful)
        )
        assert apart.max() < LEVEL and apart.mean() < 1e-5  # the first blur may end a rounding error below a level
        assert bool(wrong.mean() > 1e-3) is (reach > 1)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_fog_and_frost_mix_their_texture_in_by_the_published_formula(severity: int) -> None:
    x = crops(2)
    thickness, decay = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)][severity - 1]
    layer = pictures(clouds(x, decay**2, each(x)))
    most = x.amax((1, 2, 3)).double().numpy().reshape(-1, 1, 1, 1)
    expected = (pictures(x) + thickness * layer) * most / (most + thickness)
    assert np.allclose(exactly("fog", severity, x), np.clip(expected, 0, 1), atol=1e-5)
    kept, added = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)][severity - 1]
    ice = Frost()._ice(x, each(x))
    assert np.allclose(exactly("frost", severity, x), pictures((kept * x + added * ice).clamp(0, 1)), atol=1e-5)


DRAWN = sorted(RENDERINGS.keys() - DETERMINISTIC.keys())


@pytest.mark.parametrize("name", ["snow", "elastic_transform"])
def test_a_few_images_have_the_published_law(name: str) -> None:
    the_law(name, 3, 6)


@pytest.mark.slow
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_has_the_published_law(name: str, severity: int) -> None:
    the_law(name, severity, 24)


def the_law(name: str, severity: int, n: int) -> None:
    """Of 256 levels: 4.5 standard errors of the mean difference of each statistic, and 0.02 levels."""
    x = crops(n)
    clean, ours = pictures(x) * 255, pictures(truncated(large(name, severity).corrupt(x, each(x)))) * 255
    theirs = np.floor(rendered(name, severity, x) * 255 + 1e-4)
    for statistic in STATISTICS:
        difference = statistic(clean, ours) - statistic(clean, theirs)
        luck = difference.std() / n**0.5
        assert abs(difference.mean()) < 4.5 * luck + 0.02, (statistic.__name__, difference.mean(), luck)


def test_large_images_have_been_through_a_jpeg_file_of_quality_85() -> None:
    x = crops(3)
    corruption = find_attack("contrast", {"severity": 1})
    assert isinstance(corruption, Corruption)
    found = pictures(corruption.apply(x, each(x))) * 255
    before = pictures(truncated(corruption.at(SIDE, SIDE).corrupt(x, each(x)))) * 255
    files = []
    for image in before:
        file = io.BytesIO()
        Image.fromarray(np.rint(image).astype(np.uint8)).save(file, "JPEG", quality=85)
        files.append(np.asarray(Image.open(file)).astype(float))
    assert np.abs(found - np.stack(files)).mean() < 0.3 < np.abs(found - before).mean()
    assert np.abs(found - np.rint(found)).max() < 1e-3


@pytest.mark.parametrize("side, benchmark", [(32, "CIFAR-10-C"), (63, "CIFAR-10-C"), (64, "ImageNet-C")])
def test_a_row_says_which_constants_its_images_met(side: int, benchmark: str) -> None:
    images = replace(
        open_data("cifar10", source="bundled", n=2), pixels=torch.zeros(2, 3, side, 200, dtype=torch.uint8)
    )
    config = GridConfig(data="cifar10", models="toy", attacks="fog", attack_under="snow:2")
    spec = ModelSpec("cifar10", ModelConfig("toys:linear"), "none", Undefended(), None)
    cell = Cell(spec, "fog", find_attack("fog"), ThreatModel.parse("none"), 0, "all")
    definition = Task("toy", cell, config, images, "0").definition
    assert definition["corruption"] == benchmark
    met = {"name": "snow", "settings": {"severity": 2}, "version": 2}
    assert definition["attack_under"] == (met if side < 64 else met | {"benchmark": benchmark})
