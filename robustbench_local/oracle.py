"""What an attacker may touch: access levels that refuse, a meter per sample, and the memory of what fell."""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from torch import Tensor, nn

from robustbench_local import losses
from robustbench_local.defense import call, is_stochastic
from robustbench_local.draws import Draws
from robustbench_local.errors import AccessError, ModelError
from robustbench_local.losses import Loss
from robustbench_local.threat import ThreatModel

CLEARLY = 1e-4  # margin past the boundary, in logits, that ends a search: float32 kernels differ with batch shape


class Access(IntEnum):
    """What an attack needs, or an oracle grants; each level includes those before it."""

    NONE = 0
    LABELS = 1
    SCORES = 2
    GRADIENTS = 3


class Ledger:
    """One batch's meter and memory, shared by every view of its oracle. All tensors are (N, ...)."""

    def __init__(self, x: Tensor, budget: int | None) -> None:
        count = (len(x),)
        self.forwards = torch.zeros(count, dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.lead = torch.full(count, -torch.inf, dtype=x.dtype, device=x.device)
        self.distance = torch.full(count, torch.inf, dtype=x.dtype, device=x.device)
        self.fallen = torch.zeros(count, dtype=torch.bool, device=x.device)
        self.x_adv = x.clone()
        self.budget = budget


class Oracle:
    """The attacker's only way to the model, for one batch of clean images x (N, C, H, W) and labels y (N,).

    targeted: y is the class to reach. eot: forward passes averaged per query of a random model. budget: forward
    passes per sample; a sample that cannot pay for a whole query freezes: it is not asked, its gradient is zero.
    every_iterate: remember any in-ball success among all queries; otherwise only those handed to `submit`.
    minimises: success needs no ball, and the nearest success is remembered.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, access: Access, draws: Draws, *,
        targeted: bool = False, eot: int = 1, budget: int | None = None, every_iterate: bool = True,
        minimises: bool = False, chunk: int = 1024,
    ) -> None:  # fmt: skip
        self._model, self._x, self._y, self.threat, self.access = model, x, y, threat, access
        self._draws, self.targeted, self._chunk = draws, targeted, chunk
        self.stochastic = is_stochastic(model)
        self.eot = eot if self.stochastic else 1
        self._every_iterate, self._minimises = every_iterate, minimises
        self._ledger = Ledger(x, budget)
        self._rows: Tensor | None = None  # which rows of the ledger this view stands for; None: all

    def __getitem__(self, rows: Tensor) -> Oracle:
        """The same meter and memory, for fewer samples (indices or a mask)."""
        view = object.__new__(Oracle)
        view.__dict__.update(self.__dict__)
        everyone = torch.arange(len(self._ledger.fallen), device=self._x.device) if self._rows is None else self._rows
        view._rows = everyone[rows]
        view._x, view._y, view._draws = self._x[rows], self._y[rows], self._draws[rows]
        return view

    def __len__(self) -> int:
        return len(self._x)

    # what the attacker may ask

    def grad(self, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """loss (N,), its gradient like x, logits (N, K), at x (N, C, H, W); of a random model the means over eot draws.

        One forward and one backward pass per sample and draw.
        """
        self._require(Access.GRADIENTS, "gradients")
        live = self._live(self.eot)
        if live is not None:
            value, grad, logits = x.new_zeros(len(x)), torch.zeros_like(x), x.new_zeros(len(x), self.classes)
            if live.any():
                value[live], grad[live], logits[live] = self[live].grad(x[live], y[live], loss)
            return value, grad, logits
        self._add(self.eot, self.eot)
        sums: list[Tensor] = []
        with torch.enable_grad():
            for search in self._searches():
                leaf = x.detach().requires_grad_()
                out = call(self._model, leaf, search)
                each = loss(out, y)
                slope = _derivative(each.sum(), leaf)
                parts = [each.detach(), slope, out.detach(), self._lead(out.detach())]
                sums = parts if not sums else [a + b for a, b in zip(sums, parts, strict=True)]
        value, grad, logits, lead = sums if self.eot == 1 else [part / self.eot for part in sums]
        self._remember(x, lead)
        return value, grad, logits

    def jacobian(self, x: Tensor) -> Tensor:
        """(N, K, C, H, W): the gradient of every logit. One forward and K backward passes per sample and draw."""
        self._require(Access.GRADIENTS, "a jacobian")
        classes = self.classes
        live = self._live(self.eot)
        if live is not None:
            slopes = x.new_zeros(len(x), classes, *x.shape[1:])
            if live.any():
                slopes[live] = self[live].jacobian(x[live])
            return slopes
        self._add(self.eot, self.eot * classes)
        slopes, lead = x.new_zeros(len(x), classes, *x.shape[1:]), x.new_zeros(len(x))
        with torch.enable_grad():
            for search in self._searches():
                leaf = x.detach().requires_grad_()
                out = call(self._model, leaf, search)
                lead += self._lead(out.detach()) / self.eot
                for k in range(classes):
                    slopes[:, k] += _derivative(out[:, k].sum(), leaf, more=k + 1 < classes) / self.eot
        self._remember(x, lead)
        return slopes

    def logits(self, x: Tensor) -> Tensor:
        """(N, *P, C, H, W) -> (N, *P, K): any population per sample, in chunks that fit memory. NaN where frozen."""
        self._require(Access.SCORES, "scores")
        return self._ask(x)

    def labels(self, x: Tensor) -> Tensor:
        """(N, *P, C, H, W) -> (N, *P), the predicted classes; -1 where frozen."""
        self._require(Access.LABELS, "labels")
        logits = self._ask(x)
        return torch.where(logits.isnan().any(-1), -1, logits.argmax(-1))

    def as_module(self) -> nn.Module:
        """The model as other people's attacks expect it, (N, C, H, W) -> (N, K), on the same meter."""
        self._require(Access.SCORES, "scores")
        return _Metered(self)

    # what the loop may see

    @property
    def classes(self) -> int:
        """K, from the shape of one output; no query is counted."""
        with torch.no_grad():
            return call(self._model, self._x[:1], self._draws[:1].stream("shape")).shape[1]

    @property
    def fallen(self) -> Tensor:
        """(N,) bool: an in-ball image beyond doubt misclassified was seen (never so for a random model)."""
        return self._mine(self._ledger.fallen)

    @property
    def every_iterate(self) -> bool:
        """Whether any in-ball success counts, or only what is submitted."""
        return self._every_iterate

    @property
    def forwards(self) -> Tensor:
        """(N,) forward passes so far, every draw counted."""
        return self._mine(self._ledger.forwards)

    @property
    def backwards(self) -> Tensor:
        """(N,) backward passes so far."""
        return self._mine(self._ledger.backwards)

    @property
    def done(self) -> Tensor:
        """(N,) bool: fallen, or out of budget. A random model never falls to a search draw."""
        done = self.fallen
        if self._ledger.budget is not None:
            done = done | (self.forwards + self.eot > self._ledger.budget)
        return done

    def submit(self, x_adv: Tensor) -> None:
        """Hand in the end of a restart. It counts even where not every iterate does; one query per sample."""
        every, self._every_iterate = self._every_iterate, True
        self._ask(x_adv)
        self._every_iterate = every

    def best(self, x_adv: Tensor) -> Tensor:
        """What was remembered, where there is something to remember; x_adv elsewhere."""
        known = self._mine(self._ledger.lead) > -torch.inf
        return torch.where(known.view(-1, 1, 1, 1), self._mine(self._ledger.x_adv), x_adv)

    # inside

    def _require(self, access: Access, what: str) -> None:
        if self.access < access:
            raise AccessError(
                f"this attack was granted {self.access.name} and asked for {what}, which needs {access.name}:"
                " its `access` understates what it uses"
            )

    def _mine(self, whole: Tensor) -> Tensor:
        return whole if self._rows is None else whole[self._rows]

    def _add(self, forwards: int, backwards: int) -> None:
        rows = slice(None) if self._rows is None else self._rows
        self._ledger.forwards[rows] += forwards
        self._ledger.backwards[rows] += backwards

    def _live(self, forwards: int) -> Tensor | None:
        """None where every sample can pay for so many forward passes, otherwise which can (N,)."""
        if self._ledger.budget is None:
            return None
        live = self.forwards + forwards <= self._ledger.budget
        return None if live.all() else live

    def _searches(self) -> list[Draws | None]:
        """The draws of one query, addressed by what the sample has spent, so that they are the same in any batch."""
        if not self.stochastic:
            return [None]
        stream = self._draws.stream("search")
        return [stream.numbered(self.forwards - k) for k in range(self.eot)]

    def _ask(self, x: Tensor) -> Tensor:
        """Logits of a population, metered and remembered."""
        population = x.shape[1:-3]
        size = math.prod(population)
        live = self._live(size * self.eot)
        if live is not None:
            frozen = x.new_full((len(x), *population, self.classes), torch.nan)
            if live.any():
                frozen[live] = self[live]._ask(x[live])
            return frozen
        self._add(size * self.eot, 0)
        flat = x.reshape(-1, *x.shape[-3:])
        ids = torch.arange(len(x), device=x.device).repeat_interleave(size)
        place = torch.arange(size, device=x.device).repeat(len(x)) * self.eot
        number = self.forwards[ids] - place
        stream = self._draws.stream("search").reseat(self._draws.ids[ids])
        logits, lead = [], []
        with torch.no_grad():
            for rows in torch.arange(len(flat), device=x.device).split(self._chunk):
                total: Tensor | None = None
                margins = torch.zeros(len(rows), dtype=x.dtype, device=x.device)
                for k in range(self.eot):
                    draws = stream[rows].numbered(number[rows] - k) if self.stochastic else None
                    part = call(self._model, flat[rows], draws)
                    margins += self._lead(part, self._y[ids[rows]]) / self.eot
                    total = part if total is None else total + part
                assert total is not None
                logits.append(total / self.eot)
                lead.append(margins)
        best = torch.cat(lead).view(len(x), size).max(1)
        chosen = x.reshape(len(x), size, *x.shape[-3:])[torch.arange(len(x), device=x.device), best.indices]
        self._remember(chosen, best.values)
        return torch.cat(logits).view(len(x), *population, -1)

    def _lead(self, logits: Tensor, y: Tensor | None = None) -> Tensor:
        return lead(logits, self._y if y is None else y, targeted=self.targeted)

    def _remember(self, x_adv: Tensor, lead: Tensor) -> None:
        """Keep each sample's best in-ball image; a deterministic model's only where it errs."""
        if not self._every_iterate:
            return
        ledger, rows = self._ledger, self._rows
        known = self._mine(ledger.lead)
        better = lead > known
        if not self.stochastic:
            better &= lead >= 0
        if self._minimises:
            distance = self.threat.distance(x_adv, self._x)
            better = (lead >= 0) & (distance < self._mine(ledger.distance))
        if x_adv.device.type == "cpu" and not better.any():
            return
        if not self._minimises:
            better &= self.threat.contains(x_adv, self._x)
        index = better.nonzero()[:, 0]
        at = index if rows is None else rows[index]
        ledger.lead[at] = lead[index]
        ledger.x_adv[at] = x_adv[index].to(ledger.x_adv)
        if self._minimises:
            ledger.distance[at] = distance[index]
        elif not self.stochastic:
            ledger.fallen[at] = lead[index] >= CLEARLY


class _Metered(nn.Module):
    """Oracle.as_module: forward and backward passes are counted and remembered as everyone's are."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self._oracle = oracle

    def forward(self, x: Tensor) -> Tensor:
        oracle = self._oracle
        if len(x) != len(oracle):
            raise AccessError(f"{len(x)} images for an oracle of {len(oracle)}: give one image per sample")
        if not (torch.is_grad_enabled() and x.requires_grad):
            return oracle._ask(x)
        oracle._require(Access.GRADIENTS, "gradients")
        if oracle._live(oracle.eot) is not None:
            raise AccessError(f"the budget of {oracle._ledger.budget} forward passes is spent")
        oracle._add(oracle.eot, 0)
        parts = [call(oracle._model, x, draws) for draws in oracle._searches()]
        logits = torch.stack(parts).mean(0)
        oracle._remember(x.detach(), oracle._lead(logits.detach()))
        logits.register_hook(lambda _: oracle._add(0, oracle.eot))
        return logits


def lead(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
    """(N,): >= 0 where the attacker has won. A tie or a NaN is the model's error, not its rescue."""
    value = losses.margin(logits, y)
    if targeted:
        value = -value
    return torch.where(torch.isnan(logits).any(1), torch.inf, value)


def _derivative(value: Tensor, leaf: Tensor, *, more: bool = False) -> Tensor:
    try:
        return torch.autograd.grad(value, leaf, retain_graph=more)[0]
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "not have been used in the graph" not in str(error):
            raise
        raise ModelError(
            "the model's output does not depend on its input through autograd: a part of it is not differentiable"
            " and states no surrogate, or runs under no_grad; give it a surrogate (Preprocess) or attack it by scores"
        ) from error
