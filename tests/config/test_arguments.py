"""One mechanism holds arguments against their annotations, for functions, dataclasses and grid files alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.config.arguments import Classes, checked
from robustbench_local.config.ranges import Count, Finite, Positive, Range, Seed, Share
from robustbench_local.config.settings import fit, fit_fields, fitted, shown, spell
from robustbench_local.core.errors import ConfigError, DataError, ModelError, RobustBenchError, StoreError
from robustbench_local.data.load import open_data
from robustbench_local.models.build import build_model

Odd = Annotated[int, Range(1, 5)]


@pytest.mark.parametrize(
    ("hint", "takes", "refuses"),
    [
        (int, [3, np.int64(3), np.uint8(3)], [3.0, True, np.bool_(True), "3", None, torch.tensor(3), [3], 3j]),
        (float, [3, 3.0, np.float32(3), "3", "9/3"], [float("nan"), np.float64("nan"), True, "three", None, 10**400]),
        (bool, [True, np.bool_(True)], [1, 0, "true", "no", None]),
        (str, ["a", np.str_("a")], [b"a", 1, None, ["a"]]),
        (Count, [1, 10**9], [0, -1, 1.0, float("inf")]),
        (Seed, [0, 2**63 - 1], [-1, 2**63]),
        (Positive, [1e-300, 1], [0, -1, float("inf")]),
        (Share, [0.5], [0, 1, 1.5, -0.1]),
        (Finite, [0, -5.5], [float("inf"), -float("inf")]),
        (Odd | None, [None, 1, 5], [0, 6, "1"]),
        (Odd | list[Odd], [1, [1, 2]], [[0], [1, "2"], (x for x in (1, 2))]),
        (Literal["a", "b", 1], ["a", 1, np.str_("b")], ["c", True, 1.0, torch.ones(2), np.ones(2)]),
        (tuple[int, ...], [(1, 2), [1]], [[1.5], 3]),
        (tuple[int, str], [(1, "a"), [1, "a"]], [(1,), (1, "a", 2), ("a", 1)]),
        (Sequence[int], [[1, 2], (1, 2), range(2), np.arange(3), torch.arange(3)], ["12", {1, 2}, np.ones((2, 2))]),
        (dict[str, int], [{"a": 1}], [{"a": "b"}, [("a", 1)]]),
        (Callable[[int], int], [abs, lambda x: x], [3]),
        (nn.Module | None, [None, nn.ReLU()], [nn.ReLU, "relu"]),
    ],
)
def test_what_fits(hint: Any, takes: list[Any], refuses: list[Any]) -> None:
    for value in takes:
        fit(value, hint)
    for value in refuses:
        with pytest.raises(ConfigError, match=r"^it is .*: it must be "):
            fitted(value, hint, "it")


def test_numpys_numbers_become_pythons() -> None:
    assert type(fit(np.int64(3), int)) is int and type(fit(np.float32(0.5), float)) is float
    assert fit([np.int64(1)], list[int]) == [1] and fit(np.arange(2), Sequence[int]) == [0, 1]


def test_a_class_for_each_image() -> None:
    hint = Annotated[Any, Classes()]
    wanted = torch.tensor([1, 0, 2])
    for value in (wanted, [1, 0, 2], (1, 0, 2), np.array([1, 0, 2], np.uint8), wanted.int()):
        found = fit(value, hint)
        assert found.dtype == torch.int64 and torch.equal(found, wanted)
    for odd in (1, "abc", [1.0], [[1]], [[1], [1, 2]], [True], torch.ones(3), np.array(["a"]), [None], {1}):
        with pytest.raises(TypeError):
            fit(odd, hint)


def test_words() -> None:
    assert spell(Count) == "a whole number, at least 1 and below 2**63"
    assert spell(Odd | None) == "a whole number in [1, 5] or null"
    assert spell(Positive) == "a number above 0, and finite" and spell(Share) == "a number in (0, 1)"
    assert spell(tuple[int, str]) == "(a whole number, text)"
    assert shown(torch.ones(2, 3)) == "a tensor of torch.float32, shape (2, 3)"
    assert shown(np.ones(2)) == "an array of float64, shape (2,)"
    assert shown(nn.ReLU) == "the class ReLU" and shown(object()) == "a object"
    assert len(shown("a" * 10**6)) < 200 and len(shown(list(range(10**6)))) < 200 and len(shown(10**400)) < 200


def test_fields_of_a_dataclass() -> None:
    @dataclass(frozen=True)
    class Some:
        count: int = 1

        def __post_init__(self) -> None:
            fit_fields(self)

    assert type(Some(np.int64(2)).count) is int  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="count is 'a': it must be a whole number"):
        Some("a")  # type: ignore[arg-type]


@checked(ModelError)
def asked(first: int, second: Count = 1, *, third: Tensor | None = None) -> tuple[int, int]:
    """Says."""
    return first, second


def test_arguments_of_a_function() -> None:
    assert asked(np.int64(1), second=2) == (1, 2) and asked.__doc__ == "Says."  # type: ignore[arg-type]
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        (("a",), {}, "first is 'a': it must be a whole number"),
        ((1, 0), {}, "second is 0: it must be a whole number, at least 1"),
        ((), {}, "asked: missing a required argument: 'first'; it has first, second, third"),
        ((1, 2, 3), {}, "asked: too many positional arguments"),
        ((1,), {"secund": 3}, r'asked has no argument "secund" \(did you mean "second"\?\)'),
    ]
    for args, kwargs, says in wrong:
        with pytest.raises(ModelError, match=says):
            asked(*args, **kwargs)
    with pytest.raises(DataError, match="third is 3"):
        asked(1, third=3)  # type: ignore[arg-type]


X, Y = torch.rand(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64)
NET = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
WRONG: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], type[RobustBenchError], str]] = [
    (rbl.load_data, (3,), {}, DataError, "name is 3: it must be text"),
    (rbl.load_data, ("mnist", "5"), {}, DataError, "n is '5': it must be a whole number"),
    (rbl.load_data, ("mnist", 5.0), {}, DataError, "n is 5.0"),
    (rbl.load_data, ("mnist", True), {}, DataError, "n is True"),
    (rbl.load_data, ("mnist", float("nan")), {}, DataError, "n is nan"),
    (rbl.load_data, ("mnist",), {"nn": 3}, DataError, 'load_data has no argument "nn" .did you mean "n"'),
    (rbl.load_data, ("mnist",), {"ids": [1.5], "source": "bundled"}, DataError, r"ids is \[1.5\]"),
    (rbl.load_data, ("mnist",), {"ids": 3}, DataError, "ids is 3"),
    (rbl.load_data, ("mnist",), {"sample": True}, DataError, "sample is True"),
    (rbl.load_data, ("mnist",), {"split": None}, DataError, "split is None"),
    (rbl.load_data, ("mnist",), {"seed": -1}, DataError, "seed is -1"),
    (rbl.load_data, ("mnist",), {"source": 3}, DataError, "source is 3"),
    (rbl.load_data, ("mnist", 1), {"device": "cdua"}, ConfigError, 'unknown device "cdua"'),
    (rbl.load_data, ("mnist", 1), {"device": "cuda:77"}, ConfigError, "device cuda:77 is not there"),
    (rbl.load_data, ("mnist", 1), {"device": "meta"}, ConfigError, "device meta holds no images here"),
    (open_data, ("mnist",), {"n": "x"}, DataError, "n is 'x'"),
    (rbl.load_model, (None,), {}, ModelError, "spec is None: it must be text"),
    (rbl.load_model, (nn.ReLU(),), {}, ModelError, "spec is ReLU"),
    (rbl.load_model, ("zoo:mnist/none",), {"device": 3}, ModelError, "device is 3"),
    (rbl.load_model, ("zoo:mnist/none",), {"device": "meta"}, ConfigError, "device meta"),
    (rbl.load_model, ("mnist_small",), {"weights": 5}, ModelError, "weights is 5"),
    (rbl.load_model, ("mnist_small",), {"allow_pickle": "no", "weights": "a"}, ModelError, "allow_pickle is 'no'"),
    (build_model, ("mnist_small",), {"seed": "a"}, ModelError, "seed is 'a'"),
    (rbl.normalised, (NET, 0.5, 0.5), {}, ConfigError, "mean is 0.5: it must be a list of: a number"),
    (rbl.normalised, (NET, [0.5], [0.0]), {}, ConfigError, r"std is \[0.0\]: .* above 0"),
    (rbl.normalised, (NET, [0.5], [-1]), {}, ConfigError, r"std is \[-1\]"),
    (rbl.normalised, (NET, [0.5, 0.5], [1]), {}, ConfigError, "mean has 2 values and std 1"),
    (rbl.normalised, (NET, [float("nan")], [1]), {}, ConfigError, r"mean is \[nan\]"),
    (rbl.normalised, (NET, [], []), {}, ConfigError, "mean has 0 values"),
    (rbl.normalised, (NET, [125.3], [63.0]), {}, ConfigError, "look like grey levels"),
    (rbl.normalised, ("net", [0.5], [1]), {}, ConfigError, "net is 'net': it must be an nn.Module"),
    (rbl.audit_model, (NET, X, Y, "linf:0.1"), {"attack": "pgd"}, ConfigError, "attack is 'pgd'"),
    (rbl.audit_model, (NET, X.numpy(), Y), {}, DataError, "x is an array"),
    (rbl.audit_model, (NET, X, Y), {"classes": 0}, ConfigError, "classes is 0"),
    (rbl.audit_model, (NET, X, Y), {"seed": 0.5}, ConfigError, "seed is 0.5"),
    (
        rbl.audit_model,
        (NET, X, Y),
        {"surrogates": "zoo:mnist/none"},
        ConfigError,
        "surrogates is 'zoo:mnist/none': .* a list",
    ),
    (rbl.audit_model, (NET, X, Y), {"train": X}, DataError, "train is a tensor"),
    (rbl.audit_model, (NET, X, Y), {"effort": 2}, ConfigError, "effort is 2"),
    (rbl.run_grid, (3,), {}, ConfigError, "grid is 3"),
    (rbl.load_data, ("mnist",), {"source": "a\0b"}, DataError, "source is .* without NUL"),
    (rbl.load_data, ("mnist",), {"source": "\ud800"}, DataError, "source is .* can be a path"),
    (rbl.load_model, ("mnist_small",), {"weights": "\0"}, ModelError, "weights is .* without NUL"),
    (rbl.load_model, ("mnist_small",), {"weights": "a" * 5000}, ModelError, "cannot open .* too long"),
    (rbl.run_grid, ("a\0",), {}, ConfigError, "grid is .* without NUL"),
    (rbl.run_grid, ("quickstart",), {"results": "\0"}, ConfigError, "results of grid .* without NUL"),
    (rbl.run_grid, ("quickstart",), {"results": "a" * 5000}, StoreError, "too long"),
    (rbl.run_grid, ("quickstart",), {"eot": 0}, ConfigError, "eot of grid .* is 0: it must be"),
    (rbl.run_grid, ("quickstart",), {"seeds": [0, -1]}, ConfigError, r"seeds of grid .* is \[0, -1\]"),
    (rbl.run_grid, ("quickstart",), {"targets": "randon"}, ConfigError, 'did you mean "random"'),
    (rbl.run_grid, ("quickstart",), {"precision": "half"}, ConfigError, "it must be float32 or fast or float64"),
    (rbl.run_grid, ("quickstart",), {"budget": float("nan")}, ConfigError, "budget of grid .* is nan"),
    (rbl.run_grid, ("quickstart",), {"severities": 6}, ConfigError, r"severities .* is 6: .* in \[1, 5\]"),
]


@pytest.mark.parametrize(("function", "args", "kwargs", "error", "says"), WRONG)
def test_public_functions(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        function(*args, **kwargs)


def test_what_is_right_in_another_spelling_is_taken() -> None:
    x, y = rbl.load_data("mnist", np.int64(4), source="bundled", device=torch.device("cpu"))  # type: ignore[arg-type]
    model = rbl.load_model("zoo:mnist/none")
    wanted = (y + 1) % 10
    first = rbl.evaluate(model, x, y, "fgsm", "linf:0.3", targets=wanted)
    for targets in (wanted.tolist(), wanted.numpy(), wanted.int()):
        assert torch.equal(rbl.evaluate(model, x, y, "fgsm", "linf:0.3", targets=targets).x_adv, first.x_adv)
    numbers: dict[str, Any] = {"seed": np.int64(3), "steps": np.int64(2), "budget": np.int32(9)}
    for seen in (x.clone().requires_grad_(), x.to(memory_format=torch.channels_last), x.mT.contiguous().mT):
        verdict = rbl.evaluate(model, seen, y, "pgd", "linf:0.1", **numbers)
        assert not verdict.x_adv.requires_grad and verdict.forwards.max() <= 9
    same = rbl.normalised(NET, np.array([0.1307]), torch.tensor([0.3081]))  # type: ignore[arg-type]
    assert torch.equal(same(x), rbl.normalised(NET, (0.1307,), (0.3081,))(x))
    assert torch.equal(rbl.load_data("mnist", ids=torch.tensor([3, 5]), source="bundled")[1], y.new_tensor([0, 1]))  # type: ignore[arg-type]
