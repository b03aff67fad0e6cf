"""Auto-PGD: projected gradient ascent that sets its own step size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from robustbench_local.attacks._targets import ranked
from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.blocks import in_blocks
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

MOMENTUM = 0.25  # the share of the last move in the next one
L1_START, L1_SHRINK, L1_LEAST, L1_SETTLED = 0.2, 1.5, 0.1, 0.95


class Phase(NamedTuple):
    """Steps first .. last, in a ball of size scale * eps."""

    first: int
    last: int
    scale: float


@dataclass(frozen=True)
class APGD(IterativeAttack):
    """Step, add momentum, and halve the step and go back to the best point where progress stalls.

    L∞ and L2: Croce and Hein 2020, algorithm 1. The first step is 2 eps. At the checkpoints (22 % of the steps, then
    windows shorter by 3 % each, never below 6 %) the step is halved if the loss rose in no more than a share rho of
    the window, or if neither step nor best loss changed since the checkpoint before. L2 rescales into the ball, then
    clips to the box. L1: Croce and Hein 2021 (arXiv:2103.01208), algorithm 1: sparse sign steps whose sparsity
    follows that of the best point; `larger_eps` spends 30 % of the steps at 3 eps and 30 % at 2 eps first.

    loss: ce, dlr, margin or probability_margin. targets: 0, or how many of the classes with the highest clean logits
    get `restarts` rounds each, on the targeted dlr loss (equation 7; loss=dlr) or the margin to that class
    (loss=margin). Where the model has fewer classes: there are at most K - 1 targets, and dlr, which needs 3 classes,
    or 4 when targeted, gives way to the margin.

    steps: how many each round takes, at least 1. restarts: how many rounds begin anew, at least 1. rho: the share of a
    window's steps that must raise the loss, in (0, 1). larger_eps: in L1, whether to begin in larger balls.

    Cost: with R = restarts * max(1, min(targets, K - 1)) rounds, R * (steps + 1) - 1 forwards, R more with targets
    and 2 R more with larger_eps; R * steps backwards.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    parallel_restarts: ClassVar[bool] = True
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2, Norm.L1})
    summary: ClassVar[str] = "gradient ascent that halves its own step size (Auto-PGD)"
    paper: ClassVar[str] = "Croce and Hein 2020, arXiv:2003.01690; L1: 2021, arXiv:2103.01208"

    steps: int = 100
    restarts: int = 1
    loss: str = "ce"
    targets: int = 0
    rho: float = 0.75
    larger_eps: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "steps", "restarts")
        if not 0 < self.rho < 1:
            raise ConfigError(f"rho is {self.rho}: the share of a window's steps that must raise the loss, in (0, 1)")
        losses.named(self.loss)
        if self.targets < 0:
            raise ConfigError(f"targets is {self.targets}: a number of classes, or 0 for the untargeted attack")
        if self.targets and self.loss not in ("dlr", "margin"):
            raise ConfigError(f"targets={self.targets} goes with loss=dlr or loss=margin, not with loss={self.loss}")

    def rounds(self, oracle: Oracle) -> int:
        return self._rounds(oracle.classes)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        state: State = {}
        if self.targets:
            if oracle.targeted:
                raise ConfigError("targets is a setting of the untargeted attack: to reach a given class leave it at 0")
            state["target"] = ranked(oracle, x, y, restart // self.restarts)
        if self.larger_eps and threat.norm is not Norm.L1:
            raise ConfigError(f"larger_eps is a schedule for l1 (Croce and Hein 2021): the threat is {threat}")
        if threat.norm is Norm.L1:
            ball = _scaled(threat, self._phases()[0])
            x_adv = ball.project(x + draws.stream("start").normal(*x.shape[1:]).to(x), x)
            return state | self._fresh(x_adv, x, ball)
        return state | self._fresh(threat.start(x, draws.stream("start")), x, threat)

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        loss = self._loss(oracle, state)
        phase = next(phase for phase in self._phases() if i <= phase.last)
        ball = _scaled(threat, phase)
        if 0 < i == phase.first:
            state = state | _best(state, loss(oracle.logits(state["x_adv"]), y), state["best_grad"])
            state = state | self._fresh(ball.project(state["best"], x), x, ball)
        value, grad, _ = oracle.grad(state["x_adv"], y, loss)
        state = state | _best(state, value, grad)
        if threat.norm is Norm.L1:
            if (i - phase.first) and (i - phase.first) % max(1, int(0.04 * (phase.last + 1 - phase.first))) == 0:
                state, grad = _settle(state, grad, x, ball)
            return state | {"x_adv": ball.project(state["x_adv"] + state["size"] * _sparse(grad, state["density"]), x)}
        state["rises"] = state["rises"] + (value > state["last"])
        state["last"] = value
        if window := _checkpoints(self.steps).get(i):
            state, grad = _halve(state, grad, self.rho * window)
        return state | _leap(state, grad, x, threat, i)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        rounds = self._rounds(classes)
        asked = self.steps + 1 + bool(self.targets) + len(self._phases()) - 1
        return rounds * asked - 1, rounds * self.steps

    def _rounds(self, classes: int) -> int:
        return self.restarts * max(1, min(self.targets, classes - 1))

    def _phases(self) -> tuple[Phase, ...]:
        if not self.larger_eps:
            return (Phase(0, self.steps - 1, 1.0),)
        third = math.ceil(0.3 * self.steps)
        return (Phase(0, third - 1, 3.0), Phase(third, 2 * third - 1, 2.0), Phase(2 * third, self.steps - 1, 1.0))

    def _loss(self, oracle: Oracle, state: State) -> losses.Loss:
        if self.targets:
            scaled = self.loss == "dlr" and oracle.classes >= 4
            return partial(losses.dlr_to if scaled else losses.margin_to, target=state["target"])
        few = self.loss == "dlr" and oracle.classes < (4 if oracle.targeted else 3)
        return losses.named("margin" if few else self.loss, targeted=oracle.targeted)

    def _fresh(self, x_adv: Tensor, x: Tensor, ball: ThreatModel) -> State:
        """What is known before the first query of a round or phase: nothing but where it begins."""
        none = x.new_full((len(x),), -torch.inf)
        state = {"x_adv": x_adv, "best": x_adv, "best_grad": torch.zeros_like(x), "best_loss": none}
        if ball.norm is Norm.L1:
            moved = _moved(x_adv, x)
            size = x.new_full((len(x), 1, 1, 1), ball.eps)
            if self.larger_eps:
                return state | {"size": size, "moved": moved, "density": moved / (L1_SHRINK * x[0].numel())}
            everywhere = torch.full_like(moved, x[0].numel())
            return state | {"size": size, "moved": everywhere, "density": torch.full_like(moved, L1_START)}
        return state | {
            "before": x_adv,
            "size": x.new_full((len(x), 1, 1, 1), 2 * ball.eps),
            "last": -none,
            "rises": torch.zeros_like(none),
            "halved": torch.ones_like(none, dtype=torch.bool),
            "checked": none,
        }


@cache
def _checkpoints(steps: int) -> dict[int, int]:
    """{step: length of the window that ends there}: 22, 41, 57, 70, 80, 87, 93 and 99 of 100."""
    window, at, found = max(1, int(0.22 * steps)), 0, {}
    while (at := at + window) <= steps:
        found[at] = window
        window = max(window - max(1, int(0.03 * steps)), max(1, int(0.06 * steps)))
    return found


def _best(state: State, loss: Tensor, grad: Tensor) -> State:
    better = loss > state["best_loss"]
    wide = better.view(-1, 1, 1, 1)
    return {
        "best": torch.where(wide, state["x_adv"], state["best"]),
        "best_grad": torch.where(wide, grad, state["best_grad"]),
        "best_loss": torch.where(better, loss, state["best_loss"]),
    }


def _back(state: State, grad: Tensor, rows: Tensor) -> tuple[State, Tensor]:
    """These rows (N,) return to their best point."""
    wide = rows.view(-1, 1, 1, 1)
    x_adv = torch.where(wide, state["best"], state["x_adv"])
    return state | {"x_adv": x_adv}, torch.where(wide, state["best_grad"], grad)


def _halve(state: State, grad: Tensor, enough: float) -> tuple[State, Tensor]:
    """A checkpoint: conditions 1 and 2 of Croce and Hein 2020, section 3.1."""
    stuck = ~state["halved"] & (state["checked"] >= state["best_loss"])
    stalled = (state["rises"] <= enough) | stuck
    state, grad = _back(state, grad, stalled)
    size = torch.where(stalled.view(-1, 1, 1, 1), state["size"] / 2, state["size"])
    fresh = {"size": size, "halved": stalled, "checked": state["best_loss"], "rises": torch.zeros_like(state["rises"])}
    return state | fresh, grad


def _leap(state: State, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> State:
    """A gradient step, and from the second step on a quarter of the move before."""

    def leapt(x_adv: Tensor, before: Tensor, size: Tensor, grad: Tensor, x: Tensor) -> Tensor:
        moved = _into(x_adv + size * _direction(grad, threat.norm), x, threat)
        if not i:
            return moved
        return _into(x_adv + (1 - MOMENTUM) * (moved - x_adv) + MOMENTUM * (x_adv - before), x, threat)

    x_adv = state["x_adv"]
    return {"x_adv": in_blocks(leapt, x_adv, state["before"], state["size"], grad, x), "before": x_adv}


def _into(x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """L2 as published: rescaled, then clipped, which is not the nearest point of ball and box."""
    if threat.norm is not Norm.L2:
        return threat.project(x_adv, x)
    tiny = torch.finfo(x.dtype).tiny
    shrink = (threat.eps / threat.distance(x_adv, x).clamp_min(tiny)).clamp_max(1)
    return (x + shrink.view(-1, 1, 1, 1) * (x_adv - x)).clamp_(0, 1)


def _direction(grad: Tensor, norm: Norm) -> Tensor:
    if norm is Norm.LINF:
        return grad.sign()
    tiny = torch.finfo(grad.dtype).tiny
    grad = grad / grad.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)  # in float32 1e-25 squared is 0
    return grad / grad.square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(tiny)


def _scaled(threat: ThreatModel, phase: Phase) -> ThreatModel:
    return threat if phase.scale == 1 else replace(threat, eps=phase.scale * threat.eps)


def _moved(x_adv: Tensor, x: Tensor) -> Tensor:
    """(N,): how many coordinates differ from the image's."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)


def _sparse(grad: Tensor, density: Tensor) -> Tensor:
    """The sign on the `density` (N,) share of coordinates with the largest gradients, of unit L1 norm."""
    flat = grad.flatten(1)
    size = flat.shape[1]
    place = ((1 - density) * size).long().clamp(0, size - 1)
    least = flat.abs().sort(1).values.gather(1, place[:, None])
    sign = torch.where(flat.abs() >= least, flat.sign(), 0)
    return (sign / sign.abs().sum(1, keepdim=True).clamp_min(1)).view_as(grad)


def _settle(state: State, grad: Tensor, x: Tensor, ball: ThreatModel) -> tuple[State, Tensor]:
    """A checkpoint in L1: where the best point became sparser, long steps from there; elsewhere shorter ones."""
    moved = _moved(state["best"], x)
    sparser = moved < L1_SETTLED * state["moved"]
    shorter = (state["size"] / L1_SHRINK).clamp_min(L1_LEAST * ball.eps)
    size = torch.where(sparser.view(-1, 1, 1, 1), ball.eps, shorter)
    state, grad = _back(state, grad, sparser)
    return state | {"size": size, "moved": moved, "density": moved / (L1_SHRINK * x[0].numel())}, grad
