"""What an attack is: one call on a batch. IterativeAttack inherits the loop, where speed and honesty live once."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from robustbench_local.core.access import Access
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.trace import Trace

State = dict[str, Tensor]
AHEAD = 32  # steps whose first draws are made at once


@dataclass(frozen=True)
class Attack:
    """A plug-in: its fields are its settings.

    access: what it needs of the oracle. norms: the threat models it knows. minimises: it looks for the nearest
    adversarial image instead of any in the ball. summary and paper are what `list attacks` shows. A change of what an
    attack computes raises its version, so that older rows are made again; one that leaves some norms or budgets as they
    were raises `version_in` the others.
    """

    access: ClassVar[Access] = Access.NONE
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    minimises: ClassVar[bool] = False
    version: ClassVar[int] = 1
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    @property
    def own_images(self) -> int:
        """How many images of the attacker's own `prepare` learns from."""
        return 0

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        """What is learnt once, before any judged image is seen -> the attack that then runs on the batches.

        x (own_images, C, H, W) and their labels y are the attacker's own, none of them judged; the oracle answers for
        exactly these, with this attack's access and a meter of its own.
        """
        return self

    def knowing(self, **learnt: object) -> Self:
        """A copy with attributes that are no settings: what `prepare` has learnt, declared as class variables."""
        other = copy(self)
        vars(other).update(learnt)
        return other

    def version_in(self, norm: Norm, budget: int | None = None) -> int:
        """The version by which rows of this norm and budget of forward passes are named."""
        return self.version

    def sources(self) -> dict[str, str]:
        """{what it reads beyond its settings, such as weights: digest}. A row is named by these too."""
        return {}

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """Clean images x (N, C, H, W) and labels y (N,), or targets where oracle.targeted -> x_adv, like x."""
        raise NotImplementedError

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        """Forward and backward passes, in this norm, per image that stays robust; for estimates."""
        return 0, 0

    def prepare_cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        """Forward and backward passes of the target that `prepare` takes, on all its images together."""
        return 0, 0


def prepared(attack: Attack, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
    """The attack as it runs on the batches. ConfigError where preparing made another kind of attack of it."""
    ready = attack.prepare(oracle, x, y, threat, draws)
    if ready.access > attack.access or ready.minimises != attack.minimises:
        raise ConfigError(f"{type(attack).__name__} became another kind of attack when it was prepared")
    return ready


@dataclass(frozen=True)
class IterativeAttack(Attack):
    """init and step are the attack's own. The loop runs `rounds` restarts of `steps`, on the samples not broken yet.

    A broken sample retires and the batch is compacted. Where a step depends on nothing but x_adv (`memoryless`), a
    sample whose image comes back after one or two steps has settled: more of the same round would change nothing.
    A state that holds `abandoned` (N,) bool retires those samples too, with what they have. Of one that holds
    `best_loss` (N,), the best value so far of what is climbed, the first round is traced.
    The end of a round is submitted, unless its steps queried it (`queries_last_iterate`) and every iterate counts.

    Restarts whose steps draw nothing and that know nothing of each other (`parallel_restarts`) run at once after the
    first, which breaks most of what can be broken: large batches are cheaper per image. A sample broken in one retires
    from all.

    steps: how many a round takes, at least 1.
    """

    memoryless: ClassVar[bool] = False
    queries_last_iterate: ClassVar[bool] = False
    parallel_restarts: ClassVar[bool] = False

    steps: int = 1

    @property
    def stride(self) -> int:
        """How many steps one call of `step` makes. With more than one its draws are the round's, for it to stream."""
        return 1

    def rounds(self, oracle: Oracle) -> int:
        return 1

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        """The state before the first step of round `restart`: (N, ...) tensors, one of them named x_adv."""
        raise NotImplementedError

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        """One step on every sample: query the oracle at state["x_adv"], then move."""
        raise NotImplementedError

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = x.clone()
        rounds = self.rounds(oracle)
        alone = 1 if self.parallel_restarts and oracle.unordered else rounds
        for restarts in [*([restart] for restart in range(alone)), list(range(alone, rounds))]:
            rows = (~oracle.done).nonzero()[:, 0]
            if not len(rows) or not restarts:
                break
            for some in rows.split(max(1, oracle.width // len(restarts)) if len(restarts) > 1 else len(rows)):
                x_adv[some] = self._rounds_of(oracle[some], x[some], y[some], threat, draws[some], restarts, rounds)
        return oracle.best(x_adv)

    def _rounds_of(
        self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restarts: list[int], rounds: int
    ) -> Tensor:
        """Where the last of these restarts ended, like x. All of them run at once, and hand in their ends."""
        streams = [draws.stream(f"round:{restart}") for restart in restarts]
        states = [self.init(oracle, x, y, threat, *each) for each in zip(streams, restarts, strict=True)]
        state = {name: torch.cat([one[name] for one in states]) for name in states[0]}
        everyone = torch.arange(len(x), device=x.device).repeat(len(restarts))
        oracle = oracle[everyone]
        trace = Trace(oracle, range(0, self.steps, self.stride) if restarts[0] == 0 else range(0))
        ended = self._round(state, oracle, x[everyone], y[everyone], threat, streams[-1][everyone], trace)
        trace.note()
        last = slice(-len(x), None)
        if not (self.queries_last_iterate and oracle.every_iterate):
            left = ~oracle.done
            if restarts[-1] + 1 == rounds and not oracle.stochastic:
                left[last] &= oracle.remembered[last]  # the judge asks what is returned: only a rival's is to be asked
            if left.any():
                oracle[left].submit(ended[left])
        return ended[last]

    def _round(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, trace: Trace
    ) -> Tensor:
        """Where the steps end that begin at this state."""
        ended = state["x_adv"].clone()
        rows = torch.arange(len(x), device=x.device)
        watch = self.memoryless and oracle.every_iterate and not oracle.stochastic
        before, last = state["x_adv"], state["x_adv"]
        streams: dict[int, Draws] = {}
        for i in range(0, self.steps, self.stride):
            if i not in streams and self.stride == 1:
                streams = draws.prefetch(range(i, min(i + AHEAD, self.steps)))
            state = self.step(state, oracle, x, y, threat, streams.get(i, draws), i)
            trace.keep(i, rows, state)
            leaving = oracle.done
            if "abandoned" in state:
                leaving = leaving | state["abandoned"]
            if watch:
                leaving = leaving | _same(state["x_adv"], last) | (_same(state["x_adv"], before) if i else leaving)
                before, last = last, state["x_adv"]
            gone = leaving.nonzero()[:, 0]
            if len(gone):
                ended[rows[gone]] = state["x_adv"][gone]
                stay = (~leaving).nonzero()[:, 0]
                if not len(stay):
                    return ended
                state = {name: value[stay] for name, value in state.items()}
                rows, oracle, x, y, draws = rows[stay], oracle[stay], x[stay], y[stay], draws[stay]
                streams = {}
                before, last = before[stay], last[stay]
        ended[rows] = state["x_adv"]
        return ended


def _same(a: Tensor, b: Tensor) -> Tensor:
    """(N,) bool: equal images. One line of pixels tells most apart, and is cheap where nothing waits for the answer."""
    if a.device.type != "cpu":
        return (a == b).flatten(1).all(1)
    line = a.shape[2] // 2
    same = (a[:, :, line] == b[:, :, line]).flatten(1).all(1)
    rows = same.nonzero()[:, 0]
    same[rows] = (a[rows] == b[rows]).flatten(1).all(1)
    return same
