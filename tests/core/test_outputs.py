"""What models return, read as logits; and what no reading makes logits of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local import evaluate
from robustbench_local.core.errors import ModelError
from robustbench_local.core.outputs import form_of, logits_of
from robustbench_local.core.verdict import Verdict

X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LAST = nn.Linear(16, 3)
nn.init.normal_(LAST.weight, generator=torch.Generator().manual_seed(1))
NET = nn.Sequential(nn.Flatten(), LAST)
Y = NET(X).argmax(1)


@dataclass
class Output:
    logits: Tensor


class Returns(nn.Module):
    def __init__(self, what: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.what = NET, what

    def forward(self, x: Tensor) -> Any:
        return self.what(self.net(x))


def verdict(what: Callable[[Tensor], Any]) -> Verdict:
    return evaluate(Returns(what), X, Y, "pgd", "linf:0.1", steps=5)


PLAIN = verdict(lambda z: z)


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ("tuple", lambda z: (z, z.sum())),
        ("list", lambda z: [z]),
        ("dict", lambda z: {"features": z[:, :2], "logits": z}),
        ("dict", lambda z: {"only": z}),
        ("Output", Output),
        ("tuple", lambda z: ({"logits": z},)),
    ],
)
def test_every_form_has_the_verdict_of_its_logits(form: str, what: Callable[[Tensor], Any]) -> None:
    found = verdict(what)
    assert torch.equal(found.x_adv, PLAIN.x_adv) and torch.equal(found.robust, PLAIN.robust)
    assert found.flags == (*PLAIN.flags, f"output_form:{form}")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halves_are_read_in_float32(kind: torch.dtype) -> None:
    found = logits_of(NET(X).to(kind))
    assert isinstance(found, Tensor) and found.dtype is torch.float32
    assert f"output_form:{str(kind).removeprefix('torch.')}" in verdict(lambda z: z.to(kind)).flags


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_one_logit_is_two_with_the_same_sigmoid(shape: tuple[int, ...]) -> None:
    z = torch.linspace(-20, 20, 40)
    two = logits_of(z.reshape(shape))
    assert isinstance(two, Tensor)
    torch.testing.assert_close(two.softmax(1)[:, 1], z.sigmoid())
    assert form_of(z.reshape(shape)) == "binary"


def test_logarithms_are_taken_of_probabilities() -> None:
    with pytest.warns(UserWarning, match="their logarithms are taken"):
        soft = verdict(lambda z: z.softmax(1))
    assert "probabilities" in soft.flags and torch.equal(soft.robust, PLAIN.robust)
    torch.testing.assert_close(soft.clean_scores, PLAIN.clean_scores, atol=1e-4, rtol=1e-4)


def test_one_probability_is_that_of_class_1() -> None:
    z = NET(X)[:, 1] - NET(X)[:, 0]
    y = (z > 0).long()
    nets = [Returns(lambda out: (out[:, 1] - out[:, 0]).sigmoid()), Returns(lambda out: out[:, :2])]
    with pytest.warns(UserWarning, match="their logarithms are taken"):
        one = evaluate(nets[0], X, y, "pgd", "linf:0.1", steps=5)
    two = evaluate(nets[1], X, y, "pgd", "linf:0.1", steps=5)
    assert one.clean.all() and torch.equal(one.robust, two.robust)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda z: z.argmax(1), r"int64 \(40,\) .*outputs: labels"),
        (lambda z: {"a": z, "b": z}, "returned dict"),
        (lambda z: None, "returned NoneType"),
        (lambda z: (), "returned tuple"),
        (lambda z: z[:, :, None], r"float32 \(40, 3, 1\)"),
        (lambda z: z[:5], r"float32 \(5, 3\) for 40 images"),
        (lambda z: z.to(torch.complex64), "floating point"),
        (lambda z: z.long(), "floating point"),
    ],
)
def test_anything_else_is_named_with_its_shape(what: Callable[[Tensor], Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        verdict(what)
