"""check_defense: every defense of the house passes, and each rule catches a defense that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config.plugins import DEFENSES, find_defense, listing
from robustbench_local.core.defense import Defended, Defense, Deployed, Preprocess
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ContractError
from robustbench_local.core.training import Recipe, Trainer
from robustbench_local.testing import defense_rules
from robustbench_local.testing.checks import check_defense


def keeps(plugin: type[Defense] | Defense) -> None:
    """The rules, all of them."""
    try:
        check_defense(plugin)
    except ContractError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.parametrize("name", [row.name for row in listing(DEFENSES)])
def test_a_defense_of_the_house_keeps_the_rules(name: str) -> None:
    keeps(find_defense(name))


class Step(Preprocess):
    """Eight grey levels, seen through the identity."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 8).round() / 8


@dataclass(frozen=True)
class Honest(Defense):
    """Puts a step before the network."""

    summary: ClassVar[str] = "a step"
    front: ClassVar[Callable[[], Preprocess]] = Step

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return Deployed(base, [type(self).front()])


def around(wrapper: Callable[[nn.Module], nn.Module]) -> type[Defense]:
    """A defense that wraps the network in that."""

    @dataclass(frozen=True)
    class Wrapping(Honest):
        """With that wrapper."""

        def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
            return wrapper(base)

    return Wrapping


@dataclass(frozen=True)
class Silent(Honest):
    summary: ClassVar[str] = ""


@dataclass(frozen=True)
class Nothing(Honest):
    """Builds no module."""

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class Trains(Honest, Recipe):
    """Trains, and does not say so."""

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return trainer.fit(base, self, draws)


@dataclass(frozen=True)
class Rounded(Honest):
    """A setting that is not checked."""

    levels: int = 8

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        top = 1 // self.levels if self.levels < 1 else self.levels
        assert top
        return base


@dataclass(frozen=True)
class Writes(Honest):
    """Zeroes a layer of the network, and trains nothing."""

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        assert isinstance(base, nn.Sequential) and isinstance(base[0], nn.Conv2d) and base[0].bias is not None
        base[0].bias.data.zero_()
        return base


class Around(Defended):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        answer: Tensor = self.net(self.seen(x, draws))
        return answer

    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return x


class Three(Around):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return super().forward(x, draws)[:, :3]


class NoNumbers(Around):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return super().forward(x, draws).log()


class Centred(Around):
    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return x - x.mean(0)


class Global(Around):
    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Undeclared(Around):
    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        assert draws is not None
        return x + 0.1 * draws.normal(*x.shape[1:]).to(x)


class Calm(Around):
    stochastic = True


class Learns(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("seen_so_far", torch.zeros(()))

    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        self.get_buffer("seen_so_far").add_(1)
        return x


class InPlace(Around):
    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return x.data.mul_(0.9) + (x - x.detach())


class Sly(Around):
    """Defends when nobody looks for gradients."""

    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return x if x.requires_grad else (x * 2).round() / 2


class Detached(Around):
    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return x.detach() + 0 * x


class Infinite(Around):
    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return x + (x - x.detach()) * float("inf") if x.requires_grad else x


class Mirrored(Around):
    """Shows attacks the way down."""

    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return 2 * x.detach() - x


class Jumping(Around):
    """Rounds, and shows another's gradient, by itself."""

    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return (x.detach() * 8).round() / 8 + x - x.detach()


class Declared(Jumping):
    surrogate_gradients = True


class Single(Around):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return super().forward(x, draws).float()


class Fitted(Around):
    """What it is fitted to is in no state_dict."""

    count = 0

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        Fitted.count += 1
        self.share = 1 / (1 + Fitted.count)

    def seen(self, x: Tensor, draws: Draws | None) -> Tensor:
        return self.share * x


class Blind(Around):
    def undefended(self) -> nn.Module | None:
        return nn.Sequential(self.net, nn.Threshold(1e9, float("nan")))


TWINS: list[tuple[str, type[Defense], str]] = [
    ("declared", Silent, "summary is empty"),
    ("declared", Silent, "no docstring"),
    ("builds", Nothing, "NoneType, no nn.Module"),
    ("builds", Trains, "neither `trains` nor `learns` is set"),
    ("builds", around(Three), r"answers \(30, 3\)"),
    ("builds", around(NoNumbers), "are not finite"),
    ("company", around(Centred), "other logits"),
    ("randomness", around(Global), "torch's global"),
    ("randomness", around(Global), "when they are asked again"),
    ("randomness", around(Undeclared), "stochastic is false"),
    ("randomness", around(Calm), "stochastic is true"),
    ("untouched", around(Learns), "seen_so_far"),
    ("untouched", around(InPlace), "into the images"),
    ("attacked", around(Sly), "others while gradients are asked for"),
    ("gradients", around(Detached), "the gradient is 0 at 30 of 30"),
    ("gradients", around(Infinite), "not finite"),
    ("gradients", around(Mirrored), "along its gradients the loss is"),
    ("jumps", around(Jumping), "flat where its gradient is not"),
    ("dtype", around(Single), "torch.float32 to images of torch.float64"),
    ("rebuilt", around(Fitted), "answers otherwise"),
    ("rebuilt", Writes, "wrote into the network"),
    ("undefended", around(Blind), "its undefended part"),
    ("settings", Rounded, "levels=0 .*ZeroDivisionError"),
]


@pytest.mark.parametrize("kind", [Honest, around(Around), around(Declared), around(lambda net: net)])
def test_an_honest_defense_breaks_no_rule(kind: type[Defense]) -> None:
    keeps(kind)


@pytest.mark.parametrize(("rule", "kind", "text"), TWINS)
def test_a_broken_defense_is_told_what_it_broke(rule: str, kind: type[Defense], text: str) -> None:
    said = rf"(?s){kind.__name__} breaks its contract:.*\n- {rule}: .*{text}"
    with pytest.raises(ContractError, match=said):
        check_defense(kind)


def test_every_rule_has_a_twin() -> None:
    assert {rule for rule, *_ in TWINS} == {rule.name for rule in defense_rules.RULES}


def test_what_is_no_defense_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no defense"):
        check_defense(int)  # type: ignore[arg-type]
