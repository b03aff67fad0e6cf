"""Rotations and translations: exact where a pose moves whole pixels, nothing but labels asked, beside Foolbox."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.spatial import Spatial, moved
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model

NONE = ThreatModel.parse("none")


def picture(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def poses(*values: tuple[float, float, float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def black(x: Tensor) -> bool:
    return bool((x < 1e-9).all())


@pytest.mark.parametrize("shape", [(1, 3, 7, 7), (1, 1, 6, 8)])
def test_whole_pixels_and_quarter_turns_move_exactly(shape: tuple[int, ...]) -> None:
    x = picture(*shape)
    still, right, down, both = moved(x, poses((0, 0, 0), (0, 1, 0), (0, 0, 2), (0, -2, 1)))[0]
    assert torch.allclose(still, x[0])
    assert torch.allclose(right[:, :, 1:], x[0, :, :, :-1]) and black(right[:, :, 0])
    assert torch.allclose(down[:, 2:], x[0, :, :-2]) and black(down[:, :2])
    assert torch.allclose(both[:, 1:, :-2], x[0, :, :-1, 2:]) and black(both[:, :, -2:])
    half, back = moved(x, poses((180, 0, 0), (-180, 0, 0)))[0]
    assert torch.allclose(half, x[0].flip(1, 2)) and torch.allclose(back, half)
    if shape[2] == shape[3]:
        turn, other = moved(x, poses((90, 0, 0), (-90, 0, 0)))[0]
        assert torch.allclose(turn.flip(1, 2), other)
        assert torch.allclose(turn, x[0].rot90(-1, (1, 2))) or torch.allclose(turn, x[0].rot90(1, (1, 2)))
        shifted = moved(x, poses((90, 1, 0)))[0, 0]  # the turn comes first
        assert torch.allclose(shifted[:, :, 1:], turn[:, :, :-1])


class Where(nn.Module):
    """Class 1 where the bright dot is in column `column`, class 0 elsewhere. It knows no gradient."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() or not x.requires_grad
        there = x[..., self.column].flatten(1).amax(1) - 0.9
        return torch.stack([-there, there], 1).detach()


def dot(count: int = 3) -> Tensors:
    x = torch.zeros(count, 1, 9, 9)
    x[:, :, 4, 4] = 1
    return Tensors(x, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def test_the_one_translation_that_fools_is_found_and_out_of_reach_it_is_not() -> None:
    attack = Spatial(rotations=1, translations=7)
    verdict = Judge()(Where(7), dot(), attack, NONE)
    assert not verdict.robust.any() and verdict.x_adv[:, 0, :, 7].amax(1).eq(1).all()
    assert Judge()(Where(8), dot(), attack, NONE).robust.all()
    assert Judge()(Where(7), dot(), Spatial(rotations=1, translations=7, translation=0), NONE).robust.all()


class NoStep(Spatial):
    def _poses(self, draws: Draws) -> Tensor:
        return torch.zeros_like(super()._poses(draws))


class OneWay(Spatial):
    """Half of every range is never tried."""

    def _poses(self, draws: Draws) -> Tensor:
        return -super()._poses(draws).abs()


@pytest.mark.parametrize("broken", [NoStep, OneWay])
def test_broken_twins_are_caught(broken: type[Spatial]) -> None:
    assert Judge()(Where(7), dot(), broken(rotations=1, translations=7), NONE).robust.all()


@pytest.mark.parametrize("attack", [Spatial(rotations=3, translations=4), Spatial(search="random", tries=70)])
def test_the_cost_is_one_forward_a_pose_and_no_gradient(attack: Spatial) -> None:
    verdict = Judge()(Where(8), dot(), attack, NONE)
    assert verdict.forwards.eq(attack.cost(2)[0]).all() and not verdict.backwards.any()
    assert attack.cost(2)[0] == (48 if attack.search == "grid" else 70)
    assert Spatial().cost(10) == (775, 0)


@pytest.mark.parametrize("attack", [Spatial(rotations=3, translations=3), Spatial(search="random", tries=20)])
def test_batch_order_and_company_change_nothing(attack: Spatial) -> None:
    x, y = load_data("mnist", n=20, source="bundled")
    model = load_model("zoo:mnist/none").double()
    data = Tensors(x.double(), y, torch.arange(20))
    judge = Judge(precision="float64")
    whole = judge(model, data, attack, NONE)
    assert torch.equal(data.x, x.double()) and whole.x_adv.min() >= 0 and whole.x_adv.max() <= 1
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    shuffled = Tensors(data.x[order], y[order], order)
    part = Judge(precision="float64", batch_size=7)(model, shuffled, attack, NONE)
    assert torch.equal(part.robust, whole.robust[order]) and torch.equal(part.forwards, whole.forwards[order])
    assert torch.allclose(part.x_adv, whole.x_adv[order], rtol=0, atol=1e-12)


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"search": "gradient"}, {"rotation": 200}, {"translation": -1}, {"tries": 0}, {"rotations": 0}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            Spatial(**settings)


@pytest.mark.parametrize("source", ["mnist/none", pytest.param("cifar10/none", marks=pytest.mark.slow)])
def test_it_leaves_no_more_robust_than_foolbox(source: str) -> None:
    """The same 125 poses."""
    foolbox = pytest.importorskip("foolbox")
    x, y = load_data(source.split("/")[0], n=30, source="bundled")
    model = load_model(f"zoo:{source}")
    ours = evaluate(model, x, y, Spatial(rotations=5, translations=5), "none")
    images = foolbox.attacks.SpatialAttack()(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y)[0]
    with torch.no_grad():
        robust = (model(images).argmax(1) == y).double().mean().item()
    assert ours.clean_accuracy - ours.robust_accuracy > 0.2
    assert ours.robust_accuracy <= robust + 0.005
