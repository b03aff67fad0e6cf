from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import brentq, minimize
from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ThreatError
from robustbench_local.core.threat import LARGEST, TOLERANCE, Norm, ThreatModel, parse_number

BALLS = ("linf", "l2", "l1", "l0")
SHAPE = (2, 2, 3)  # C, H, W: 12 coordinates, 6 positions
searched = settings(max_examples=60, deadline=None, derandomize=True)


def ball(norm: str, eps: float) -> ThreatModel:
    return ThreatModel(Norm(norm), float(eps), allow_large=True)


def wishes(n: int = 8, shape: tuple[int, int, int] = SHAPE, reach: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clean images, a third of whose pixels are 0 or 1, and images far outside the box, in float64."""
    random = np.random.default_rng(seed)
    x = random.uniform(-0.25, 1.25, (n, *shape)).clip(0, 1)
    return torch.tensor(x + reach * random.normal(size=x.shape)), torch.tensor(x)


def project_by_root(norm: str, x_adv: npt.NDArray[Any], x: npt.NDArray[Any], eps: float) -> npt.NDArray[Any]:
    """The projection of one flat image from its KKT conditions, by scipy's root finder."""
    boxed = x_adv.clip(0, 1)
    limit = np.where(x_adv > x, 1 - x, x)
    wish = np.abs(x_adv - x)
    if norm == "l2":
        if np.linalg.norm(boxed - x) <= eps:
            return boxed
        t = brentq(lambda t: np.linalg.norm(np.minimum(t * wish, limit)) - eps, 0, 1, xtol=1e-14)
        size = np.minimum(t * wish, limit)
    else:
        if np.abs(boxed - x).sum() <= eps:
            return boxed
        total = lambda shift: np.clip(wish - shift, 0, limit).sum() - eps  # noqa: E731
        size = np.clip(wish - brentq(total, 0, wish.max(), xtol=1e-14), 0, limit)
    nearest: npt.NDArray[Any] = x + np.sign(x_adv - x) * size
    return nearest


# projections against independent solutions


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1, 0.3, 0.9, 5.0])
def test_linf_projection_is_the_nearest_value_in_each_coordinate(eps: float) -> None:
    x_adv, x = wishes()
    found = ball("linf", eps).project(x_adv, x)
    expected = np.clip(x_adv.numpy(), (x - eps).clamp(min=0).numpy(), (x + eps).clamp(max=1).numpy())
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("norm, eps", [(n, e) for n in ("l2", "l1") for e in (0.0, 1e-3, 0.05, 0.4, 1.0, 2.5, 50.0)])
@pytest.mark.parametrize("reach", [0.02, 0.3, 5.0])
def test_l2_and_l1_projections_solve_the_kkt_conditions(norm: str, eps: float, reach: float) -> None:
    x_adv, x = wishes(20, reach=reach)
    found = ball(norm, eps).project(x_adv, x).flatten(1)
    for row in range(len(x)):
        expected = project_by_root(norm, x_adv[row].flatten().numpy(), x[row].flatten().numpy(), eps)
        np.testing.assert_allclose(found[row], expected, atol=1e-8)


@pytest.mark.parametrize("norm, eps", [("l2", 0.3), ("l2", 0.8), ("l1", 0.5), ("l1", 1.5)])
def test_l2_and_l1_projections_agree_with_a_solver_that_knows_no_formula(norm: str, eps: float) -> None:
    x_adv, x = wishes(6, (1, 1, 5), reach=0.7, seed=1)
    found = ball(norm, eps).project(x_adv, x).flatten(1).numpy()
    for row, (a, b) in enumerate(zip(x_adv.flatten(1).numpy(), x.flatten(1).numpy(), strict=True)):
        # the change is up - down, both >= 0, so that the L1 ball is smooth too
        def distance(parts: npt.NDArray[Any], a: npt.NDArray[Any] = a, b: npt.NDArray[Any] = b) -> float:
            return float(((b + parts[:5] - parts[5:] - a) ** 2).sum())

        def room(parts: npt.NDArray[Any]) -> float:
            return float(eps**2 - ((parts[:5] - parts[5:]) ** 2).sum() if norm == "l2" else eps - parts.sum())

        bounds = [(0, 1 - v) for v in b] + [(0, v) for v in b]
        solved = minimize(
            distance,
            np.full(10, 1e-3).clip(None, [high for _, high in bounds]),
            bounds=bounds,
            method="SLSQP",
            constraints={"type": "ineq", "fun": room},
            options={"ftol": 1e-15, "maxiter": 500},
        )
        np.testing.assert_allclose(found[row], b + solved.x[:5] - solved.x[5:], atol=2e-5)
        assert ((found[row] - a) ** 2).sum() <= solved.fun + 1e-7


@pytest.mark.parametrize("eps", [0, 1, 2, 3, 6, 9])
def test_l0_projection_is_the_best_of_all_subsets_of_positions(eps: int) -> None:
    x_adv, x = wishes(30, reach=0.6)
    found = ball("l0", eps).project(x_adv, x)
    best = np.full(len(x), np.inf)
    for chosen in itertools.combinations(range(6), min(eps, 6)):
        mask = torch.zeros(6, dtype=torch.bool)
        mask[list(chosen)] = True
        candidate = torch.where(mask.view(1, 1, 2, 3), x_adv.clamp(0, 1), x)
        best = np.minimum(best, (candidate - x_adv).flatten(1).norm(dim=1).numpy())
    np.testing.assert_allclose((found - x_adv).flatten(1).norm(dim=1), best, atol=1e-12)
    assert ball("l0", eps).contains(found, x).all()


def test_norm_none_only_clips() -> None:
    x_adv, x = wishes()
    threat = ThreatModel.parse("none")
    torch.testing.assert_close(threat.project(x_adv, x), x_adv.clamp(0, 1), rtol=0, atol=0)
    assert threat.contains(x_adv.clamp(0, 1), x).all() and not threat.contains(x_adv, x).all()
    assert torch.equal(threat.start(x, Draws(0, torch.arange(len(x)))), x)


# properties of projections

PIXELS = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
CLEAN = hnp.arrays(np.float64, (1, *SHAPE), elements=PIXELS).map(torch.tensor)
CHANGES = st.one_of(st.just(0.0), st.floats(-3, 3, width=32))
CHANGE = hnp.arrays(np.float64, (1, *SHAPE), elements=CHANGES).map(torch.tensor)
EPS = st.sampled_from([0.0, 1e-4, 0.03, 0.3, 1.0, 4.0, 99.0])
THREATS = st.sampled_from(BALLS).flatmap(
    lambda norm: st.builds(ball, st.just(norm), st.integers(0, 7) if norm == "l0" else EPS)
)


@searched
@given(CLEAN, CHANGE, THREATS, st.sampled_from([torch.float32, torch.float64]))
def test_projections_land_inside_and_are_idempotent(
    clean: Tensor, change: Tensor, threat: ThreatModel, dtype: torch.dtype
) -> None:
    x, x_adv = clean.to(dtype), (clean + change).to(dtype)
    before = x.clone(), x_adv.clone()
    found = threat.project(x_adv, x)
    assert found.dtype == dtype and found.shape == x.shape
    assert threat.contains(found, x).all()
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(threat.project(found, x), found, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-9)
    assert torch.equal(x, before[0]) and torch.equal(x_adv, before[1])  # inputs are left alone


SMALLEST_TO_LARGEST = st.sampled_from([5e-324, 1e-300, 1e-45, 1e-38, 1e-30, 1e-7, 1e3, LARGEST]) | st.floats(0, LARGEST)
ANY_SIZE = st.builds(lambda sign, size: sign * 10.0**size, st.sampled_from([-1, 0, 1]), st.floats(-50, 38.4))


@searched
@given(
    CLEAN,
    hnp.arrays(np.float64, (1, *SHAPE), elements=ANY_SIZE | st.sampled_from([np.inf, -np.inf])).map(torch.tensor),
    st.sampled_from(BALLS),
    SMALLEST_TO_LARGEST,
    st.sampled_from([torch.float32, torch.float64]),
)
def test_no_size_of_ball_or_wish_or_slope_gives_pixels_that_are_no_numbers(
    x: Tensor, change: Tensor, norm: str, eps: float, dtype: torch.dtype
) -> None:
    """NaN pixels are no success: with them an attack would find nothing, and the model be called robust."""
    threat = ball(norm, int(eps) if norm == "l0" else eps)
    x, change = x.to(dtype), change.to(dtype)
    draws = Draws(0, torch.zeros(1, dtype=torch.int64), dtype=dtype)
    for found in (threat.project(x + change, x), threat.start(x, draws)):
        assert found.min() >= 0 and found.max() <= 1  # False of NaN
        assert threat.contains(found, x).all()
    step = threat.steepest(change, x, x)
    assert step.isfinite().all() and (step.sign() * change.sign() >= 0).all()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_ball_larger_than_the_box_is_the_box(norm: str) -> None:
    x_adv, x = wishes(reach=3.0)
    for eps in (20.0, LARGEST):
        torch.testing.assert_close(ball(norm, eps).project(x_adv, x), x_adv.clamp(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize("length", [1e-25, 1e-3, 1e5, 1e12, 1e25, 1e37])
def test_only_the_direction_of_a_long_wish_matters_in_l2(length: float) -> None:
    x = torch.full((1, *SHAPE), 0.5)
    change = torch.tensor([3.0, -4.0] + [0.0] * 10).view(1, *SHAPE) / 5
    found = (ball("l2", 0.1).project(x + length * change, x) - x).flatten(1)
    expected = min(0.1, length) * change.flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@searched
@given(CLEAN, CHANGE, THREATS)
def test_a_point_inside_stays_where_it_is(x: Tensor, change: Tensor, threat: ThreatModel) -> None:
    size = threat.distance(x + change, x)
    scale = 1.0 if threat.norm is Norm.L0 else 0.9 * min(1.0, threat.eps / max(float(size), 1e-12))
    inside = (x + scale * change).clamp(0, 1)
    assume(threat.distance(inside, x) <= threat.eps)
    torch.testing.assert_close(threat.project(inside, x), inside, rtol=0, atol=1e-12)


@searched
@given(CLEAN, CHANGE, CHANGE, THREATS, st.floats(0, 1))
def test_no_feasible_point_is_nearer_than_the_projection(
    x: Tensor, change: Tensor, other: Tensor, threat: ThreatModel, shrink: float
) -> None:
    x_adv = x + change
    found = threat.project(x_adv, x)
    if threat.norm is Norm.L0:
        positions = torch.arange(6).view(1, 1, 2, 3)
        feasible = torch.where((positions + int(shrink * 6)) % 6 < threat.eps, x_adv.clamp(0, 1), x)
    else:  # between the projection and a feasible point, so that near ones are met too
        far = (x + other * threat.eps / threat.distance(x + other, x).clamp_min(1e-9)).clamp(0, 1)
        feasible = found + shrink**4 * (far - found)
    assert threat.contains(feasible, x).all()
    assert (feasible - x_adv).norm() >= (found - x_adv).norm() - 1e-5 * shrink**4 - 1e-12


# float32 images of full size

FULL = ["linf:8/255", "linf:0.3", "l2:0.5", "l2:1e-3", "l2:5", "l1:0.01", "l1:1", "l1:12", "l1:200", "l0:1", "l0:50"]


def full_images(n: int = 12, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(-64, 320, (n, 3, 32, 32), generator=random).clamp(0, 255)
    return (pixels / 255).float()


@pytest.mark.parametrize("text", FULL)
@pytest.mark.parametrize("reach", [1e-4, 0.02, 0.5, 1e3])
def test_float32_projections_are_always_inside(text: str, reach: float) -> None:
    threat, x = ThreatModel.parse(text), full_images()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for change in (noise, noise * (noise.abs() > 2), noise.sign()):
        found = threat.project(x + reach * change, x)
        assert threat.contains(found, x).all()
        assert torch.isfinite(found).all() and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("norm, eps", [("l2", 0.5), ("l2", 8.0), ("l1", 1.0), ("l1", 12.0), ("l1", 300.0)])
def test_float32_projections_agree_with_float64(norm: str, eps: float) -> None:
    x = full_images()
    x_adv = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found, exact = ball(norm, eps).project(x_adv, x), ball(norm, eps).project(x_adv.double(), x.double())
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)
    reached = ball(norm, eps).distance(found, x)  # a projection from outside lands on the sphere, not well within
    torch.testing.assert_close(reached, torch.full_like(reached, eps), rtol=1e-5, atol=0)
    for far in (1e4 * (x_adv - x), 100 * (x_adv - x).sign()):  # where float32 holds no small parts of the wish
        found = ball(norm, eps).project(x + far, x)
        reached = ball(norm, eps).distance(found, x)
        torch.testing.assert_close(reached, torch.full_like(reached, eps), rtol=1e-3, atol=0)


@pytest.mark.parametrize("text", FULL)
def test_memory_format_changes_no_number(text: str) -> None:
    threat, x = ThreatModel.parse(text), full_images(6)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    grad[0] = 0
    x_adv = x + 0.2 * grad
    x_adv[1] = x[1]  # rows inside beside rows outside: only some are moved
    last = [part.contiguous(memory_format=torch.channels_last) for part in (x_adv, x, grad)]
    assert last[0].stride() != x_adv.stride()
    torch.testing.assert_close(threat.project(*last[:2]), threat.project(x_adv, x), rtol=0, atol=2e-7)
    boxed = x_adv.clamp(0, 1), last[0].clamp(0, 1)
    torch.testing.assert_close(
        threat.steepest(last[2], boxed[1], last[1]), threat.steepest(grad, boxed[0], x), rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(threat.distance(*last[:2]), threat.distance(x_adv, x), rtol=1e-5, atol=1e-6)
    ids = torch.arange(6)
    torch.testing.assert_close(threat.start(last[1], Draws(0, ids)), threat.start(x, Draws(0, ids)), rtol=0, atol=2e-7)


@pytest.mark.parametrize("text", [*FULL, "none"])
def test_no_rows_are_no_trouble(text: str) -> None:
    threat, x = ThreatModel.parse(text), torch.zeros(0, 3, 8, 8)
    for found in (
        threat.project(x, x),
        threat.steepest(x, x, x) if text != "none" else x,
        threat.start(x, Draws(0, torch.arange(0))),
    ):
        assert found.shape == x.shape
    assert threat.contains(x, x).shape == threat.distance(x, x).shape == (0,)


def test_rows_do_not_depend_on_each_other() -> None:
    x_adv, x = wishes(9)
    for norm, eps in (("linf", 0.1), ("l2", 0.5), ("l1", 0.7), ("l0", 2)):
        whole = ball(norm, eps).project(x_adv, x)
        for row in range(9):
            alone = ball(norm, eps).project(x_adv[row : row + 1], x[row : row + 1])
            torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-12)


# contains and distance


def test_distances_by_hand() -> None:
    x = torch.full((1, 2, 1, 2), 0.5)
    x_adv = x + torch.tensor([[[[0.3, 0.0]], [[-0.4, 0.0]]]])
    found = {norm: ball(norm, 0).distance(x_adv, x).item() for norm in BALLS}
    assert found == pytest.approx({"linf": 0.4, "l2": 0.5, "l1": 0.7, "l0": 1.0})


def test_contains_refuses_what_is_outside_ball_or_box_or_no_number() -> None:
    threat, x = ThreatModel.parse("linf:0.1"), torch.full((5, 1, 2, 2), 0.95)
    x_adv = x.clone()
    x_adv[1, 0, 0, 0] -= 0.101
    x_adv[2, 0, 0, 0] = 1.001
    x_adv[3, 0, 0, 0] = torch.nan
    x_adv[4, 0, 0, 0] -= 0.1 + TOLERANCE / 2
    assert threat.contains(x_adv, x).tolist() == [True, False, False, False, True]


# steepest


def test_linf_steepest_is_the_sign_zero_where_the_gradient_is() -> None:
    grad = torch.tensor([[[[-2.0, 0.0, 1e-30]]]])
    x = torch.full_like(grad, 0.5)
    assert ball("linf", 0.1).steepest(grad, x, x).flatten().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e-36, 1e30])
def test_l2_and_l1_steepest_have_unit_norm_however_small_the_gradient(scale: float) -> None:
    x = full_images()
    grad = scale * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    for norm in ("l2", "l1"):
        step = ball(norm, 1).steepest(grad, x, x)
        torch.testing.assert_close(ball(norm, 1).distance(x + step, x), torch.ones(len(x)), rtol=1e-3, atol=0)
        assert (step * grad.sign() >= 0).all()


@pytest.mark.parametrize("text", ["l2:1", "l1:1", "l0:9"])
def test_saturated_coordinates_are_never_chosen(text: str) -> None:
    x = full_images()
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    stuck = ((x == 1) & (grad > 0)) | ((x == 0) & (grad < 0))
    grad = torch.where(stuck, 100 * grad, grad)  # tempting
    assert stuck.any() and not stuck.all()
    step = ThreatModel.parse(text).steepest(grad, x, x)
    assert (step[stuck] == 0).all() and (step.flatten(1).abs().sum(1) > 0).all()


def test_l1_steepest_shares_its_unit_among_the_largest_gradients() -> None:
    grad = torch.arange(1.0, 101.0).view(1, 1, 10, 10) * torch.where(torch.arange(100) % 2 == 0, 1, -1).view(10, 10)
    x = torch.full_like(grad, 0.5)
    step = ball("l1", 1).steepest(grad, x, x, sparsity=0.05).flatten()
    assert step.nonzero().flatten().tolist() == [95, 96, 97, 98, 99]
    assert step[95:].tolist() == pytest.approx([-0.2, 0.2, -0.2, 0.2, -0.2])
    assert (ball("l1", 1).steepest(grad, x, x, sparsity=1e-9) != 0).sum() == 1  # one at least


def test_l0_steepest_moves_whole_positions() -> None:
    grad = torch.zeros(1, 2, 2, 2)
    grad[0, :, 0, 1] = torch.tensor([3.0, -0.1])
    grad[0, 0, 1, 1] = 2.0
    x = torch.full_like(grad, 0.5)
    step = ball("l0", 1).steepest(grad, x, x)
    assert step[0, :, 0, 1].tolist() == [1, -1] and step.abs().sum() == 2
    assert ball("l0", 99).steepest(grad, x, x).abs().sum() == 3


@pytest.mark.parametrize("norm", BALLS)
def test_a_gradient_of_zeros_gives_no_direction(norm: str) -> None:
    x = full_images(2)
    assert (ball(norm, 1).steepest(torch.zeros_like(x), x, x) == 0).all()


# starts


@pytest.mark.parametrize("text", FULL)
def test_starts_are_inside_differ_and_repeat(text: str) -> None:
    threat, x = ThreatModel.parse(text), full_images()
    first = threat.start(x, Draws(3, torch.arange(12)))
    assert first.dtype == x.dtype and threat.contains(first, x).all()
    assert torch.equal(first, threat.start(x, Draws(3, torch.arange(12))))
    assert not torch.equal(first, threat.start(x, Draws(4, torch.arange(12))))
    subset = torch.tensor([7, 2])
    torch.testing.assert_close(threat.start(x[subset], Draws(3, subset)), first[subset], rtol=0, atol=2e-7)


def test_starts_fill_the_ball_uniformly_where_the_box_does_not_bind() -> None:
    n, shape = 20_000, (1, 1, 4)
    x = torch.full((n, *shape), 0.5, dtype=torch.float64)
    draws = Draws(0, torch.arange(n))
    for norm in ("l2", "l1"):  # of a uniform point in a ball of dimension 4, (radius / eps)^4 is uniform in [0, 1]
        delta = (ball(norm, 0.25).start(x, draws.stream(norm)) - x).flatten(1)
        share = (ball(norm, 0).distance(delta.view_as(x), torch.zeros_like(x)) / 0.25) ** 4
        assert share.max() <= 1 + 1e-6
        for power in (1, 2, 3):
            assert share.pow(power).mean().item() == pytest.approx(1 / (power + 1), abs=0.01)
        assert delta.mean(0).abs().max() < 0.003 and (delta > 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
        spread = delta.abs().mean(0)
        assert (spread / spread.mean()).sub(1).abs().max() < 0.03  # no coordinate is favoured
    delta = ball("linf", 0.25).start(x, draws.stream("linf")) - x
    assert delta.square().mean().item() == pytest.approx(0.25**2 / 3, rel=0.02)
    moved = (ball("l0", 2).start(x, draws.stream("l0")) != x).flatten(1)
    assert (moved.sum(1) == 2).all()
    torch.testing.assert_close(moved.double().mean(0), torch.full((4,), 0.5).double(), rtol=0, atol=0.02)


@pytest.mark.parametrize("norm", BALLS)
def test_an_empty_ball_starts_and_ends_at_the_image(norm: str) -> None:
    x = full_images(3)
    assert torch.equal(ball(norm, 0).start(x, Draws(0, torch.arange(3))), x)
    torch.testing.assert_close(ball(norm, 0).project(x + 0.3, x), x, rtol=0, atol=1e-7)


# how a threat model is written


@pytest.mark.parametrize(
    "text, norm, eps",
    [
        ("linf:8/255", "linf", 8 / 255),
        (" L2:0.5 ", "l2", 0.5),
        ("l1:12", "l1", 12),
        ("l0:3", "l0", 3),
        ("none", "none", 0),
    ],
)
def test_parse_reads_what_users_write(text: str, norm: str, eps: float) -> None:
    threat = ThreatModel.parse(text)
    assert threat == ThreatModel(Norm(norm), eps)
    assert ThreatModel.parse(threat) is threat


@pytest.mark.parametrize(
    "text, message",
    [
        ("linff:0.1", 'unknown norm "linff".*did you mean "linf"'),
        ("", "unknown norm"),
        ("linf", "has no eps"),
        ("l2:", "has no eps"),
        ("l2:-0.1", "eps is -0.1"),
        ("l2:nan", '"nan" is no number'),
        ("l2:1e999", '"1e999" is no number'),
        ("l2:8/0", "is no number"),
        ("l2:half", "is no number"),
        ("linf:8", r"linf eps of 8.*8/255"),
        ("linf:0.5", r"allowed is \[0, 0.5\)"),
        ("l0:1.5", "whole number"),
        ("none:0.3", "eps must be 0"),
        ("linf:1e999999999", '"1e999999999" is no number'),  # as a fraction, all its digits would be written out
        ("linf:1e-999999999/3", "is no number"),
        ("l2:" + "9" * 5000, r'"9{40}\.\.\." is no number'),
        ("l2:1/" + "9" * 5000, r'"1/9{38}\.\.\." is no number'),
        pytest.param("l2:" + "x" * 10**6, "is no number", id="a long number"),
        pytest.param("x" * 10**6, "unknown norm", id="a long norm"),
        ("l2:1e300", r"eps is 1e\+300: give a finite number .* not above 1e\+06"),
        ("l0:1e300", "not above"),
        ("linf:0.3:0.3", "is no number"),
        ("l2:0.3\0", "is no number"),
        (None, "threat is 'None'"),
        (("linf", 0.3, 1), r"threat is \"\('linf', 0\.3, 1\)\": write"),
        (("linf", None), "is no number"),
        (("lonf", 0.3), "unknown norm"),
        (0.3, "threat is '0.3'"),
    ],
)
def test_parse_refuses_with_the_reason(text: Any, message: str) -> None:
    with pytest.raises(ThreatError, match=message):
        ThreatModel.parse(text)


@pytest.mark.parametrize("pair", [("linf", "8/255"), ("linf", 8 / 255), ("none", 0), ("l0", 3)])
def test_a_pair_is_a_threat(pair: tuple[str, str | float]) -> None:
    assert ThreatModel.parse(pair) == ThreatModel.parse(f"{pair[0]}:{pair[1]}")


def test_eps_that_is_no_finite_number_is_refused() -> None:
    odd: list[Any] = [math.nan, math.inf, -1.0, "0.5", None, True, 10**400, 1 + 0j]
    for eps in odd:
        with pytest.raises(ThreatError, match="finite"):
            ThreatModel(Norm.L2, eps)
    with pytest.raises(ThreatError, match="norm is 'linf': give one of Norm"):
        ThreatModel("linf", 0.9)  # type: ignore[arg-type]  # whose limits would not have been looked at


def test_what_is_no_number_is_quoted_in_short() -> None:
    odd: tuple[Any, ...] = (None, [], "", "0x10", "1e", 10**5000, "1" * 5000 + "/7", "1_0/0", object())
    for value in odd:
        with pytest.raises(ThreatError, match="is no number") as raised:
            parse_number(value)
        assert len(str(raised.value)) < 120


def test_a_large_linf_eps_is_taken_when_asked_for() -> None:
    assert ThreatModel.parse("linf:0.5", allow_large=True).eps == 0.5
    assert ThreatModel.parse("linf:0.499").eps == 0.499


def test_numbers_and_fractions() -> None:
    assert parse_number("8/255") == 8 / 255 and parse_number(0.3) == 0.3 and parse_number("1e-3") == 1e-3


@pytest.mark.parametrize(
    "text", ["linf:8/255", "linf:0.3", "linf:0.2", "linf:0", "l2:0.5", "l2:128/255", "l1:12", "l0:1", "none"]
)
def test_a_threat_is_written_as_users_write_it(text: str) -> None:
    assert str(ThreatModel.parse(text)) == text


@searched
@given(st.sampled_from(["linf", "l2", "l1"]), st.floats(0, 1000) | st.integers(0, 127).map(lambda k: k / 255))
def test_writing_and_reading_a_threat_loses_nothing(norm: str, eps: float) -> None:
    threat = ThreatModel(Norm(norm), eps, allow_large=True)
    assert ThreatModel.parse(str(threat), allow_large=True) == threat


@pytest.mark.parametrize(
    ("outer", "inner", "holds"),
    [
        (("linf", 0.2), ("linf", 0.2), True),
        (("linf", 0.2), ("linf", 0.1), True),
        (("linf", 0.1), ("linf", 0.2), False),
        (("linf", 0.2), ("l2", 0.2), True),
        (("linf", 0.2), ("l1", 0.1), True),
        (("l2", 0.2), ("l1", 0.2), True),
        (("l2", 0.2), ("linf", 0.2), False),
        (("l1", 0.2), ("l2", 0.2), False),
        (("l0", 2), ("l0", 1), True),
        (("linf", 0.2), ("l0", 1), False),
        (("none", 0), ("l0", 1), True),
        (("linf", 0.2), ("none", 0), False),
    ],
)
def test_a_ball_holds_those_that_lie_inside(outer: tuple[str, float], inner: tuple[str, float], holds: bool) -> None:
    """And images of the inner one, as far as it reaches along one pixel and along all, say the same."""
    one, other = ball(*outer), ball(*inner)
    assert one.holds(other) is holds
    wish, x = wishes(40, reach=3.0)
    alone = torch.zeros_like(x)
    alone[:, 0, 0, 0] = 1.0
    tried = torch.cat([x + (wish - x), x + alone * (wish - x)])
    inside = other.project(tried, torch.cat([x, x]))
    assert bool(one.contains(inside, torch.cat([x, x])).all()) is holds
