"""Random resizing, padding and cropping beside torch's own resampling, image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.attacks.pgd import PGD
from robustbench_local.config.plugins import find_defense
from robustbench_local.core.defense import call, is_stochastic
from robustbench_local.core.errors import ConfigError
from robustbench_local.defenses._wrapper import Wrapper
from robustbench_local.defenses.crop_rescale import CropRescale
from robustbench_local.defenses.resize_pad import ResizePad
from robustbench_local.evaluation.evaluate import evaluate
from tests.helpers.wrapping import deployed, differentiates, digits, draws, keeps_the_rules, photos

RANDOM: list[Wrapper] = [ResizePad(), ResizePad(0.5, 1.0), CropRescale(), CropRescale(0.5)]


@pytest.mark.parametrize("wrapper", RANDOM, ids=str)
def test_the_rules_are_kept(wrapper: Wrapper) -> None:
    keeps_the_rules(wrapper)
    assert is_stochastic(deployed(wrapper))


@pytest.mark.parametrize("wrapper", RANDOM, ids=str)
def test_autograd_agrees_with_finite_differences(wrapper: Wrapper) -> None:
    differentiates(wrapper)


@pytest.mark.parametrize("largest, side", [(1.0, 32), (331 / 299, 35), (0.9, 29)])
def test_resize_pad_is_an_interpolation_somewhere_on_zeros(largest: float, side: int) -> None:
    x = photos(40) * 0.9 + 0.1  # nothing is black
    out = ResizePad(0.7, largest).apply(x, draws(40))
    assert out.shape == (40, 3, side, side)
    sizes, corners = set(), set()
    for image, padded in zip(x, out, strict=True):
        rows, columns = (padded.sum(0).sum(axis).nonzero()[:, 0] for axis in (1, 0))
        top, left, high, wide = int(rows[0]), int(columns[0]), len(rows), len(columns)
        assert high == wide and round(0.7 * 32) <= high <= side
        expected = F.interpolate(image[None], (high, wide), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(padded[:, top : top + high, left : left + wide], expected, atol=1e-5, rtol=0)
        sizes.add(high)
        corners.add((top, left))
    assert len(sizes) > 4 and max(sizes) >= side - 1 and len(corners) > 10


@pytest.mark.parametrize("share", [0.5, 0.875, 1.0])
def test_crop_rescale_is_an_interpolation_of_a_part(share: float) -> None:
    x = photos(30)[..., :28]
    out = CropRescale(share).apply(x, draws(30))
    high, wide = round(share * 32), round(share * 28)
    corners = set()
    for image, found in zip(x, out, strict=True):
        nearest = min(
            (
                float(
                    (
                        F.interpolate(image[None, :, top : top + high, left : left + wide], (32, 28), mode="bilinear")[
                            0
                        ]
                        - found
                    )
                    .abs()
                    .max()
                ),
                top,
                left,
            )
            for top in range(32 - high + 1)
            for left in range(28 - wide + 1)
        )
        assert nearest[0] < 1e-5
        corners.add(nearest[1:])
    assert len(corners) > 8 if share < 1 else torch.allclose(out, x, atol=1e-6)


def test_nothing_is_lost_where_there_is_no_choice() -> None:
    x = digits()
    torch.testing.assert_close(ResizePad(1.0, 1.0).apply(x, draws(12)), x)


def test_places_are_drawn_evenly() -> None:
    x = torch.ones(4000, 1, 8, 8)
    out = ResizePad(0.5, 1.0).apply(x, draws(4000))
    sides = out[:, 0].sum((1, 2)).sqrt().round().long()
    assert sides.min() == 4 and sides.max() == 8
    small = out[sides == 4, 0]
    first = small.sum(2).ne(0).double().argmax(1)  # 0 .. 4
    assert (torch.bincount(first, minlength=5) / len(small) - 0.2).abs().max() < 0.07


def test_forward_and_gradient_see_the_same_draws() -> None:
    """The derivative of the sum over a crop's pixels is zero exactly outside the crop."""
    x = photos(20).requires_grad_()
    wrapper = CropRescale(0.5)
    out = call(deployed(wrapper), x, draws(20))
    (grad,) = torch.autograd.grad(out.sum(), x)
    for image, slope, found in zip(x.detach(), grad, out.view_as(x), strict=True):
        rows, columns = (slope.abs().sum(0).sum(axis).nonzero()[:, 0] for axis in (1, 0))
        crop = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        expected = F.interpolate(crop[None], (32, 32), mode="bilinear")[0]
        torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=0)


def test_an_attack_under_eot_finds_what_holds_for_most_draws() -> None:
    """Brightness decides, which no crop hides: the attack must win on nearly all fresh draws."""

    class Bright(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mean = 40 * (x.mean((1, 2, 3)) - 0.5)
            return torch.stack([-mean, mean], 1)

    x = 0.45 + 0.02 * torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(20, dtype=torch.int64)
    verdict = evaluate(deployed(CropRescale(0.75), Bright()), x, y, PGD(steps=10), "linf:0.1", eot=4, draws=10)
    assert verdict.bits is not None and verdict.clean_accuracy == 1
    assert verdict.robust_accuracy < 0.05


@pytest.mark.parametrize(
    "name, settings, text",
    [
        ("resize_pad", {"smallest": 0}, "smallest is 0"),
        ("resize_pad", {"smallest": 1.2, "largest": 1.1}, "not be above largest"),
        ("crop_rescale", {"share": 1.5}, "share is 1.5"),
    ],
)
def test_bad_settings_are_refused(name: str, settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_defense(name, settings)
