"""All 34 published corruptions beside renderings by the libraries that the published scripts call: the same law."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from benchmarks._kept import kept
from benchmarks._published import CODEC, EXACT, RENDERINGS, published, relief
from benchmarks.corruptions import away
from robustbench_local.attacks.corruptions import _edges
from robustbench_local.attacks.corruptions.weather import _relief, chamfer
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws
from tests.helpers.image_statistics import STATISTICS
from tests.helpers.wrapping import digits, photos

Levels = npt.NDArray[np.uint8]
N = 40
SLOW = {"glass_blur", "mnist_fog", "mnist_glass_blur"}  # to render
OTHER = {"frost"} | CODEC  # generated ice


def beside(name: str, severity: int, n: int = N) -> tuple[Levels, Levels, Levels]:
    """The clean levels (n, H, W, C), ours and theirs."""
    corruption = find_attack(name, {"severity": severity})
    assert isinstance(corruption, Corruption)
    x = digits(n) if corruption.benchmark == "MNIST-C" else photos(n)
    ours = corruption.apply(x, Draws(0, torch.arange(n)))
    clean, corrupted = (image.mul(255).round().byte().permute(0, 2, 3, 1).numpy() for image in (x, ours))
    rng = np.random.default_rng(severity)
    theirs = [published(name, image.squeeze(), severity, rng).reshape(image.shape) for image in clean]
    return clean, corrupted, np.stack(theirs)


@pytest.mark.parametrize("name", sorted(RENDERINGS.keys() - OTHER))
def test_images_have_the_published_law(name: str) -> None:
    for severity in (1, 5) if name in SLOW else (1, 3, 5):
        clean, ours, theirs = (levels.astype(float) for levels in beside(name, severity))
        if name in EXACT:
            apart = np.abs(ours - theirs)
            assert apart.max() <= 1 and apart.mean() < 0.1, severity
            continue
        for statistic in STATISTICS:
            difference = statistic(clean, ours) - statistic(clean, theirs)
            luck = difference.std() / N**0.5
            assert abs(difference.mean()) < 4.5 * luck + 0.02, (severity, statistic.__name__, difference.mean(), luck)


def test_jpeg_is_pillows_but_for_a_coefficient_here_and_there() -> None:
    for severity in (1, 5):
        _, ours, theirs = (levels.astype(float) for levels in beside("jpeg_compression", severity))
        assert np.abs(ours - theirs).mean() < 0.3


def layers(seed: int) -> Tensor:
    """(60, 1, 32, 32) whole numbers in 0 .. 255: drops as `spatter` has them, photographs, digits, noise, plateaus."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.65, 0.2, (15, 32, 32))
    smooth = np.stack([cv2.GaussianBlur(each, (7, 7), 1 + 0.1 * i) for i, each in enumerate(noise)])
    drops = np.where(smooth < 0.69, 0, smooth * 255 % 256)
    grey = photos(15).mean(1).numpy() * 255
    digit = np.pad(digits(10)[:, 0].numpy(), [(0, 0), (2, 2), (2, 2)]) * 255
    plateaus = rng.integers(0, 3, (10, 8, 8)).repeat(4, 1).repeat(4, 2) * 70.0
    every = np.concatenate([drops, grey, digit, plateaus, rng.integers(0, 256, (10, 32, 32))])
    return torch.from_numpy(np.floor(every + 1e-3)).float().unsqueeze(1)


def as_bytes(x: Tensor) -> list[Levels]:
    return [np.ascontiguousarray(image[0].byte().numpy()) for image in x]


@pytest.mark.parametrize("low", [20, 50, 300])
def test_edges_are_opencvs_pixel_by_pixel(low: int) -> None:
    x = layers(0)
    expected = np.stack([cv2.Canny(image, low, 3 * low) > 0 for image in as_bytes(x)])
    found = _edges.canny_8_bit(x, low, 3 * low)[:, 0].numpy()
    assert np.array_equal(found, expected)
    assert expected.any() and expected[:, 0].any() and expected[:, :, -1].any()  # at the edge of the image as well


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 3), (5, 31)])
def test_edges_of_small_images_are_opencvs(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        found = _edges.canny_8_bit(torch.from_numpy(image)[None, None].float(), 50, 150)[0, 0].numpy()
        assert np.array_equal(found, cv2.Canny(image, 50, 150) > 0)


def test_distances_from_drops_are_opencvs_chamfer() -> None:
    x = layers(2)
    edges = _edges.canny_8_bit(x, 50, 150)
    found = chamfer(edges, 20)[:, 0].numpy()
    for edge, far in zip(edges[:, 0].numpy(), found, strict=True):
        expected = (
            cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 5) if edge.any() else np.full(edge.shape, 20)
        )
        assert np.allclose(far, np.minimum(expected, 20), atol=1e-4)
    assert np.ptp(found) > 3


def test_light_on_drops_is_opencvs() -> None:
    x = layers(3)
    found = _relief(x)[:, 0].numpy()
    expected = np.stack([relief(image) for image in as_bytes(x)])
    assert (found == expected).mean() > 0.99 and np.abs(found - expected).mean() < 0.1  # rounding, before a floor
    flat = torch.full((1, 1, 9, 9), 200.0)  # no edge at all: light everywhere
    assert np.array_equal(_relief(flat)[0, 0].numpy(), relief(as_bytes(flat)[0]))


def test_the_table_beside_the_published_formulas_is_of_todays_versions() -> None:
    """results/benchmarks/corruptions: every corruption, and none far from its formula."""
    folder = Path(__file__).parents[2] / "results" / "benchmarks" / "corruptions"
    rows = kept(folder / "corruptions.jsonl")
    today = {(name, find_attack(name).version) for name in RENDERINGS}
    assert {(row["what"]["name"], row["what"]["version"]) for row in rows} == today
    assert (folder / "corruptions.md").read_text(encoding="utf-8").count("\n| ") == len(rows) + 2  # head, rule
    for row in rows:
        far = [abs(away(row[key])) for key in ("change", "l2", "wrong")]
        if row["what"]["name"] in EXACT | CODEC:
            most = 1 if row["what"]["name"] in EXACT else 30
            assert row["apart"]["mean"] < 0.2 and round(row["apart"]["most"]) <= most, row
        elif row["what"]["name"] != "frost":
            assert max(far) < 4.5, row
