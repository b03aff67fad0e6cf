"""What is read of a model, and what is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.bounds.certify import certify
from robustbench_local.bounds.crown import answers
from robustbench_local.bounds.reading import read
from robustbench_local.core.defense import Defended, Deployed, Preprocess
from robustbench_local.core.errors import BoundsError, DataError, RobustBenchError
from robustbench_local.core.model_state import seeded
from robustbench_local.models.build import build_model
from robustbench_local.models.classifier import Classifier
from robustbench_local.models.description import Description

FLAT = nn.Flatten()


def head(values: int = 16) -> nn.Linear:
    with seeded(2):
        return nn.Linear(values, 3)


class Functional(nn.Module):
    """Every operation that is read in the form of a function or a method."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        with seeded(7):
            self.first, self.second, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
            self.head = nn.Linear(2, 3)
        self.register_buffer("shift", torch.tensor([0.1, -0.2]).view(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first((2 * x - 1.0) / 0.5)), inplace=True)
        x = torch.relu(x - self.shift) + self.second(x)
        x += 0.25 - x
        x = F.avg_pool2d(F.max_pool2d(x, 2, stride=1, padding=1), kernel_size=2, stride=1).relu_()
        pooled = F.adaptive_avg_pool2d(F.dropout(x, 0.5, self.training), 1).view(x.size(0), -1)
        out: Tensor = self.head(torch.flatten(pooled + x.mean(dim=(-2, -1)), 1).contiguous())
        return out


def functional() -> nn.Module:
    return Functional().eval()


class Shifted(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class Branches(nn.Module):
    """What is read besides: leaks, curves, parts put together, zeros around, weights handed to functions."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(9):
            self.first, self.same = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 3, padding="same", dilation=(1, 2))
            self.weight = nn.Parameter(torch.randn(3, 4, 2, 2) / 4)
            self.head = nn.Linear(12, 4)
        self.leak, self.pool = nn.LeakyReLU(0.2), nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.leak(self.first(x)), torch.tanh(self.same(x))], dim=1)
        x = self.pool(F.pad(x, (0, 1, 1, 0)))
        x = F.leaky_relu(F.conv2d(x, self.weight, stride=2, padding=1), 0.3)
        out: Tensor = F.linear(torch.sigmoid(self.head(x.flatten(1))), self.head.weight[:3, :4])
        return out


def branches() -> nn.Module:
    return Branches().eval()


def preact() -> nn.Module:
    return build_model("preact_small").eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "functions": (functional, (1, 4, 4)),
    "branches": (branches, (1, 4, 4)),
    "preact_small": (preact, (3, 32, 32)),
    "madry_cnn": (lambda: build_model("madry_cnn").eval(), (1, 28, 28)),
    "lenet5": (lambda: build_model("lenet5").eval(), (3, 32, 32)),
    "classifier": (
        lambda: Classifier(
            nn.Sequential(FLAT, head()), Description(expects="0-255", normalise={"mean": [99.0], "std": [70.0]})
        ).eval(),
        (1, 4, 4),
    ),
    "settings": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=(1, 2), padding=(2, 1), dilation=2, groups=2, bias=False),
            nn.MaxPool2d((2, 1), stride=1, padding=(1, 0), dilation=(2, 1)),
            nn.AvgPool2d(2, stride=1, padding=1),
            nn.BatchNorm2d(4, affine=False).eval(),
            nn.AdaptiveAvgPool2d((1, 2)),
            FLAT,
            nn.Dropout(),
            nn.Linear(8, 8),
            nn.BatchNorm1d(8),
        ).eval(),
        (2, 9, 8),
    ),
    "a subclass": (lambda: nn.Sequential(FLAT, Shifted(16, 3)).eval(), (1, 4, 4)),
    "no steps": (lambda: Deployed(nn.Sequential(FLAT, head())).eval(), (1, 4, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_steps_answer_as_the_model(name: str) -> None:
    make, shape = MODELS[name]
    model, x = make(), torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(x).double()
        low, high = answers(read(model, x), x)
    assert bool((low <= logits).all()) and bool((logits <= high).all())
    assert float((high - low).max()) < 0.5 * float(logits.std())  # fresh networks, whose logits are small


class Sampled(Defended):
    stochastic = True


class Blur(Preprocess):
    pass


class Refused(nn.Module):
    """Something before a head, written by hand."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.head = before, head()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.before(x.flatten(1)))
        return out


def _aliased(x: Tensor) -> Tensor:
    y = x * 1.0
    return F.relu(y - 0.5 + 0 * y, inplace=True) + y.add_(1.0)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "a bell": (nn.Sequential(FLAT, nn.Linear(16, 16), nn.GELU(), head()), r'layer "2" \(GELU\)'),
    "a product": (Refused(lambda x: x * x.flip(1)), r'operation "flip"'),
    "a softmax": (Refused(lambda x: F.softmax(x, 1)), r'operation "softmax"'),
    "a size": (Refused(lambda x: x / x.size(0)), "size of a tensor"),
    "a branch": (Refused(lambda x: x if x.sum() > 0 else -x), "cannot follow it"),
    "an exit": (Refused(lambda x: sys.exit(3)), "cannot follow it"),
    "a number of the image": (Refused(lambda x: x * x.sum().item()), 'operation "sum"'),
    "a mixed batch": (Refused(lambda x: x.view(1, -1)[:, :16].expand(2, -1)), "images of a batch|operation"),
    "other zeros": (
        nn.Sequential(nn.Conv2d(1, 1, (1, 2), padding="same"), FLAT, head()),
        "as many zeros before as after",
    ),
    "ones around": (Refused(lambda x: F.pad(x, (0, 1), value=1.0)[:, 1:]), "padding of height and width by zeros"),
    "a constant part": (Refused(lambda x: torch.cat([x, torch.ones(2, 16)], 1).view(2, 16, 2).mean(2)), "all hang on"),
    "written into": (Refused(_aliased), "writes into what other layers read"),
    "circular padding": (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), FLAT, head()), "pads"),
    "halves": (nn.Sequential(nn.Conv2d(1, 1, 1).bfloat16(), FLAT, head()), "BFloat16|bfloat16"),
    "one class": (nn.Sequential(FLAT, nn.Linear(16, 1)), "single class"),
    "no logits": (nn.Sequential(nn.Conv2d(1, 3, 1)), r"logits \(N, K\)"),
    "a random model": (Sampled(), "at random"),
    "a step before": (Deployed(nn.Sequential(FLAT, head()), [Blur()]), "Blur, a step before"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_bound_is_known_of_is_named(name: str) -> None:
    model, words = REFUSED[name]
    with pytest.raises(BoundsError, match=words):
        certify(model.eval(), torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), "linf:0.1")


def test_a_hook_that_changes_answers_is_noticed() -> None:
    model = nn.Sequential(FLAT, head())
    model.register_forward_hook(lambda module, given, out: -out)
    with pytest.raises(BoundsError, match="differ by"):
        certify(model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), "linf:0.1")


def test_what_is_asked_must_make_sense() -> None:
    model, x, y = nn.Sequential(FLAT, head()), torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    with pytest.raises(BoundsError, match="l0:1"):
        certify(model, x, y, "l0:1")
    with pytest.raises(DataError, match=r"give 0 \.\. 2"):
        certify(model, x, y + 2, "linf:0.1")
    with pytest.raises(RobustBenchError, match="method"):
        certify(model, x, y, "linf:0.1", method="magic")  # type: ignore[arg-type]


def test_training_mode_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = functional(), torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    y = model(x).argmax(1)
    whole = certify(model, x, y, "linf:0.05").margins
    monkeypatch.setattr("robustbench_local.bounds.certify.VALUES", 1)
    monkeypatch.setattr("robustbench_local.bounds.crown.VALUES", 1)
    model.train()
    assert torch.allclose(certify(model, x, y, "linf:0.05").margins, whole, rtol=1e-9, atol=1e-12)
    assert model.training
