from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from robustbench_local.core import losses
from robustbench_local.core.errors import ConfigError

Z = torch.tensor([[3.0, 1.0, 0.0, -2.0], [1.0, 4.0, 2.0, 3.5]], dtype=torch.float64)
Y = torch.tensor([0, 2])  # the first is right by 2, the second wrong by 2
LOG_SUMS = [math.log(sum(math.exp(v) for v in row)) for row in Z.tolist()]


def random_logits(n: int = 200, k: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, dtype=torch.float64, generator=generator)
    return logits, torch.randint(k, (n,), generator=generator)


def test_values_by_hand() -> None:
    p = Z.exp() / Z.exp().sum(1, keepdim=True)
    expected = {
        "ce": [LOG_SUMS[0] - 3, LOG_SUMS[1] - 2],
        "margin": [1 - 3, 4 - 2],
        "probability_margin": [float(p[0, 1] - p[0, 0]), float(p[1, 1] - p[1, 2])],
        "dlr": [-2 / (3 - 0), 2 / (4 - 2)],
    }
    assert set(expected) == set(losses.NAMES)
    for name, values in expected.items():
        assert losses.named(name)(Z, Y).tolist() == pytest.approx(values), name


def test_targeted_values_by_hand() -> None:
    target = torch.tensor([1, 3])
    expected = {
        "ce": [1 - LOG_SUMS[0], 3.5 - LOG_SUMS[1]],
        "margin": [1 - 3, 3.5 - 4],
        "dlr": [-2 / (3 - (0 - 2) / 2), -0.5 / (4 - (2 + 1) / 2)],
    }
    for name, values in expected.items():
        assert losses.named(name, targeted=True)(Z, target).tolist() == pytest.approx(values), name
    assert losses.margin_to(Z, Y, target).tolist() == [1 - 3, 3.5 - 2]


def test_best_other_leaves_out_the_class_and_its_input_alone() -> None:
    logits = Z.clone()
    assert losses.best_other(logits, Y).tolist() == [1, 4] and torch.equal(logits, Z)
    assert losses.best_other(Z, torch.tensor([1, 1])).tolist() == [3, 3.5]


@pytest.mark.parametrize("name", ["margin", "probability_margin", "dlr"])
def test_the_sign_says_whether_the_image_fell(name: str) -> None:
    logits, y = random_logits()
    wrong = logits.argmax(1) != y
    assert 0 < wrong.sum() < len(y)
    assert torch.equal(losses.named(name)(logits, y) > 0, wrong)
    assert torch.equal(losses.named(name, targeted=True)(logits, y) > 0, ~wrong)


@pytest.mark.parametrize("name", losses.NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    logits, y = random_logits(6)
    for targeted in (False, True):
        loss = losses.named(name, targeted=targeted)
        assert gradcheck(lambda z, loss=loss: loss(z, y[:6]), (logits[:6].requires_grad_(),))


def climb(loss: Callable[..., Any], logits: Tensor, y: Tensor, steps: int = 150, size: float = 0.1) -> Tensor:
    """The logits after ascent in the loss, as an attack would see them with pixels that are logits."""
    logits = logits.clone()
    for _ in range(steps):
        logits.requires_grad_()
        (grad,) = torch.autograd.grad(loss(logits, y).sum(), logits)
        logits = logits.detach() + size * grad.sign()
    return logits


@pytest.mark.parametrize("name", losses.NAMES)
def test_raising_a_loss_leaves_the_class_and_raising_its_targeted_form_reaches_it(name: str) -> None:
    logits, y = random_logits()
    logits = logits / 3
    away = climb(losses.named(name), logits, y)
    reached = climb(losses.named(name, targeted=True), logits, y)
    assert (away.argmax(1) == y).double().mean() < 0.02
    assert (reached.argmax(1) == y).double().mean() > 0.98
    flipped = climb(lambda z, c: -losses.named(name, targeted=True)(z, c), logits, y)  # what a wrong sign would do
    assert (flipped.argmax(1) == y).double().mean() < 0.02


@pytest.mark.parametrize("name", losses.NAMES)
@pytest.mark.parametrize("targeted", [False, True])
def test_a_shift_of_all_logits_changes_nothing(name: str, targeted: bool) -> None:
    logits, y = random_logits()
    loss = losses.named(name, targeted=targeted)
    torch.testing.assert_close(loss(logits + 7.5, y), loss(logits, y))


@pytest.mark.parametrize("targeted", [False, True])
def test_dlr_is_the_same_at_any_scale_and_margin_is_not(targeted: bool) -> None:
    logits, y = random_logits()
    dlr, margin = (losses.named(name, targeted=targeted) for name in ("dlr", "margin"))
    torch.testing.assert_close(dlr(1000 * logits, y), dlr(logits, y))
    torch.testing.assert_close(margin(1000 * logits, y), 1000 * margin(logits, y))


def test_dlr_keeps_a_gradient_where_cross_entropy_has_none() -> None:
    logits = (1000 * Z).float().requires_grad_()
    y = logits.argmax(1)
    (ce,) = torch.autograd.grad(losses.ce(logits, y).sum(), logits)
    (dlr,) = torch.autograd.grad(losses.dlr(logits, y).sum(), logits)
    assert (ce == 0).all() and (dlr != 0).any(1).all()


def test_kl_by_hand_and_its_invariances() -> None:
    reference, logits = Z[:1].log_softmax(1), Z[1:].log_softmax(1)
    expected = (reference.exp() * (reference - logits)).sum()
    assert losses.kl(Z[1:], Z[:1]).item() == pytest.approx(expected.item())
    a, b = random_logits(seed=1)[0], random_logits(seed=2)[0]
    assert (losses.kl(a, b) > 0).all() and losses.kl(a, a).abs().max() < 1e-12
    torch.testing.assert_close(losses.kl(a + 3, b - 2), losses.kl(a, b))
    assert not torch.allclose(losses.kl(a, b), losses.kl(b, a))  # the order matters
    assert gradcheck(losses.kl, (a[:4].requires_grad_(), b[:4].requires_grad_()))


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r'unknown loss "margn".*did you mean "margin".*ce, margin'):
        losses.named("margn")
    with pytest.raises(ConfigError, match="3 classes or more, the model has 2"):
        losses.dlr(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ConfigError, match="4 classes or more, the model has 3"):
        losses.dlr_targeted(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))


def test_no_rows_give_no_losses() -> None:
    for name in losses.NAMES:
        assert losses.named(name)(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)).shape == (0,)
