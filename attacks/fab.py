"""Fast adaptive boundary attack: step to the linearised boundary, drawn back towards the clean image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._targets import MOST, contenders, ranked
from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.blocks import in_blocks
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel


@dataclass(frozen=True)
class FAB(IterativeAttack):
    """The nearest adversarial image in L∞, L2 or L1 (Croce and Hein 2020, algorithm 1).

    Each step projects the point and the clean image onto hyperplane ∩ box, where the hyperplane is the linearised
    boundary to the class that is nearest by it; goes `eta` times as far; and takes the mean of the two, the clean
    image's with a weight of at most `alpha_max` (equation 8). Where that is adversarial it goes back, to `beta` of the
    way from the clean image. The first round starts at the clean image, restarts anywhere within eps / 2 of it.

    targets: 0, or how many of the classes with the highest clean logits get `restarts` rounds each, in which the only
    hyperplane is that class's (at most K - 1). That needs one backward pass a step instead of K.

    steps: how many each round takes, at least 1. restarts: how many rounds, at least 1. alpha_max: the largest weight
    of the clean image, in [0, 1]. eta: how far beyond the boundary a step goes, at least 1. beta: the share of the way
    from the clean image to which a success goes back, in (0, 1).

    Cost: with R = restarts * max(1, min(targets, K - 1)) rounds, untargeted 2 R * steps forwards and R * K * steps
    backwards, with targets R * (2 steps + 1) and R * steps. Of more than 16 classes untargeted steps look at those of
    the largest logits, for R * steps forwards more.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    parallel_restarts: ClassVar[bool] = True
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2, Norm.L1})
    minimises: ClassVar[bool] = True
    queries_last_iterate: ClassVar[bool] = True
    summary: ClassVar[str] = "nearest adversarial image by projections onto linearised boundaries"
    paper: ClassVar[str] = "Croce and Hein 2020, arXiv:1907.02044"

    steps: int = 100
    restarts: int = 1
    targets: int = 0
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        check_counts(self, "steps", "restarts")
        if self.targets < 0:
            raise ConfigError(f"targets is {self.targets}: a number of classes, or 0 for all in every step")
        if not 0 <= self.alpha_max <= 1 or not 0 < self.beta < 1 or self.eta < 1:
            raise ConfigError(
                f"alpha_max {self.alpha_max}, beta {self.beta}, eta {self.eta}: alpha_max is a weight in [0, 1], beta a"
                " share of the way in (0, 1), eta an overshoot of 1 or more"
            )

    def rounds(self, oracle: Oracle) -> int:
        return self._rounds(oracle.classes)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        if oracle.targeted:
            raise ConfigError("FAB looks for the nearest class of any kind: it cannot be given one to reach")
        again = restart % self.restarts
        start = replace(threat, eps=threat.eps / 2).start(x, draws.stream("start")) if again else x
        state = {"x_adv": start, "nearest": x, "distance": x.new_full((len(x),), torch.inf)}
        return state | ({"target": ranked(oracle, x, y, restart // self.restarts)} if self.targets else {})

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        x_adv = state["x_adv"]
        if self.targets:
            gap, slope, _ = oracle.grad(x_adv, y, partial(losses.margin_to, target=state["target"]))
        else:
            gap, slope = nearest_boundary(oracle, x_adv, y, threat.norm)
        x_adv = in_blocks(partial(self._moved, threat), x_adv, gap, slope, x)
        margin = losses.margin(oracle.logits(x_adv), y)
        success, distance = margin >= 0, threat.distance(x_adv, x)
        nearer = (margin >= oracle.near_tie) & (distance < state["distance"])
        nearest = torch.where(nearer.view(-1, 1, 1, 1), x_adv, state["nearest"])
        further = torch.where(success.view(-1, 1, 1, 1), x + self.beta * (x_adv - x), x_adv)
        return state | {
            "x_adv": nearest if i + 1 == self.steps else further,
            "nearest": nearest,
            "distance": torch.where(nearer, distance, state["distance"]),
        }

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        rounds = self._rounds(classes)
        if self.targets:
            return rounds * (2 * self.steps + 1), rounds * self.steps
        return rounds * (2 + (classes > MOST)) * self.steps, rounds * self.steps * min(classes, MOST)

    def _rounds(self, classes: int) -> int:
        return self.restarts * max(1, min(self.targets, classes - 1))

    def _moved(self, threat: ThreatModel, x_adv: Tensor, gap: Tensor, slope: Tensor, x: Tensor) -> Tensor:
        """x_adv after a step to the linearised boundary {gap + <slope, move> = 0}, drawn back towards x."""
        gap_clean = gap + (slope * (x - x_adv)).flatten(1).sum(1)  # of the linearisation at x_adv
        ahead, back = onto_boundary(
            torch.cat([x_adv, x]), torch.cat([gap, gap_clean]), torch.cat([slope, slope]), threat.norm
        ).split(len(x))
        far, near = (threat.distance(move, torch.zeros_like(x)).clamp_min(1e-8) for move in (ahead, back))
        alpha = (far / (far + near)).clamp_max(self.alpha_max).view(-1, 1, 1, 1)
        moved: Tensor = (1 - alpha) * (x_adv + self.eta * ahead) + alpha * (x + self.eta * back)
        return moved.clamp_(0, 1)


def nearest_boundary(oracle: Oracle, x: Tensor, y: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """(z_k - z_y (N,), its gradient like x) for the class k whose linearised boundary is nearest."""
    rows = torch.arange(len(x), device=x.device)
    among = contenders(oracle.logits(x), y) if oracle.classes > MOST else None
    slopes, logits = oracle.jacobian(x, among)
    own = y
    if among is not None:
        logits, own = logits.gather(1, among), (among == y[:, None]).long().argmax(1)
    gaps = logits - logits.gather(1, own[:, None])
    slopes = slopes - slopes[rows, own][:, None]
    lengths = slopes.flatten(2).norm(p={Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: torch.inf}[norm], dim=2)
    away = (gaps.abs() / lengths.clamp_min(torch.finfo(x.dtype).tiny)).scatter(1, own[:, None], torch.inf)
    nearest = away.argmin(1)
    return gaps[rows, nearest], slopes[rows, nearest]


def onto_boundary(points: Tensor, gap: Tensor, slope: Tensor, norm: Norm) -> Tensor:
    """The shortest move of each point (N, C, H, W) in [0, 1] onto {gap + <slope, move> = 0} ∩ [0, 1]^d.

    Where hyperplane and box do not meet: as near to the hyperplane as the box allows.
    """
    flat, point = slope.flatten(1), points.flatten(1)
    sign = flat.sign() * -gap.sign()[:, None]  # which way each coordinate must go
    most = flat.abs().amax(1).clamp_min(torch.finfo(flat.dtype).tiny)  # in float32 1e-25 squared is 0
    weight, need = flat.abs() / most[:, None], gap.abs() / most
    room = ((sign > 0).to(point) - point).abs() * (sign != 0)
    size = fill(weight, room, need) if norm is Norm.L1 else level(weight, room, need, norm)
    return (sign * size).view_as(points)


def fill(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """The least sum of sizes in [0, room] with <weight, size> = need: the largest weights first."""
    order = weight.argsort(1, descending=True)
    ranked_weight = weight.gather(1, order)
    gain = ranked_weight * room.gather(1, order)
    missing = (need[:, None] - gain.cumsum(1) + gain).clamp_min(0)  # when it is this coordinate's restart
    size = torch.minimum(gain, missing) / ranked_weight.clamp_min(torch.finfo(weight.dtype).tiny)
    return torch.zeros_like(size).scatter_(1, order, size)


def level(weight: Tensor, room: Tensor, need: Tensor, norm: Norm) -> Tensor:
    """L∞: sizes min(t, room), L2: min(t * weight, room), with the one t where <weight, size> = need.

    The product rises with t, in pieces of falling slope: Newton's steps from below reach the last piece and end there.
    """
    even = norm is Norm.LINF
    most, slope = weight * room, weight if even else weight.square()
    tiny = torch.finfo(weight.dtype).tiny
    t = torch.zeros_like(need)
    free = room > 0
    for _ in range(weight.shape[1]):
        held = (most * ~free).sum(1)
        reached = (need - held) / (slope * free).sum(1).clamp_min(tiny)
        t = torch.maximum(t, reached.clamp_max(1 / tiny))
        size = t[:, None] if even else t[:, None] * weight
        still = free & (size < room)
        if torch.equal(still, free):
            break
        free = still
    return torch.minimum(size, room)
