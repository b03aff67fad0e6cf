"""What an attacker may touch: access levels that refuse, and queries that are metered and remembered."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from enum import IntEnum

import torch
from torch import Tensor, nn

from robustbench_local.core import losses
from robustbench_local.core.answers import derivative, laid_out, sealed
from robustbench_local.core.decision import joined, success_margin
from robustbench_local.core.defense import Rejection, is_stochastic, rejection
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError
from robustbench_local.core.ledger import Ledger
from robustbench_local.core.losses import Loss
from robustbench_local.core.metered import Metered, SpentError, places
from robustbench_local.core.threat import ThreatModel


class Access(IntEnum):
    """What an attack needs, or an oracle grants; each level includes those before it."""

    NONE = 0
    LABELS = 1
    SCORES = 2
    GRADIENTS = 3


class Oracle:
    """The attacker's only way to the model, for one batch of clean images x (N, C, H, W) and labels y (N,).

    Nothing of it can be set, what it hands out are copies, and no attribute of it is the model. Python has no walls:
    who climbs over is found out afterwards, by `received` beside the meter and by the state of the model (snapshot).

    targeted: y is the class to reach. eot: forward passes averaged per query of a random model. budget: forward
    passes per sample; a sample that cannot pay for a whole query freezes: it is not asked, its gradient is zero.
    every_iterate: remember any in-ball success among all queries; otherwise only those handed to `submit`.
    minimises: success needs no ball, and the nearest success is remembered. width: images that an attack may join in
    one query for a gradient, so that they fit memory.

    Of a detector an untargeted attacker sees K logits, `joined` for the sample's class: every loss then works on
    classifier and detector together, and a label other than y was neither rejected nor right. A targeted one sees all
    K + 1: the class to reach must beat the rejection too.
    """

    threat: ThreatModel
    targeted: bool
    stochastic: bool
    eot: int
    width: int
    _answer: Callable[[Tensor, Draws | None], Tensor]
    _received: Callable[[], int]
    _access: Access
    _x: Tensor
    _y: Tensor
    _draws: Draws
    _chunk: int
    _joins: bool
    _every_iterate: bool
    _ledger: Ledger
    _rows: Tensor | None  # which rows of the ledger this view stands for; None: all
    _ones: Tensor  # as many, where there are rows

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        access: Access,
        draws: Draws,
        *,
        targeted: bool = False,
        eot: int = 1,
        budget: int | None = None,
        every_iterate: bool = True,
        minimises: bool = False,
        chunk: int = 1024,
        width: int = 256,
    ) -> None:
        random = is_stochastic(model)
        answer, received = sealed(model)
        alike = dict(stochastic=random, minimises=minimises, labels_only=access <= Access.LABELS)
        self.__dict__.update(
            _answer=answer,
            _received=received,
            _x=x.clone(),
            _y=y.clone(),
            threat=copy(threat),
            _access=access,
            _draws=draws,
            targeted=targeted,
            _chunk=chunk,
            width=width,
            stochastic=random,
            eot=eot if random else 1,
            _joins=rejection(model) is Rejection.DETECTION and not targeted,
            _every_iterate=every_iterate,
            _ledger=Ledger(x, threat, budget, **alike),
            _rows=None,
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AccessError(f"an attack set {name} of its oracle, which it may only ask (narrowed() lowers its access)")

    def __getitem__(self, rows: Tensor) -> Oracle:
        """The same meter and memory, for these samples (indices, where one may come more than once, or a mask)."""
        everyone = torch.arange(len(self._ledger.broken), device=self._x.device) if self._rows is None else self._rows
        mine = everyone[rows]
        return self._but(
            _rows=mine, _ones=torch.ones_like(mine), _x=self._x[rows], _y=self._y[rows], _draws=self._draws[rows]
        )

    def narrowed(self, access: Access) -> Oracle:
        """The same meter and memory, with this access where that is less."""
        return self._but(_access=min(self._access, access))

    def _but(self, **other: object) -> Oracle:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, **other)
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

                def of_all(out: Tensor, _: Tensor) -> Tensor:  # a loss may hold tensors of all N samples
                    return loss(out.new_zeros(len(x), out.shape[1]).index_put((live,), out), y)[live]

                value[live], grad[live], logits[live] = self[live].grad(x[live], y[live], of_all)
            return value, grad, logits
        self._add(self.eot, self.eot)
        sums: list[Tensor] = []
        with torch.enable_grad():
            for search in self._searches():
                leaf = laid_out(x.detach()).requires_grad_()
                out = self._forward(leaf, search)
                each = loss(out, y)
                slope = derivative(each.sum(), leaf)
                parts = [each.detach(), slope, out.detach(), self._stand(out.detach())]
                sums = parts if not sums else [a + b for a, b in zip(sums, parts, strict=True)]
        value, grad, logits, stand = sums if self.eot == 1 else [part / self.eot for part in sums]
        self._remember(x, stand)
        self._ledger.led(grad, self._rows)
        return value, grad, logits

    def jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of every logit (N, K, C, H, W), 0 where frozen, and the logits (N, K), NaN where frozen.

        One forward and K backward passes per sample and draw.
        """
        self._require(Access.GRADIENTS, "a jacobian")
        classes = self.classes
        live = self._live(self.eot)
        if live is not None:
            slopes, logits = x.new_zeros(len(x), classes, *x.shape[1:]), x.new_full((len(x), classes), torch.nan)
            if live.any():
                slopes[live], logits[live] = self[live].jacobian(x[live])
            return slopes, logits
        self._add(self.eot, self.eot * classes)
        slopes, logits = x.new_zeros(len(x), classes, *x.shape[1:]), x.new_zeros(len(x), classes)
        stand = x.new_zeros(2, len(x))
        with torch.enable_grad():
            for search in self._searches():
                leaf = laid_out(x.detach()).requires_grad_()
                out = self._forward(leaf, search)
                logits += out.detach() / self.eot
                stand += self._stand(out.detach()) / self.eot
                for k in range(classes):
                    slopes[:, k] += derivative(out[:, k].sum(), leaf, more=k + 1 < classes) / self.eot
        self._remember(x, stand)
        self._ledger.led(slopes.amax(1) - slopes.amin(1), self._rows)  # what all logits share moves no margin
        return slopes, logits

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
        return Metered(self._ask_any, self._x)

    def beside(self, model: nn.Module, access: Access, *, minimises: bool = False) -> Oracle:
        """An oracle on a model of the attacker's own, for the same samples: nothing it is asked is on the meter.

        What falls to that model need not fall to the target, so no sample retires before its attack has run its course.
        """
        return Oracle(
            model,
            self._x,
            self._y,
            self.threat,
            access,
            self._draws.stream("beside"),
            targeted=self.targeted,
            eot=1,
            every_iterate=minimises,
            minimises=minimises,
        )

    def note(self, name: str, values: Tensor) -> None:
        """Keep a figure per sample, (N,), for the row; NaN: nothing to say."""
        notes = self._ledger.notes
        if name not in notes:
            notes[name] = torch.full_like(self._ledger.score, torch.nan)
        notes[name][slice(None) if self._rows is None else self._rows] = values.to(notes[name])

    # what the loop may see

    @property
    def notes(self) -> dict[str, Tensor]:
        """{name: (N,)} of what was noted so far."""
        return {name: self._mine(values) for name, values in self._ledger.notes.items()}

    @property
    def access(self) -> Access:
        """What it answers."""
        return self._access

    @property
    def received(self) -> int:
        """How many images the model was given through this oracle, whatever the meter says."""
        return self._received()

    @property
    def classes(self) -> int:
        """K, from the shape of one output; no query is counted."""
        if self._ledger.classes is None:
            with torch.no_grad():
                self._ledger.classes = self._forward(self._x[:1], self._draws[:1].stream("shape"), self._y[:1]).shape[1]
        return self._ledger.classes

    @property
    def broken(self) -> Tensor:
        """(N,) bool: an in-ball image beyond doubt misclassified was seen (never so for a random model)."""
        return self._mine(self._ledger.broken)

    @property
    def remembered(self) -> Tensor:
        """(N,) bool: there is an image to give back, be it only one that ties."""
        return self._mine(self._ledger.score) > -torch.inf

    @property
    def succeeded(self) -> Tensor:
        """(N,) bool: an image beyond doubt misclassified was seen; of a random model, by the mean of search draws."""
        return self._mine(self._ledger.score >= self._ledger.clearly)

    @property
    def clearly(self) -> Tensor:
        """(N,) the margin past the boundary beyond which nobody doubts it, for logits of the size answered so far."""
        return self._mine(self._ledger.clearly)

    @property
    def unit(self) -> Tensor:
        """(N,) what the logits answered so far are measured in: 1 for usual ones, see losses.unit."""
        return losses.unit(self._mine(self._ledger.scale))

    @property
    def every_iterate(self) -> bool:
        """Whether any in-ball success counts, or only what is submitted."""
        return self._every_iterate

    @property
    def unordered(self) -> bool:
        """Whether queries of one sample may be asked in any order: no budget ends them, no draw is numbered by them."""
        return not self.stochastic and self._every_iterate and self._ledger.budget is None

    @property
    def forwards(self) -> Tensor:
        """(N,) forward passes so far, every draw counted."""
        return self._mine(self._ledger.forwards)

    @property
    def backwards(self) -> Tensor:
        """(N,) backward passes so far."""
        return self._mine(self._ledger.backwards)

    @property
    def blind(self) -> Tensor:
        """(N,) bool: gradients were asked for, and each was zero all over, or not finite."""
        return self._mine((self._ledger.backwards > 0) & ~self._ledger.guided)

    @property
    def done(self) -> Tensor:
        """(N,) bool: fallen, or out of budget. A random model never falls to a search draw."""
        done = self.broken
        if self._ledger.budget is not None:
            done = done | (self.forwards + self.eot > self._ledger.budget)
        return done

    def submit(self, x_adv: Tensor) -> None:
        """Hand in the end of a restart. It counts even where not every iterate does; one query per sample."""
        self._but(_every_iterate=True)._ask(x_adv)

    def best(self, x_adv: Tensor) -> Tensor:
        """What was remembered, where there is something to remember; x_adv elsewhere."""
        return torch.where(self.remembered.view(-1, 1, 1, 1), self._mine(self._ledger.x_adv), x_adv)

    # inside

    def _require(self, access: Access, what: str) -> None:
        if self.access < access:
            raise AccessError(
                f"this attack was granted {self.access.name} and asked for {what}, which needs {access.name}:"
                " its `access` understates what it uses"
            )

    def _mine(self, whole: Tensor) -> Tensor:
        return whole.clone() if self._rows is None else whole[self._rows]

    def _add(self, forwards: int, backwards: int) -> None:
        for meter, spent in ((self._ledger.forwards, forwards), (self._ledger.backwards, backwards)):
            if self._rows is None:
                meter += spent
            elif spent:
                meter.index_add_(0, self._rows, self._ones, alpha=spent)

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
        return [stream.with_counter(self.forwards - k) for k in range(self.eot)]

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
        y = self._y if size == 1 else self._y.repeat_interleave(size)
        streams = self._population(size)
        logits, stand = [], []
        with torch.no_grad():
            for first in range(0, max(1, len(flat)), self._chunk):
                rows = slice(first, first + self._chunk)
                images = laid_out(flat[rows])
                answers = [self._forward(images, stream and stream[rows], y[rows]) for stream in streams]
                logits.append(_mean(answers))
                stand.append(_mean([self._stand(answer, y[rows]) for answer in answers]))
        self._remember(flat, torch.cat(stand, 1))
        answer = torch.cat(logits)
        return answer.view(len(x), *population, answer.shape[1])

    def _population(self, size: int) -> list[Draws | None]:
        """As _searches, for so many images of each sample: the draws that single queries in turn would have."""
        if not self.stochastic:
            return [None]
        place = torch.arange(size, device=self._x.device).repeat(len(self)) * self.eot
        number = self.forwards.repeat_interleave(size) - place
        stream = self._draws.stream("search").with_ids(self._draws.ids.repeat_interleave(size))
        return [stream.with_counter(number - k) for k in range(self.eot)]

    def _ask_any(self, x: Tensor, owner: Tensor) -> Tensor:
        """Logits of images x (M, C, H, W) of the samples `owner` (M,), in any number and order; gradients pass."""
        graded = torch.is_grad_enabled() and x.requires_grad
        if graded:
            self._require(Access.GRADIENTS, "gradients")
        count = torch.bincount(owner, minlength=len(self)) * self.eot
        budget = self._ledger.budget
        if budget is not None and bool((self.forwards + count > budget)[owner].any()):
            raise SpentError(f"the budget of {budget} forward passes is spent")
        mine = slice(None) if self._rows is None else self._rows
        self._ledger.forwards[mine] += count
        asked, streams = self[owner], self._streams_of(owner)

        def led(grad: Tensor) -> Tensor:
            self._ledger.led(grad, asked._rows)
            return grad.contiguous()  # other people's attacks view what they are given

        def paid(_: Tensor) -> None:
            self._ledger.backwards[mine] += count

        with torch.set_grad_enabled(graded):
            if graded:
                x = x.view_as(x)  # the caller's own may get gradients from elsewhere
                x.register_hook(led)
            parts = []
            for first in range(0, max(1, len(x)), self._chunk):
                rows = slice(first, first + self._chunk)
                answers = [self._forward(x[rows], stream and stream[rows], asked._y[rows]) for stream in streams]
                parts.append(_mean(answers))
            logits = torch.cat(parts)
        asked._remember(x.detach(), asked._stand(logits.detach()))
        if graded:
            logits.register_hook(paid)
        return logits

    def _streams_of(self, owner: Tensor) -> list[Draws | None]:
        """As _searches: the k-th image of a sample has the numbers that its k-th query would have had."""
        if not self.stochastic:
            return [None]
        number = self.forwards[owner] - places(owner, len(self)) * self.eot
        stream = self._draws.stream("search").with_ids(self._draws.ids[owner])
        return [stream.with_counter(number - k) for k in range(self.eot)]

    def _forward(self, x: Tensor, draws: Draws | None, y: Tensor | None = None) -> Tensor:
        """Logits of images x (M, C, H, W) whose samples are of classes y (M,), by default this view's own."""
        out = self._answer(x, draws).to(x.dtype)  # margins and losses in full, whatever the search's precision
        return joined(out, self._y if y is None else y) if self._joins else out

    def _stand(self, logits: Tensor, y: Tensor | None = None) -> Tensor:
        """(2, M): the attacker's lead, and the size of the logits that it is a difference of."""
        y = self._y if y is None else y
        return torch.stack([success_margin(logits, y, targeted=self.targeted), losses.size(logits, y)])

    def _remember(self, x_adv: Tensor, stand: Tensor) -> None:
        self._ledger.weigh(stand[1], self._rows)
        if self._every_iterate:
            self._ledger.remember(x_adv, stand[0], self._x, self._rows)


def _mean(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)
