from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.eight_bit import to_8bit

THREATS = ["linf:8/255", "linf:0.3", "linf:0.01", "linf:1e-4", "l2:0.5", "l2:0.01", "l1:12", "l1:0.3", "l0:3", "none"]


def eight_bit_images(n: int = 8, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(-64, 320, (n, 3, 16, 16), generator=random).clamp(0, 255).float() / 255


def adversarial(threat: ThreatModel, x: Tensor, seed: int = 1) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return threat.project(x + 0.2 * noise, x)


def levels(x: Tensor) -> Tensor:
    return x.double() * 255


@pytest.mark.parametrize("text", THREATS)
def test_rounded_images_are_files_inside_the_ball(text: str) -> None:
    threat, x = ThreatModel.parse(text), eight_bit_images()
    x_adv = adversarial(threat, x)
    rounded = to_8bit(x_adv, x, threat)
    assert (levels(rounded) - levels(rounded).round()).abs().max() < 1e-4
    assert torch.equal((levels(rounded).round() / 255).float(), rounded)  # written and read, nothing changes
    assert threat.contains(rounded, x).all()
    assert (rounded - x_adv).abs().max() <= 1 / 255 + 1e-6
    assert torch.equal(to_8bit(rounded, x, threat), rounded)


@pytest.mark.parametrize("eps", range(1, 17))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linf_keeps_every_grey_level_that_eps_allows(eps: int, dtype: torch.dtype) -> None:
    threat = ThreatModel.parse(f"linf:{eps}/255")
    x = (torch.arange(256).to(dtype) / 255).view(1, 1, 16, 16)
    for sign in (1, -1):
        rounded = to_8bit(threat.project(x + sign, x), x, threat)
        expected = (torch.arange(256) + sign * eps).clamp(0, 255).view(1, 1, 16, 16)
        assert torch.equal(levels(rounded).round().long(), expected)


def test_an_eps_written_with_few_digits_still_reaches_its_grey_levels() -> None:
    threat = ThreatModel.parse("linf:0.0313725")  # 7.99999 levels
    x = torch.full((1, 1, 2, 2), 100.0) / 255
    rounded = to_8bit(threat.project(x + 1, x), x, threat)
    assert (levels(rounded).round() == 108).all() and threat.contains(rounded, x).all()


def test_linf_rounds_each_pixel_to_the_nearest_level_inside() -> None:
    threat = ThreatModel.parse("linf:0.01")  # 2.55 levels
    x = torch.full((1, 1, 1, 4), 100.0) / 255
    x_adv = x + torch.tensor([2.55, 2.4, -0.4, -2.55]) / 255
    found = levels(to_8bit(x_adv, x, threat)).round().flatten().tolist()
    assert found == [102, 102, 100, 98]  # 2.55 rounds to 3, which is outside
    inner = ThreatModel.parse("linf:1/1000")  # less than half a level: only x itself is inside
    assert torch.equal(to_8bit(inner.project(x_adv, x), x, inner), x)


def test_l2_rounds_to_nearest_where_that_stays_inside_and_towards_x_where_not() -> None:
    x = torch.full((2, 1, 1, 2), 100.0) / 255
    x_adv = x + torch.tensor([[3.6, 0.0], [3.6, 2.6]]).view(2, 1, 1, 2) / 255
    threat = ThreatModel(Norm.L2, 4.45 / 255)  # |(4, 0)| = 4 fits, |(4, 3)| = 5 does not, |(3, 2)| = 3.6 does
    assert threat.contains(x_adv, x).all()
    assert levels(to_8bit(x_adv, x, threat)).round().view(2, 2).tolist() == [[104, 100], [103, 102]]


def test_l0_touches_no_other_position() -> None:
    threat, x = ThreatModel.parse("l0:3"), eight_bit_images()
    x_adv = adversarial(threat, x)
    rounded = to_8bit(x_adv, x, threat)
    untouched = (x_adv == x).all(1, keepdim=True).expand_as(x)
    assert torch.equal(rounded[untouched], x[untouched]) and not torch.equal(rounded, x)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(THREATS), st.integers(0, 10**6), st.floats(0, 1))
def test_rounding_never_leaves_ball_or_box(text: str, seed: int, share: float) -> None:
    threat, x = ThreatModel.parse(text), eight_bit_images(2, seed)
    x_adv = x + share * (adversarial(threat, x, seed + 1) - x)
    assert threat.contains(to_8bit(x_adv, x, threat), x).all()
