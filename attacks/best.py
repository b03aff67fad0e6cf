"""Best: a few climbs for every image, and more the nearer it is to falling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._best_l0 import PixelExchange
from robustbench_local.attacks._edge import Edge
from robustbench_local.attacks._random_search import settled
from robustbench_local.attacks._transfers import handed
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.pdpgd import PDPGD
from robustbench_local.attacks.square import Square, moved, recoloured
from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.ledger import usable
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

GRADIENTS = 0.39  # the share of all queries that ask for a gradient
TARGETED = 2  # every second climb goes for one class
SOFT = 4  # in L∞ the third of every four raises cross-entropy, which leads where the margin does not
POLISH = 3  # every third comes between proposals, from the best point, in L1 half of these from the edge
NEAR = 0.2  # of eps: the first step from the best point
TRIED = 6  # climbs before an image may be given up
# of all queries: after so many the share `hopeless` may be left, after twice as many half of it
HOPEFUL = {Norm.LINF: 1 / 5, Norm.L2: 1 / 10, Norm.L1: 1 / 5}
STUCK = {Norm.L1: 1 / 40}  # the same where no climb has come on since an eighth of the queries so far
ON, LATELY = 1 / 20, 8  # it has where it left a twentieth less of the margin
OTHER = 5  # in L1: every fifth proposal is of the kind that has brought less
REACH, RETURN = 4.0, 0.8  # in L1 and L2: a climb for one class begins in so many eps, and is back after so much of it
WALKS: dict[Norm, tuple[Edge, ...]] = {
    Norm.L2: (Edge(95, FAB(targets=3)),),
    Norm.L1: (Edge(50, FAB(targets=2)), Edge(225, PDPGD())),
}
WALKED = {Norm.L2: 6, Norm.L1: 1}  # climbs before these
FROM_BEST = {Norm.L2: 5, Norm.L1: 2}  # the place, of every six climbs, of the one that begins at the best point
SPARSE = 4  # in L0: queries for each of the others' where an image is not given up, since most are


@dataclass(frozen=True)
class Best(IterativeAttack):
    """Climb the margin from many starts at the edge of the ball, then search at random around the best point met.

    A climb starts where Square does (L∞: stripes at +-eps) and takes steps of eps (1 - j / climb): a first step of eps,
    back into the ball, found more on masked gradients than longer ones. Every second climb goes for one class, in the
    order of how near each came so far, as in A3 (arXiv:2203.05154) and MALT (arXiv:2407.02240); the others raise the
    margin, in L∞ every second of them cross-entropy, of logits brought to the same spread: it follows all classes at
    once. From the sixth climb on, whenever one has ended, an image may be given up: where after t of S queries more
    than the share hopeless * S / 5 t of its clean margin (L2: S / 10 t) would be left if the margin came down once more
    by what it did since it was last looked at. An image is asked about the longer the less is left, and longer while
    that gets less. In L1, where few fall late that did not get on before, it is hopeless * S / 40 t, unless a climb
    that ended after the walks and after t/8 queries left a twentieth less of the margin. Where after six climbs more
    than the share `hopeless` is left, and a gradient was zero or not finite, or no climb rose above its start, Square
    has the queries that are left.
    The search proposes Square's changes to the best point, from squares that cover the share `p` of the image down to
    one pixel, their sides shrinking by the same factor each time. It is interrupted, at even distances, by climbs from
    the best point that begin with 0.2 eps. Where gradients are masked, either kind gets on from where the other stalls.
    In L1 and L2, where a net trained for L∞ may mask its gradients inside the ball, climbs for one class begin in one
    four times as large (as in arXiv:2103.01208, but there for L1 alone), one of every six begins at the best point, and
    attacks that look for the nearest image walk outside, each with a climb from where that image is brought back to the
    ball's edge: in L2 after six climbs three rounds of FAB, in L1 after the first two of FAB and one of PDPGD.
    In L1 the search begins after six climbs; every second climb that interrupts it begins outside, for one class. In
    half of its proposals one coordinate hands its change to another; once one kind has raised the margin by more, in
    four of five or in one. Hands find what a net trained for L∞ masks, squares what steps in a network do.
    In L0 one pixel is exchanged for another, from ten random starts with 0.4 S queries each: first by gradients, with
    a tabu list, then at random around the best point, led by what the exchanges before have shown. After s starts an
    image is given up where more than hopeless / sqrt(s) of its clean margin is left. climb and p are of no effect.

    steps: queries of either kind for an image that is not given up, at effort=1 a fifth of AutoAttack's forwards;
    effort multiplies them. hopeless=inf gives none up. `python -m benchmarks.best` measures robust accuracy and the
    passes beside AutoAttack's; where that was not done for a kind of model, run autoattack as well.

    climb: steps of a climb, at least 1. effort: multiplies steps, in (0, 1000]. p: the share of the image that the
    search's first square covers, in (0, 1]. hopeless: the share of the clean margin that is too much to go on, after a
    fifth of the queries (L2: a tenth), above 0; inf gives no image up.

    Cost: with S = max(1, round(effort * steps)) and T = max(1, int(0.39 S / climb)), at most S + 1 forwards and
    T * climb backwards (S backwards at most), in L1 min(T, 6 + T // 3) * climb. An image that is given up costs at
    least 6 climb + 1 and 6 climb; there are only such where T - T // 3 >= 6 (effort >= 0.33), and there the walks come
    on top: in L2 501 and 285, in L1 380 and 325. Of a network trained for L∞ a lower effort leaves many more images
    robust in these norms. In L0 at most 4 S + 1 forwards, and a tenth of S backwards.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2, Norm.L1, Norm.L0})
    version: ClassVar[int] = 4  # where gradients are of no use, scores are searched
    summary: ClassVar[str] = "margin climbs; for what gives way more of them, in turn with Square from the best point"
    paper: ClassVar[str] = "this package; ideas of arXiv:2203.05154, arXiv:2407.02240 and arXiv:1912.00049"

    steps: int = 1600
    effort: float = 1.0
    climb: int = 25
    p: float = 0.045
    hopeless: float = 0.3

    def __post_init__(self) -> None:
        check_counts(self, "steps", "climb")
        if not 0 < self.effort <= 1000:
            raise ConfigError(f"effort is {self.effort}: it multiplies steps, allowed is (0, 1000]")
        if not self.hopeless > 0:
            raise ConfigError(f"hopeless is {self.hopeless}: the share of the clean margin that is too much, above 0")
        if not 0 < self.p <= 1:
            raise ConfigError(f"p is {self.p}: the share of the image that a first square covers, in (0, 1]")

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        if self.effort != 1:
            return replace(self, steps=self._total(), effort=1.0)(oracle, x, y, threat, draws)
        if threat.norm is Norm.L0:
            return self._sparse()(oracle, x, y, threat, draws)
        return super().__call__(oracle, x, y, threat, draws)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        low = x.new_full((len(x), oracle.classes), -torch.inf)
        state = {"x_adv": x, "best": x, "margin": low[:, 0], "gaps": low, "target": y}
        state = _met(state, x, oracle.logits(x), oracle, y)
        no = torch.zeros_like(y, dtype=torch.bool)
        gains = x.new_zeros(len(x), 2)
        seen = {"clean": state["margin"], "seen": state["margin"], "began": low[:, 0], "came_on": torch.zeros_like(y)}
        return state | seen | {"gains": gains, "abandoned": no, "flat": no, "rose": no}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        climbs, polishes = self._climbs(threat.norm)
        after = i - climbs * self.climb
        if after < 0:
            restart, j = divmod(i, self.climb)
            if threat.norm is not Norm.LINF and restart % TRIED == FROM_BEST[threat.norm]:
                state = self._polished(state, oracle, x, y, threat, j)
            else:
                state = self._climbed(state, oracle, x, y, threat, draws, restart, j)
            if climbs >= TRIED and i + 1 == WALKED.get(threat.norm, 0) * self.climb and not oracle.targeted:
                state = self._walked(state, oracle, x, y, threat, draws)
            if i + 1 == TRIED * self.climb:
                state = self._sorted(state, oracle, x, y, threat, draws)
            return self._looked(state, threat, i + 1) if j + 1 == self.climb else state
        proposals = self.steps - (climbs + polishes) * self.climb
        stretch = proposals // (polishes + 1)
        restart, j = divmod(after, stretch + self.climb)
        if restart < polishes and j >= stretch:
            j -= stretch
            if threat.norm is Norm.L1 and restart % 2 == 0:
                state = self._climbed(state, oracle, x, y, threat, draws, climbs + 1 + restart, j)
            else:
                state = self._polished(state, oracle, x, y, threat, j)
            return self._looked(state, threat, i + 1) if j + 1 == self.climb else state
        k = after - min(restart, polishes) * self.climb
        side = math.sqrt(self.p * x[0, 0].numel()) ** (1 - k / proposals)
        return self._proposed(state, oracle, x, y, threat, draws, side, k)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        total = self._total()
        if norm is Norm.L0:
            return replace(self, steps=total)._sparse().cost(classes, norm)
        climbs = replace(self, steps=total)._climbs(norm)
        walks = [walk.cost(classes, norm) for walk in WALKS.get(norm, ()) if climbs[0] >= TRIED]
        forwards, backwards = (sum(passes) for passes in zip(*walks, strict=True)) if walks else (0, 0)
        return total + 1 + forwards, min(total, self.climb * sum(climbs)) + backwards

    def _climbed(
        self,
        state: State,
        oracle: Oracle,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        draws: Draws,
        restart: int,
        j: int,
    ) -> State:
        """Step j of a climb from the edge."""
        if j == 0:
            state = state | self._fresh(state, oracle, x, threat, draws, restart)
        far = threat.norm is not Norm.LINF and self._aimed(oracle, restart)
        loss = self._loss(oracle, state, threat, restart)
        ball = self._wider(threat, j) if far else threat
        return self._ascend(state, oracle, x, y, threat, 1 - j / self.climb, loss, ball)

    def _polished(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, j: int) -> State:
        """Step j of a climb from the best point."""
        if j == 0:
            state = state | {"x_adv": state["best"], "began": x.new_full((len(x),), torch.inf)}
        loss = losses.named("margin", targeted=oracle.targeted)
        return self._ascend(state, oracle, x, y, threat, NEAR * (1 - j / self.climb), loss, threat)

    def _proposed(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, side: float, k: int
    ) -> State:
        """Proposal k of the search, around the best point."""
        best, by_hand = state["best"], torch.zeros_like(y, dtype=torch.bool)
        x_adv = (recoloured if threat.norm is Norm.LINF else moved)(best, x, threat, draws, side)
        if threat.norm is Norm.L1:
            by_hand = _by_hand(state["gains"], k)
            x_adv = torch.where(by_hand.view(-1, 1, 1, 1), handed(best, x, threat, draws), x_adv)
        met = _met(state, x_adv, oracle.logits(x_adv), oracle, y)
        gains = state["gains"].scatter_add(1, by_hand[:, None].long(), (met["margin"] - state["margin"])[:, None])
        return met | {"x_adv": met["best"], "gains": gains}

    def _walked(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:
        """What the walks find, from the clean image."""
        for walk in WALKS[threat.norm]:
            x_adv = walk(oracle, x, y, threat, draws.stream("walk"))  # the oracle knows who succeeded
            state = _met(state, x_adv, oracle.logits(x_adv), oracle, y)
        return state

    def _sorted(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:
        """Where gradients were of no use, scores are searched with all queries that are left."""
        much = state["margin"] < self.hopeless * state["clean"]
        unled = oracle.blind | (much & (state["flat"] | ~state["rose"]))
        lost = (unled & ~oracle.done).nonzero()[:, 0]
        x_adv = state["best"]
        if len(lost):
            x_adv = x_adv.index_put((lost,), self._unled(oracle[lost], x[lost], y[lost], threat, draws[lost]))
        return state | {"x_adv": x_adv, "abandoned": unled}

    def _fresh(self, state: State, oracle: Oracle, x: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        """Where a climb starts, and the class it goes for: the next nearest of those tried so far."""
        x_adv = Square().start(x, threat, draws.stream("start"))["x_adv"]
        start = {"x_adv": x_adv, "began": x.new_full((len(x),), torch.inf)}
        if not self._aimed(oracle, restart):
            return start
        rank = restart // TARGETED % max(1, oracle.classes - 1)
        return start | {"target": state["gaps"].argsort(1, descending=True)[:, rank]}

    def _looked(self, state: State, threat: ThreatModel, asked: int) -> State:
        """After so many queries, at the end of a climb: what is too far from falling is given up."""
        on = (state["margin"] > (1 - ON) * state["seen"]) & (asked > WALKED.get(threat.norm, 0) * self.climb)
        came_on = torch.where(on, asked, state["came_on"])
        seen = {"seen": state["margin"], "came_on": came_on}
        if self._climbs(threat.norm)[0] < TRIED or asked < TRIED * self.climb:
            return state | seen
        hopeful = HOPEFUL[threat.norm]
        most, stuck = (self.hopeless * of * self.steps / asked for of in (hopeful, STUCK.get(threat.norm, hopeful)))
        ahead = 2 * state["margin"] - state["seen"]  # were it to come down once more by as much
        far = ahead < torch.where(asked <= LATELY * came_on, most, stuck) * state["clean"]
        return state | seen | {"abandoned": state["abandoned"] | far}

    def _unled(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """What scores alone find, with all queries that are left."""
        search = Square(steps=self.steps - TRIED * self.climb - 1)
        return search(oracle.narrowed(Access.SCORES), x, y, threat, draws.stream("unled"))

    def _ascend(
        self,
        state: State,
        oracle: Oracle,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        share: float,
        loss: losses.Loss,
        ball: ThreatModel,
    ) -> State:
        """A step of `share` times the ball's eps, in the ball."""
        x_adv = state["x_adv"]
        _, grad, logits = oracle.grad(x_adv, y, loss)
        climbed = ball.climb(x_adv, grad, x, share * ball.eps)
        inside = threat.contains(x_adv, x)
        state = _met(state, x_adv, logits, oracle, y, inside)
        began = torch.where(inside & (state["began"] == torch.inf), state["last"], state["began"])
        return state | {
            "x_adv": climbed,
            "began": began,
            "rose": state["rose"] | (state["last"] > began),
            "flat": state["flat"] | (inside & ~usable(grad)),
        }

    def _wider(self, threat: ThreatModel, j: int) -> ThreatModel:
        """The ball of a climb that begins outside, at its step j."""
        left = max(0.0, 1 - j / (RETURN * self.climb))
        return replace(threat, eps=threat.eps * (1 + (REACH - 1) * left))

    def _loss(self, oracle: Oracle, state: State, threat: ThreatModel, restart: int) -> losses.Loss:
        """What a climb from the edge raises.

        Where no gradient was of use before, the margin: of cross-entropy a softmax's rounding alone would have a slope.
        """
        if self._aimed(oracle, restart):
            return partial(losses.margin_to, target=state["target"])
        margin = losses.named("margin", targeted=oracle.targeted)
        if threat.norm is not Norm.LINF or restart % SOFT != SOFT // 2:
            return margin
        soft, blind = losses.spread_alike(losses.named("ce", targeted=oracle.targeted)), oracle.blind
        return lambda logits, y: torch.where(blind, margin(logits, y), soft(logits, y))

    def _aimed(self, oracle: Oracle, restart: int) -> bool:
        return not oracle.targeted and restart % TARGETED == TARGETED - 1

    def version_in(self, norm: Norm, budget: int | None = None) -> int:
        """In L∞ some climbs raise cross-entropy, in L2 some begin at the best point, in L1 changes are handed on, in
        L0 pixels are exchanged by gradients too, and the exchanges by scores learn from those before."""
        return {Norm.LINF: 6, Norm.L2: 5, Norm.L1: 8, Norm.L0: 7}.get(norm, self.version)

    def _sparse(self) -> PixelExchange:
        return PixelExchange(steps=SPARSE * self.steps, hopeless=self.hopeless)

    def _total(self) -> int:
        return max(1, round(self.effort * self.steps))

    def _climbs(self, norm: Norm) -> tuple[int, int]:
        """How many climbs come before the search, and how many interrupt it."""
        total = max(1, int(GRADIENTS * self.steps / self.climb))
        before, between = total - total // POLISH, total // POLISH
        return min(before, TRIED) if norm is Norm.L1 else before, between


def _by_hand(gains: Tensor, k: int) -> Tensor:
    """(N,) bool: whether proposal k hands a change on, by how much squares and hands have gained so far (N, 2)."""
    squares, hands = gains.unbind(1)
    return torch.where(squares == hands, k % 2 == 1, (hands > squares) ^ (k % OTHER == OTHER - 1))


def _met(state: State, x_adv: Tensor, logits: Tensor, oracle: Oracle, y: Tensor, inside: Tensor | None = None) -> State:
    """What is known after the answer to x_adv, where it is inside: the best point so far, how near each class came."""
    margin = settled(losses.named("margin", targeted=oracle.targeted)(logits, y), oracle.unit)
    gaps = settled(logits - logits.gather(1, y[:, None]), oracle.unit[:, None]).scatter(1, y[:, None], -torch.inf)
    if inside is not None:
        margin, gaps = margin.where(inside, -torch.inf), gaps.where(inside[:, None], -torch.inf)
    better = margin > state["margin"]
    return state | {
        "last": margin,
        "best": torch.where(better.view(-1, 1, 1, 1), x_adv, state["best"]),
        "margin": torch.where(better, margin, state["margin"]),
        "gaps": torch.fmax(gaps, state["gaps"]),
    }
