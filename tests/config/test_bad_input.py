"""Bad input gets an error that names the value and the likely cause; a bad attack gets no success."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.pgd import PGD
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, DataError, ModelError, PluginError, RobustBenchError, ThreatError
from robustbench_local.core.model_state import seeded
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import open_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.evaluation.judge import Judge


class Brightness(nn.Module):
    """Class 0 below a brightness of 0.5, class 1 above."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1) - 0.5
        return torch.stack([-bright, bright], 1)


def dark(count: int = 4) -> tuple[Tensor, Tensor]:
    return torch.full((count, 3, 4, 4), 0.45), torch.zeros(count, dtype=torch.int64)


def spoiled(value: float) -> Tensor:
    x = dark()[0]
    x[2, 1, 0, 3] = value
    return x


X, Y = dark()


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (spoiled(1.5), Y, r"spans \[0\.45, 1\.5\]: give pixels in \[0, 1\] and let the model normalise"),
        (spoiled(-0.25), Y, r"spans \[-0\.25, 0\.45\]: give pixels in \[0, 1\]"),
        (X * 255, Y, r"spans \[115, 115\]"),
        (spoiled(torch.inf), Y, r"spans \[0\.45, inf\]"),
        (spoiled(torch.nan), Y, r"holds 1 NaN values: every pixel must be a number in \[0, 1\]"),
        ((X * 255).to(torch.uint8), Y, r"uint8 of shape \(4, 3, 4, 4\): .* divide by 255"),
        (X[:, 0], Y, r"shape \(4, 4, 4\): .* greyscale: add a channel axis"),
        (X[0], Y, r"shape \(3, 4, 4\)"),
        (X[:0], Y[:0], "holds no images"),
        (X, Y[:3], r"y is torch.int64 of shape \(3,\) for 4 images"),
        (X, Y.float(), r"y is torch.float32 .* int64 labels"),
        (X, nn.functional.one_hot(Y, 2), r"shape \(4, 2\) for 4 images"),
        (X, Y + 2, r"labels span 2 \.\. 2, the model knows classes 0 \.\. 1: wrong labels, or .* wrong number"),
        (X, Y - 1, r"labels span -1 \.\. -1"),
        (np.zeros((4, 3, 4, 4)), Y, r"x is an array of float64, shape \(4, 3, 4, 4\): .*torch\.from_numpy"),
        (X.tolist(), Y, r"x is \[\[\[\[0\.4.*torch\.from_numpy"),
        (X, Y.numpy(), r"y is an array of int64, shape \(4,\)"),
        (X, [0, 0, 0, 0], r"y is \[0, 0, 0, 0\]: it must be a torch tensor"),
        (X, Y.int(), r"y is torch.int32 .* int64 labels"),
        (X.to_sparse(), Y, r"x is of layout torch.sparse_coo: give a dense tensor"),
        (X.to("meta"), Y, r"x is on the meta device"),
        (X.to(torch.complex64), Y, r"x is torch.complex64"),
        (X.to(torch.float8_e4m3fn), Y, r"x is torch.float8_e4m3fn"),
        (X[:, :, :0], Y, r"x is of shape \(4, 3, 0, 4\) and holds no pixel"),
        (X[:, :0], Y, r"x is of shape \(4, 0, 4, 4\) and holds no pixel"),
    ],
)
def test_bad_images_and_labels(x: Tensor, y: Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        evaluate(Brightness(), x, y, "fgsm")


def test_a_bad_image_in_a_late_batch_is_found_too() -> None:
    x, y = dark(100)
    x[90, 0, 0, 0] = 2.0

    class Late:
        labels, ids = y, torch.arange(100)

        def __len__(self) -> int:
            return 100

        def __getitem__(self, rows: slice | Tensor) -> Tensor:
            return x[rows]

    with pytest.raises(DataError, match=r"spans \[0\.45, 2\]"):
        Judge(batch_size=10)(Brightness(), Late(), PGD(steps=1), ThreatModel.parse("linf:0.01"))


def test_images_a_model_cannot_read() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1] == 1, "grey images only"
            return x.flatten(1)

    grey, narrow = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), nn.Sequential(nn.Flatten(), nn.Linear(5, 2))
    for model in (grey, narrow, Picky()):
        with pytest.raises(ModelError, match=r"cannot read images of shape \(3, 4, 4\) \(channels, height, width\)"):
            evaluate(model, X, Y, "fgsm")
    with pytest.raises(ModelError, match="AssertionError: grey images only"):
        evaluate(Picky(), X, Y, "fgsm")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: x, r"returned float32 \(4, 3, 4, 4\) for 4 images: it must return logits"),
        (lambda x: x.flatten(1).argmax(1), r"returned int64 \(4,\)"),
        (lambda x: {"one": x.flatten(1), "two": x.flatten(1)}, "returned dict"),
        (lambda x: x[:1].flatten(1), r"returned float32 \(1, 48\) for 4 images"),
    ],
)
def test_models_that_return_no_logits(answer: Callable[[Tensor], Tensor], says: str) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return answer(x)

    with pytest.raises(ModelError, match=says):
        evaluate(Odd(), X, Y, "fgsm")


def test_what_is_no_model() -> None:
    for model, what in ((lambda x: x, "the function <lambda>"), (Brightness, "the class Brightness"), (None, "None")):
        with pytest.raises(ConfigError, match=rf"model is {what}: it must be an nn\.Module \(load_model"):
            evaluate(model, X, Y, "fgsm")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="the meta device, where tensors hold no values"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(48, 2, device="meta")), X, Y, "fgsm")


def test_probabilities_are_warned_of_and_flagged() -> None:
    with pytest.warns(UserWarning, match="returns probabilities, not logits: their logarithms .* remove its softmax"):
        verdict = evaluate(nn.Sequential(Brightness(), nn.Softmax(1)), X, Y, "fgsm")
    assert verdict.flags == ("probabilities",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(Brightness(), X, Y, "fgsm").flags == ()


def test_the_number_of_classes_is_compared_with_the_data() -> None:
    images = open_data("mnist", source="bundled", n=10, sample="stratified")

    def flags(classes: int) -> tuple[str, ...]:
        with seeded(0):
            model = nn.Sequential(nn.Flatten(), nn.Linear(784, classes))
        return Judge()(model, images, PGD(steps=1), ThreatModel.parse("linf:0.1")).flags

    assert flags(10) == () and flags(11) == ()  # the eleventh may be for rejection
    assert flags(100) == ("extra_classes",)
    with pytest.raises(DataError, match=r"classes 0 \.\. 4: wrong labels, or a model with the wrong number of classes"):
        flags(5)


@pytest.mark.parametrize(
    ("threat", "error", "says"),
    [
        ("linf:-0.1", ThreatError, r"eps is -0\.1: give a finite number >= 0"),
        ("l2:nan", ThreatError, '"nan" is no number'),
        ("l2:inf", ThreatError, '"inf" is no number'),
        ("linf:0.5", ThreatError, r"0\.5 turns any image into plain grey; allowed is \[0, 0\.5\)"),
        ("linf:8", ThreatError, r"Was it meant in grey levels \(8/255\)"),
        ("linv:0.1", ThreatError, r'unknown norm "linv" .*did you mean "linf"'),
        ("linf", ThreatError, "has no eps: write it as linf:8/255"),
        ("linf:eight", ThreatError, '"eight" is no number: write it as 0.3 or 8/255'),
        ("linf:8/0", ThreatError, '"8/0" is no number'),
        ("l0:1.5", ThreatError, r"counts pixel positions: 1\.5"),
        ("none", ThreatError, "PGD does not know the norm none: it knows l1, l2, linf"),
        ("l0:3", ThreatError, "PGD does not know the norm l0"),
    ],
)
def test_bad_threats(threat: str, error: type[RobustBenchError], says: str) -> None:
    with pytest.raises(error, match=says):
        evaluate(Brightness(), X, Y, "pgd", threat)


def test_a_large_ball_is_granted_to_who_asks() -> None:
    verdict = evaluate(Brightness(), X, Y, "pgd", ThreatModel(Norm.LINF, 0.6, allow_large=True))
    assert not verdict.robust.any()


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"attack": "pgdd"}, PluginError, 'pgdd.*did you mean "pgd"'),
        ({"stepz": 3}, RobustBenchError, 'stepz.*did you mean "steps"'),
        ({"steps": 0}, ConfigError, "steps is 0: it must be at least 1"),
        ({"step_size": "-1/255"}, ConfigError, "step_size is -1/255: it must be above 0"),
        ({"loss": "cd"}, ConfigError, 'unknown loss "cd".*did you mean "ce"'),
        ({"loss": "dlr"}, ConfigError, "dlr loss needs 3 classes or more, the model has 2: use margin"),
        ({"attack": "pgd", "sparsity": 0.0}, ConfigError, "sparsity is 0.0"),
        ({"attack": PGD(), "steps": 3}, ConfigError, "steps: settings of an attack that is built already"),
        ({"precision": "half"}, ConfigError, "precision is 'half': it must be float32 or fast or float64"),
        ({"count": "some"}, ConfigError, "count is 'some': it must be all or last"),
        ({"count": None}, ConfigError, "count is None"),
        ({"budget": 0}, ConfigError, "budget is 0: it must be a whole number, at least 1"),
        ({"budget": float("nan")}, ConfigError, "budget is nan"),
        ({"budget": float("inf")}, ConfigError, "budget is inf"),
        ({"budget": -3}, ConfigError, "budget is -3"),
        ({"budget": 10.0}, ConfigError, "budget is 10.0"),
        ({"budget": True}, ConfigError, "budget is True"),
        ({"bugdet": 3}, ConfigError, 'no setting "bugdet" .did you mean "budget"'),
        ({"batch_size": 0}, ConfigError, "batch_size is 0"),
        ({"eot": 0}, ConfigError, "eot is 0"),
        ({"draws": "3"}, ConfigError, "draws is '3'"),
        ({"adaptive": "no"}, ConfigError, "adaptive is 'no': it must be true or false"),
        ({"seed": "abc"}, ConfigError, r"seed is 'abc': it must be a whole number, at least 0 and below"),
        ({"seed": -1}, ConfigError, "seed is -1"),
        ({"seed": 2**63}, ConfigError, "seed is 9223372036854775808"),
        ({"seed": True}, ConfigError, "seed is True"),
        ({"seed": None}, ConfigError, "seed is None"),
        ({"targets": "nearest"}, ConfigError, "targets is 'nearest': it must be random or least_likely or a class for"),
        ({"targets": "randon"}, ConfigError, 'did you mean "random"'),
        ({"targets": 1}, ConfigError, "targets is 1: it must be"),
        ({"targets": [1, 1, 1, 1.5]}, ConfigError, r"targets is \[1, 1, 1, 1.5\]"),
        ({"targets": torch.ones(4)}, ConfigError, r"targets is a tensor of torch.float32, shape \(4,\)"),
        ({"targets": [1, 1]}, ConfigError, r"targets are of shape \(2,\) for 4 images"),
        ({"targets": [[1], [1, 1]]}, ConfigError, "targets is"),
        ({"attack": ["pgd"]}, ConfigError, r"attack is \['pgd'\]: it must be one attack, by its name"),
        ({"attack": PGD}, ConfigError, "attack is the class PGD: it must be one attack"),
        ({"attack": None}, ConfigError, "attack is None"),
        ({"attack": PGD(random_start="no")}, ConfigError, "random_start of PGD is .no.: it must be true or false"),  # type: ignore[arg-type]
        ({"attack": PGD(step_size=float("nan"))}, ConfigError, "step_size of PGD is nan"),
        (
            {"threat": ("linf", 0.3, 1)},
            ConfigError,
            r"threat is \('linf', 0.3, 1\): it must be text such as .linf:8/255",
        ),
        ({"threat": None}, ConfigError, "threat is None"),
        ({"threat": 0.3}, ConfigError, "threat is 0.3"),
        ({"attacker": X}, DataError, "attacker is a tensor"),
        ({"attacker": (X.numpy(), Y)}, DataError, r"attacker is \(an array of"),
        ({"step_size": float("nan")}, ConfigError, "step_size of .* is nan"),
        ({"steps": 2.0}, ConfigError, "steps of .* is 2.0: it must be a whole number"),
    ],
)
def test_bad_settings(settings: dict[str, object], error: type[RobustBenchError], says: str) -> None:
    with pytest.raises(error, match=says):
        evaluate(Brightness(), X, Y, **settings)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Returns(Attack):
    """Whatever the test wants returned."""

    access: ClassVar[Access] = Access.NONE

    what: Callable[[Tensor], object] = lambda x: x

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return self.what(x)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("what", "flags", "distance"),
    [
        (lambda x: x + 0.2, ("outside_ball:4",), 0.2),
        (lambda x: x + 0.1002, ("outside_ball:4",), 0.1002),
        (lambda x: x + torch.inf, ("outside_ball:4",), torch.inf),
        (lambda x: x * torch.nan, ("nan_pixels:4",), 0.0),
        (lambda x: torch.where(torch.arange(4) == 1, torch.nan, x + 0.2), ("nan_pixels:4",), 0.0),
    ],
)
def test_images_that_do_not_count(what: Callable[[Tensor], object], flags: tuple[str, ...], distance: float) -> None:
    verdict = evaluate(Brightness(), X, Y, Returns(what), "linf:0.1")
    assert verdict.robust.all() and verdict.robust_8bit.all()
    assert verdict.flags == flags
    assert torch.allclose(verdict.distance, torch.tensor(distance))


def test_images_that_just_count() -> None:
    verdict = evaluate(Brightness(), X, Y, Returns(lambda x: x + 0.1), "linf:0.1")
    assert not verdict.robust.any() and verdict.flags == ()
    box = evaluate(Brightness(), X + 0.03, Y, Returns(lambda x: x + 0.52 * (x > 0)), ThreatModel(Norm.LINF, 0.52, True))
    assert not box.robust.any()
    outside = evaluate(Brightness(), X, Y, Returns(lambda x: x + 0.58), ThreatModel(Norm.LINF, 0.6, allow_large=True))
    assert outside.robust.all() and outside.flags == ("outside_ball:4",)  # in the ball, but not in the box


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda x: x[:2], r"Returns returned \(2, 3, 4, 4\): an attack returns images like x, \(4, 3, 4, 4\)"),
        (lambda x: x[:, :1], r"returned \(4, 1, 4, 4\)"),
        (lambda x: None, "returned NoneType"),
        (lambda x: (x, x), "returned tuple"),
    ],
)
def test_attacks_that_return_something_else(what: Callable[[Tensor], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        evaluate(Brightness(), X, Y, Returns(what), "linf:0.1")


class Mended(nn.Module):
    """Brightness, but for images brighter than `above`, where the answer is `says`."""

    def __init__(self, says: tuple[float, float], above: float = 0.47) -> None:
        super().__init__()
        self.says, self.above = says, above

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1)
        plain = torch.stack([0.8 - bright, bright - 0.8], 1)
        return torch.where((bright > self.above)[:, None], torch.tensor(self.says), plain)


@pytest.mark.parametrize("says", [(torch.nan, 0.0), (1.0, torch.nan), (0.0, 0.0), (torch.inf, torch.inf)])
@pytest.mark.parametrize("attack", [PGD(loss="margin"), Returns(lambda x: x + 0.1)], ids=["pgd", "returns"])
def test_nan_logits_and_ties_are_the_models_error(attack: Attack, says: tuple[float, float]) -> None:
    """Where the model has no answer it has not resisted, neither attacked nor on clean images."""
    verdict = evaluate(Mended(says), X, Y, attack, "linf:0.1")
    assert verdict.clean.all() and not verdict.robust.any()
    clean = evaluate(Mended(says, above=0.4), X, Y, attack, "linf:0.1")
    assert not clean.clean.any() and not clean.robust.any()
    assert ("nan_logits" in clean.flags) == any(value != value for value in says)
    right = evaluate(Mended((1.0, 0.0)), X, Y, attack, "linf:0.1")
    assert right.robust.all()


def test_a_model_without_gradients_says_so() -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                answer: Tensor = Brightness()(x)
            return answer

    with pytest.raises(ModelError, match=r"does not depend on its input through autograd: .* give it a surrogate"):
        evaluate(Steps(), X, Y, "pgd")
    assert evaluate(Steps(), X, Y, "noise").clean.all()  # nothing wrong with asking


def test_double_images_are_welcome_and_half_is_judged_in_float32() -> None:
    for dtype in (torch.float64, torch.float16):
        verdict = evaluate(Brightness(), X.to(dtype), Y, "pgd", "linf:0.1")
        assert verdict.x_adv.dtype is torch.float32 and not verdict.robust.any()


def test_the_margin_that_ends_a_search() -> None:
    y = torch.tensor([0, 0, 1])
    logits = torch.tensor([[1.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    assert losses.margin(logits, y).tolist() == [0.0, -1.0, 1.0]
