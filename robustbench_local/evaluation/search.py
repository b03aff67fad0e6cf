"""What an attack finds on a batch: the searching half of a verdict. Nothing here says "robust"."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, prepared
from robustbench_local.core.containment import contained
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.decision import changed, detects, rounds_of, success_margins
from robustbench_local.core.defense import call, is_stochastic, undefended
from robustbench_local.core.device import has_bfloat16
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ConfigError, PluginError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.preflight import Tally


@dataclass
class SearchResult:
    """What a search came back with, per sample. blind: it asked for gradients, and none was of any use."""

    x_adv: Tensor
    forwards: Tensor
    backwards: Tensor
    broken: Tensor
    blind: Tensor
    notes: dict[str, Tensor]

    @classmethod
    def nothing(cls, x: Tensor) -> SearchResult:
        """The clean images themselves, for no passes."""
        count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return cls(x.clone(), count, count.clone(), count.bool(), count.bool(), {})

    def __getitem__(self, rows: Tensor) -> SearchResult:
        notes = {name: values[rows] for name, values in self.notes.items()}
        spent = self.forwards[rows], self.backwards[rows]
        return SearchResult(self.x_adv[rows], *spent, self.broken[rows], self.blind[rows], notes)

    @staticmethod
    def better(one: SearchResult, other: SearchResult, takes: Tensor) -> SearchResult:
        """one's finds, or the other's where takes (N,) says so; the spending of both, the rest of the first."""
        x_adv = torch.where(takes.view(-1, 1, 1, 1), other.x_adv, one.x_adv)
        forwards, backwards = one.forwards + other.forwards, one.backwards + other.backwards
        return SearchResult(x_adv, forwards, backwards, one.broken, one.blind, one.notes)

    def update(self, rows: Tensor, other: SearchResult, add: bool = False) -> None:
        """Put another search's finds into these rows; add: its spending comes on top."""
        self.x_adv[rows], self.broken[rows], self.blind[rows] = other.x_adv, other.broken, other.blind
        self.forwards[rows] = other.forwards + (self.forwards[rows] if add else 0)
        self.backwards[rows] = other.backwards + (self.backwards[rows] if add else 0)
        for name, values in other.notes.items():
            self.notes.setdefault(name, values.new_full(rows.shape, torch.nan))[rows] = values


@dataclass(frozen=True)
class Search:
    """One attack within one threat, under a judge's settings. Search(...)(model, x, goal, draws) -> SearchResult.

    goal (N,): the true classes, or where targeted the classes to reach.
    """

    attack: Attack
    threat: ThreatModel
    targeted: bool
    precision: str
    count: str
    budget: int | None
    eot: int
    adaptive: bool
    width: int = 256  # images in one query for a gradient, at most
    chunk: int = 1024  # and in one for scores or labels
    own: Tally = field(default_factory=Tally)  # what the judge and the search itself asked, beside the attack

    def prepare(self, model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> tuple[Search, tuple[int, int]]:
        """(the search with the attack as it runs on batches, forward and backward passes it took to become so).

        x, y: images of the attacker's own.
        """
        untargeted = replace(self, targeted=False)
        oracle = untargeted._oracle(model, x, y, draws.stream("prepare"))
        with self._contained():
            ready = prepared(
                self.attack, oracle, x.clone(), y.clone(), copy(self.threat), draws.clone().stream("learn")
            )
        self._check_meter(oracle)
        return replace(self, attack=ready), (int(oracle.forwards.sum()), int(oracle.backwards.sum()))

    def __call__(self, model: nn.Module, x: Tensor, goal: Tensor, draws: Draws) -> SearchResult:
        """The adaptive search, and for what it did not break the naive one; or the naive one alone.

        Of a random detector an image that is best left as it is comes back so: to reject that is an error.
        """
        found = self._both(model, x, goal, draws)
        if self.detected(model) and is_stochastic(model):
            alone = SearchResult.nothing(x)
            scores = [self._score(model, one, x, goal, draws) for one in (found, alone)]
            found = SearchResult.better(found, alone, scores[1] > scores[0])
        return found

    def _both(self, model: nn.Module, x: Tensor, goal: Tensor, draws: Draws) -> SearchResult:
        bare = undefended(model) if self.attack.access is Access.GRADIENTS else None
        if bare is None or (self.adaptive and self.budget is not None):
            return self._run(model, x, goal, draws)
        static = replace(self, count="last")  # what deceives the undefended part need not deceive the whole
        if not self.adaptive:
            return static._run(bare, x, goal, draws)
        found = self._run(model, x, goal, draws)
        rows = torch.ones_like(found.broken) if self.attack.minimises or is_stochastic(model) else ~found.broken
        if rows.any():
            naive = static._run(bare, x[rows], goal[rows], draws[rows])
            both = (found[rows], naive)
            scores = [self._score(model, one, x[rows], goal[rows], draws[rows]) for one in both]
            found.update(rows, SearchResult.better(*both, scores[1] > scores[0]))
        return found

    def answers(self, model: nn.Module, x: Tensor, draws: Draws, rounds: int = 1) -> Tensor:
        """(N, R, K) logits; R is 1 unless the model is random, and then each of `rounds` draws is a fresh one."""
        return torch.stack([self.answer(model, x, draws.stream(k)) for k in range(rounds_of(model, rounds))], 1)

    def answer(self, model: nn.Module, x: Tensor, draws: Draws) -> Tensor:
        """(N, K) logits."""
        self.own.forwards += len(x)
        with torch.no_grad():
            return call(model, x, draws)

    def margins(self, model: nn.Module, answers: Tensor, goal: Tensor, x_adv: Tensor, x: Tensor) -> Tensor:
        """The attacker's margins (N, R) by the model's answers (N, R, K) to x_adv."""
        rejectable = changed(x_adv, x) if self.detected(model) else None
        return success_margins(answers, goal, targeted=self.targeted, rejectable=rejectable)

    def detected(self, model: nn.Module) -> bool:
        """Whether to be rejected by the model is this attack's failure."""
        return detects(model, targeted=self.targeted, natural=isinstance(self.attack, Corruption))

    def _score(self, model: nn.Module, found: SearchResult, x: Tensor, goal: Tensor, draws: Draws) -> Tensor:
        """(N,) the attacker's mean margin over search draws; of attacks that minimise, how near a success is."""
        seen = self.answers(model, found.x_adv, draws.stream("worth"), self.eot)
        margin = self.margins(model, seen, goal, found.x_adv, x).mean(1)
        inside = self.threat.contains(found.x_adv, x)
        if not self.attack.minimises:
            return torch.where(inside, margin, -torch.inf)
        return torch.where(margin >= 0, -self.threat.distance(found.x_adv, x), -torch.inf)

    def _run(self, model: nn.Module, x: Tensor, goal: Tensor, draws: Draws) -> SearchResult:
        """Run the attack. "fast" searches in bfloat16 first, where that is native; what it did not break starts anew.

        A random model is searched in float32 only: nothing of it may retire on one draw.
        """
        if self.precision == "fast" and has_bfloat16(x.device) and not is_stochastic(model):
            with torch.autocast(x.device.type, torch.bfloat16):
                quick = self._attack(model, x, goal, draws)
            seen = self.answers(model, quick.x_adv, draws.stream("verdict"))
            margins = self.margins(model, seen, goal, quick.x_adv, x)[:, 0]
            rest = (margins < 0) | ~self.threat.contains(quick.x_adv, x)
            if rest.any():
                quick.update(rest, self._attack(model, x[rest], goal[rest], draws[rest]), add=True)
            return quick
        return self._attack(model, x, goal, draws)

    def _attack(self, model: nn.Module, x: Tensor, goal: Tensor, draws: Draws) -> SearchResult:
        oracle = self._oracle(model, x, goal, draws.stream("oracle"))
        start = x.clone(memory_format=torch.preserve_format)
        with self._contained():
            x_adv = self.attack(oracle, start, goal.clone(), copy(self.threat), draws.clone().stream("attack"))
        self._check_meter(oracle)
        if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
            what = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
            name = type(self.attack).__name__
            raise ConfigError(f"{name} returned {what}: an attack returns images like x, {tuple(x.shape)}")
        spent = oracle.forwards, oracle.backwards
        return SearchResult(x_adv.detach().to(x).clone(), *spent, oracle.broken, oracle.blind, oracle.notes)

    def _contained(self) -> AbstractContextManager[None]:
        return contained(PluginError, f"attack {type(self.attack).__name__}")

    def _check_meter(self, oracle: Oracle) -> None:
        """AccessError where the attack had more than the meter shows, but for the one image that tells a shape."""
        metered, most = int(oracle.forwards.sum()), int(oracle.forwards.max()) if len(oracle) else 0
        beside = oracle.received - metered
        name = type(self.attack).__name__
        if beside > 1:
            raise AccessError(f"{name} was answered on {beside} images that are not on its meter")
        if self.budget is not None and most > self.budget:
            raise AccessError(f"{name} had {most} forward passes on one image, and the budget is {self.budget}")
        self.own.forwards += max(0, beside)

    def _oracle(self, model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Oracle:
        return Oracle(
            model,
            x,
            y,
            self.threat,
            self.attack.access,
            draws,
            targeted=self.targeted,
            eot=self.eot,
            budget=self.budget,
            every_iterate=self.count == "all",
            minimises=self.attack.minimises,
            width=self.width,
            chunk=self.chunk,
        )
