from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.core.model_state import as_deployed, full_float32


def mixed_model() -> nn.Module:
    """Modules in different modes, one parameter frozen, one with a gradient already."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model.train()
    model[1].eval()
    model[3].weight.requires_grad_(False)
    model[0].weight.grad = torch.full((4, 3), 7.0)
    return model


def state(model: nn.Module) -> tuple[list[bool], list[bool], list[Any], dict[str, Tensor]]:
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()],
        {name: value.clone() for name, value in model.state_dict().items()},
    )


def assert_same(model: nn.Module, before: tuple[list[bool], list[bool], list[Any], dict[str, Tensor]]) -> None:
    modes, wanted, grads, values = state(model)
    assert (modes, wanted) == before[:2]
    for now, then in zip(grads, before[2], strict=True):
        assert (now is None) == (then is None) and (now is None or torch.equal(now, then))
    assert all(torch.equal(value, before[3][name]) for name, value in values.items())


def test_inside_the_model_is_in_evaluation_mode_and_only_inputs_have_gradients() -> None:
    model = mixed_model()
    x = torch.rand(5, 3, requires_grad=True)
    before = state(model)
    with as_deployed(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        out = model(x)
        assert torch.equal(out, model(x))  # no dropout, no batch statistics
        out.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert_same(model, before)


def test_everything_is_restored_when_an_attack_fails() -> None:
    model = mixed_model()
    before = state(model)
    with pytest.raises(ValueError, match="inside"), as_deployed(model):
        raise ValueError("inside")
    assert_same(model, before)
    assert before[0] != [False] * 5 and before[1] != [False] * len(before[1])


def test_uses_within_each_other_restore_what_each_found() -> None:
    model = mixed_model()
    before = state(model)
    with as_deployed(model):
        with as_deployed(model):
            pass
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert_same(model, before)


def test_a_parameter_used_twice_is_restored() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with as_deployed(model):
        assert not model[0].weight.requires_grad
    assert model[1].weight.requires_grad


@pytest.mark.parametrize("precision, tf32", [("highest", False), ("high", True), ("medium", True)])
def test_full_float32_holds_whatever_the_user_had_set_and_gives_it_back(precision: str, tf32: bool) -> None:
    def settings() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    original = settings()
    try:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = tf32
        with pytest.raises(ValueError, match="inside"), full_float32():
            assert settings() == ("highest", False)
            assert not torch.backends.cuda.matmul.allow_tf32
            on_cpu: Any = torch.backends.mkldnn
            assert on_cpu.matmul.fp32_precision in ("ieee", "none")
            raise ValueError("inside")
        assert settings() == (precision, tf32)
    finally:
        torch.set_float32_matmul_precision(original[0])
        torch.backends.cudnn.allow_tf32 = original[1]


def test_a_part_that_refuses_eval_keeps_no_other_in_training() -> None:
    exported = torch.export.export(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (torch.rand(2, 4),)).module()
    model = nn.Sequential(exported, nn.Dropout(0.5))
    with as_deployed(model):
        assert not any(part.training for part in model.modules())
        x = torch.rand(2, 4)
        assert torch.equal(model(x), model(x))
