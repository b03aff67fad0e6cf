"""check_attack: every attack of the house passes, and each rule catches an attack that breaks it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_local.config.arguments import Threat
from robustbench_local.config.plugins import ATTACKS, find_attack, listing
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ContractError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.testing import attack_rules
from robustbench_local.testing.checks import check_attack
from robustbench_local.testing.specimens import THREATS
from tests.helpers import short_attacks

# too short a search finds no planted weakness, so these are given time; a walk needs less
LENGTHS: dict[str, dict[str, int]] = {
    "adba": {"steps": 30},
    "apgd": {"steps": 50},
    "cw": {"steps": 50, "searches": 4},
    "ddn": {"steps": 50},
    "ead": {"steps": 50, "searches": 4},
    "fmn": {"steps": 30},
    "hopskipjump": {"steps": 2},
    "pdpgd": {"steps": 60},
    "sigma_zero": {"steps": 30},
}
SLOW = ("autoattack", "best")  # thousands of queries for each image that never falls
CORRUPTIONS = [row.name for row in listing(ATTACKS) if "severity" in row.settings]
OWN = [name for name in short_attacks.own_attacks() if name not in SLOW]
LONG = {*LENGTHS, "substitute"}  # some seconds each


def of_the_house(name: str) -> Attack:
    return (
        find_attack(name, short_attacks.SHORT[name] | LENGTHS[name]) if name in LENGTHS else short_attacks.attack(name)
    )


def keeps(plugin: type[Attack] | Attack, threats: Sequence[Threat] = ()) -> None:
    """The rules, all of them."""
    try:
        check_attack(plugin, threats)
    except ContractError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in OWN])
def test_an_attack_of_the_house_keeps_the_rules(name: str) -> None:
    keeps(of_the_house(name), [THREATS[Norm(short_attacks.norms(name)[0])]])


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_it_keeps_them_in_every_norm(name: str) -> None:
    keeps(of_the_house(name), [THREATS[Norm(norm)] for norm in short_attacks.norms(name)])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_long_attack_of_the_house_keeps_the_rules(name: str) -> None:
    keeps(of_the_house(name), ["linf:0.03"])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_of_the_house_keeps_the_rules(name: str) -> None:
    keeps(find_attack(name))


@dataclass(frozen=True)
class Honest(Attack):
    """Three steps along the signs of the gradient; 3 forwards and 3 backwards."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})
    summary: ClassVar[str] = "three steps"

    steps: int = 3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}: at least 1")

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = x
        for _ in range(self.steps):
            grad = self.gradient(oracle, x_adv, y)
            x_adv = threat.project(x_adv + self.move(grad, threat, draws), x)
        return x_adv

    def gradient(self, oracle: Oracle, x_adv: Tensor, y: Tensor) -> Tensor:
        return oracle.grad(x_adv, y, losses.named("ce", targeted=oracle.targeted))[1]

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.eps * grad.sign()

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, self.steps


@dataclass(frozen=True)
class Silent(Honest):
    summary: ClassVar[str] = ""


class Bare(Honest):
    """No dataclass of its own."""


@dataclass(frozen=True)
class Anything(Honest):
    """A setting that may be anything."""

    loss: Any = "ce"


@dataclass(frozen=True)
class Falls(Honest):
    """Dies."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        raise KeyError("no")


@dataclass(frozen=True)
class Greedy(Honest):
    """Asks for more than it declares."""

    access: ClassVar[Access] = Access.SCORES


@dataclass(frozen=True)
class One(Honest):
    """Returns one image."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return super().__call__(oracle, x, y, threat, draws)[:1]


@dataclass(frozen=True)
class Far(Honest):
    """Leaves the ball."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return super().__call__(oracle, x, y, ThreatModel(Norm.LINF, threat.eps * 1.1), draws)


@dataclass(frozen=True)
class Stamps(Honest):
    """Moves at least a grey level."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return super().__call__(oracle, x, y, ThreatModel(Norm.LINF, max(threat.eps, 1 / 255)), draws)


@dataclass(frozen=True)
class Single(Honest):
    """Computes in float32, whatever it is given."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return super().__call__(oracle, x, y, threat, draws).float()


@dataclass(frozen=True)
class Coloured(Honest):
    """Knows images of three channels."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.eps * grad.sign() * torch.ones(3, 1, 1).to(grad)


@dataclass(frozen=True)
class Mean(Honest):
    """Scales by the mean gradient of the batch."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.eps * (grad - grad.mean(0)).sign()


@dataclass(frozen=True)
class Global(Honest):
    """Draws from torch."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.eps * (grad.sign() + 0.1 * torch.randn_like(grad)).clamp(-1, 1)


@dataclass(frozen=True)
class NumPys(Honest):
    """Draws from NumPy."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.eps * grad.sign() * (1 if np.random.rand() < 2 else 0)


@dataclass(frozen=True)
class Pythons(Honest):
    """Draws from random."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.eps * grad.sign() * (1 if random.random() < 2 else 0)


@dataclass(frozen=True)
class Vandal(Honest):
    """Writes into the labels when it is done."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = super().__call__(oracle, x, y, threat, draws)
        y.zero_()
        return x_adv


@dataclass(frozen=True)
class Climber(Honest):
    """Finds the model behind the oracle, and tunes it."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = super().__call__(oracle, x, y, threat, draws)
        model_of(oracle)[1].bias.data += 1e-3
        return x_adv


@dataclass(frozen=True)
class Beside(Honest):
    """Finds the model behind the oracle, and asks it past the meter."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        oracle._answer(x, draws)
        return super().__call__(oracle, x, y, threat, draws)


@dataclass(frozen=True)
class Modest(Honest):
    """Needs labels, and declares gradients."""

    def gradient(self, oracle: Oracle, x_adv: Tensor, y: Tensor) -> Tensor:
        oracle.labels(x_adv)
        return torch.ones_like(x_adv)


@dataclass(frozen=True)
class Free(Honest):
    """States no cost."""

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return 0, 0


@dataclass(frozen=True)
class Spender(Honest):
    """Divides by the size of a gradient, which is 0 once the budget is spent."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.eps * grad / grad.abs().amax((1, 2, 3), keepdim=True)


@dataclass(frozen=True)
class Untargeted(Honest):
    """Looks the true class up, which a target is not."""

    def gradient(self, oracle: Oracle, x_adv: Tensor, y: Tensor) -> Tensor:
        if oracle.targeted:
            raise IndexError("no true class")
        return super().gradient(oracle, x_adv, y)


@dataclass(frozen=True)
class Unchecked(Honest):
    """Divides by its setting."""

    share: int = 1

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.eps * grad.sign() * (1 // self.share)


@dataclass(frozen=True)
class Unsendable(Honest):
    """Holds what no worker can be sent."""

    function: Any = field(default=lambda: 0)


@dataclass(frozen=True)
class Idle(Honest):
    """Asks, and stays where it is."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return torch.zeros_like(grad)


@dataclass(frozen=True)
class Backwards(Honest):
    """Descends the loss."""

    def move(self, grad: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return -threat.eps * grad.sign()


def model_of(oracle: Oracle) -> Any:
    """By way of the closure that seals it."""
    seen, left = set(), [oracle._answer]
    while left:
        here = left.pop()
        if isinstance(here, torch.nn.Sequential):
            return here
        if id(here) in seen:
            continue
        seen.add(id(here))
        left += [cell.cell_contents for cell in getattr(here, "__closure__", None) or ()]
        left += list(vars(here).values()) if hasattr(here, "__dict__") else []
    raise AssertionError("the oracle hides its model better than this twin can look")


TWINS: list[tuple[str, type[Attack], str]] = [
    ("declared", Silent, "summary is empty"),
    ("declared", Silent, "Silent has no docstring"),
    ("declared", Bare, "Bare is no frozen dataclass"),
    ("declared", Anything, "the setting loss may be anything"),
    ("runs", Falls, "KeyError"),
    ("runs", Greedy, "needs GRADIENTS"),
    ("runs", One, r"\(1, 3, 8, 8\)"),
    ("ball", Far, "0.033"),
    ("point", Stamps, "linf:0"),
    ("dtype", Single, "torch.float32"),
    ("shapes", Coloured, r"returned \(3, 3, 7, 9\)|Error"),
    ("company", Mean, "in batches of 7"),
    ("seed", Global, "two runs of the same seed differ"),
    ("seed", Global, "torch's global"),
    ("seed", NumPys, "NumPy's global"),
    ("seed", Pythons, "Python's global"),
    ("untouched", Vandal, "labels"),
    ("untouched", Climber, "1.bias"),
    ("meter", Beside, "answers that are on no meter"),
    ("access", Modest, "declares GRADIENTS and got along with SCORES"),
    ("cost", Free, r"3 forward passes .* states 0"),
    ("budget", Spender, "nan"),
    ("targets", Untargeted, "no true class"),
    ("settings", Unchecked, "share=0 .*ZeroDivisionError"),
    ("pickle", Unsendable, "pickle"),
    ("something", Idle, "none of 16 images falls"),
    ("planted", Backwards, "0 of 16 images"),
]


def test_an_honest_attack_breaks_no_rule() -> None:
    keeps(Honest)
    keeps(Honest(steps=1), ["linf:8/255"])


@pytest.mark.parametrize(("rule", "kind", "text"), TWINS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_broken_attack_is_told_what_it_broke(rule: str, kind: type[Attack], text: str) -> None:
    said = rf"(?s){kind.__name__} in linf:0.03 breaks its contract:.*\n- {rule}: .*{text}"
    with pytest.raises(ContractError, match=said):
        check_attack(kind)


def test_every_rule_has_a_twin() -> None:
    assert {rule for rule, *_ in TWINS} == {rule.name for rule in attack_rules.RULES}


def test_what_is_no_attack_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no attack"):
        check_attack(int)  # type: ignore[arg-type]


def test_all_that_is_broken_is_said_at_once() -> None:
    @dataclass(frozen=True)
    class Many(Free, Far):
        """Breaks two."""

    with pytest.raises(ContractError, match=r"(?s)- ball: .*- cost: "):
        check_attack(Many)
