"""Sides of one pixel, of odd lengths, not square: what a plug-in makes of them is an image, or an error says why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from robustbench_local.config.plugins import ATTACKS, DEFENSES, find_attack, find_defense, listing
from robustbench_local.core.corruption import SEVERITIES, Corruption
from robustbench_local.core.defense import Deployed, call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, PluginError
from robustbench_local.core.training import NoTraining
from robustbench_local.defenses.bilateral import Bilateral
from robustbench_local.defenses.median import Median
from robustbench_local.defenses.non_local_means import NonLocalMeans
from robustbench_local.evaluation.evaluate import evaluate
from tests.helpers.small_networks import AnySize

SMALL = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (7, 6)]
SIZES = [*SMALL, (1, 2), (3, 3), (65, 3), (28, 29)]
CORRUPTIONS = {
    row.name: attack
    for row in listing(ATTACKS)
    if "severity" in row.settings and isinstance(attack := find_attack(row.name), Corruption)
}


def images(channels: int, size: tuple[int, int]) -> Tensor:
    """(3, C, H, W): of any pixels, black, white."""
    some = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    return torch.cat([(some * 255).round() / 255, torch.zeros_like(some), torch.ones_like(some)])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_makes_images_of_images_of_any_size(name: str) -> None:
    for size in SIZES:
        for channels in (1, 3):
            x = images(channels, size)
            for severity in SEVERITIES if size != (28, 29) else (5,):
                try:
                    found = replace(CORRUPTIONS[name], severity=severity).apply(x, Draws(0, torch.arange(3)))
                except ConfigError as error:
                    assert "pixels" in str(error)
                    continue
                assert found.shape == x.shape and found.isfinite().all(), (size, severity)
                assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", ["rotate", "scale"])
def test_a_row_of_pixels_is_looked_up_as_that_row_of_a_square_would_be(name: str) -> None:
    """About its middle a row of pixels turns and shrinks in its black surroundings."""
    row = images(1, (1, 9))[:1]
    square = torch.nn.functional.pad(row, (0, 0, 4, 4))
    draws = Draws(3, torch.arange(1))
    found = CORRUPTIONS[name].apply(row, draws)
    assert torch.allclose(found, CORRUPTIONS[name].apply(square, draws)[:, :, 4:5], atol=2 / 255)
    assert not torch.equal(found, row)


@dataclass(frozen=True)
class Nothing(Corruption):
    """A broken one: 0 / 0."""

    levels: ClassVar[tuple[Any, ...]] = (1,) * 5

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return (x - x) / (x - x)


@dataclass(frozen=True)
class Cropped(Nothing):
    """A broken one: one image for all."""

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return x[:1]


def test_what_is_no_image_is_an_error_and_no_robustness() -> None:
    x, y = images(1, (4, 4)), torch.zeros(3, dtype=torch.int64)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    with pytest.raises(PluginError, match=r"Nothing at severity 3 .* 48 of their values not numbers"):
        evaluate(net, x, y, Nothing(), "none")
    with pytest.raises(PluginError, match=r"Cropped .* makes images \(1, 1, 4, 4\) of images \(3, 1, 4, 4\)"):
        Cropped().apply(x, Draws(0, torch.arange(3)))


@pytest.mark.parametrize("name", [row.name for row in listing(DEFENSES)])
def test_a_defense_answers_for_images_of_any_size_and_has_gradients_there(name: str) -> None:
    for channels, size in [(1, SMALL[0]), *((3 - 2 * (i % 2), size) for i, size in enumerate(SMALL))]:
        x = images(channels, size).requires_grad_()
        try:
            model = find_defense(name).build(AnySize(channels), NoTraining(), Draws(0, torch.arange(1))).eval()
            logits = call(model, x, Draws(0, torch.arange(3)))
        except ConfigError as error:
            assert "pixels" in str(error)
            continue
        assert len(logits) == 3 and logits.isfinite().all(), size
        assert torch.autograd.grad(logits.sum(), x)[0].isfinite().all(), size


@pytest.mark.parametrize("size", SMALL)
def test_windows_larger_than_the_image_see_it_mirrored_again_and_again(size: tuple[int, int]) -> None:
    """As SciPy pads it; and as the same filter sees the middle of an image that was mirrored before."""
    x = images(3, size).double()
    found = Median(7).apply(x, None)
    for image, seen in zip(x.flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
        assert (ndimage.median_filter(image, 7, mode="reflect") == seen).all()
    reach = 16
    wide = torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), (reach, reach), (reach, reach)], mode="reflect"))
    for denoise in (Bilateral(window=9), NonLocalMeans(window=13, patch=5), NonLocalMeans(window=13, space="lab")):
        middle = denoise.apply(wide, None)[..., reach : reach + size[0], reach : reach + size[1]]
        assert torch.allclose(denoise.apply(x, None), middle, atol=1e-9)


def test_a_denoiser_gives_an_image_of_the_size_it_was_given() -> None:
    model = find_defense("autoencoder").build(AnySize(1), NoTraining(), Draws(0, torch.arange(1)))
    assert isinstance(model, Deployed)
    front = model.steps[0]
    for size in [*SIZES, (28, 28)]:
        assert front(images(1, size)).shape[2:] == size
