"""What an attacker may ask: access levels that refuse, and queries that are metered and remembered."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access
from robustbench_local.core.answers import derivative, laid_out, sealed
from robustbench_local.core.decision import detects
from robustbench_local.core.defense import is_stochastic
from robustbench_local.core.draws import Draws
from robustbench_local.core.ledger import Ledger
from robustbench_local.core.losses import Loss
from robustbench_local.core.metered import Metered
from robustbench_local.core.queries import Queries
from robustbench_local.core.threat import ThreatModel


class Oracle(Queries):
    """The attacker's only way to the model, for one batch of clean images x (N, C, H, W) and labels y (N,).

    Nothing of it can be set, what it hands out are copies, and no attribute of it is the model. Python has no walls:
    who climbs over is found out afterwards, by `received` beside the meter and by the state of the model (snapshot).

    targeted: y is the class to reach. eot: forward passes averaged per query of a random model. budget: forward
    passes per sample; a sample that cannot pay for a whole query freezes: it is not asked, its gradient is zero.
    every_iterate: remember any in-ball success among all queries; otherwise only those handed to `submit`.
    minimises: success needs no ball, and the nearest success is remembered. width: images whose gradients are computed
    at once, so that they fit memory: more are asked about in turn; chunk: the same of scores and labels.

    Of a detector an untargeted attacker sees K logits, `joined` for the sample's class: every loss then works on
    classifier and detector together, and a label other than y was neither rejected nor right. A targeted one sees all
    K + 1: the class to reach must beat the rejection too.
    """

    threat: ThreatModel
    _received: Callable[[], int]

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
            _joins=detects(model, targeted=targeted),
            _every_iterate=every_iterate,
            _ledger=Ledger(x, threat, budget, **alike),
            _rows=None,
        )

    def grad(self, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """loss (N,), its gradient like x, logits (N, K), at x (N, C, H, W); of a random model the means over eot draws.

        One forward and one backward pass per sample and draw.
        """
        self._require(Access.GRADIENTS, "gradients")
        parts = self._parts(len(x))
        if parts is not None:
            value, grad, logits = x.new_zeros(len(x)), torch.zeros_like(x), x.new_zeros(len(x), self.classes)
            for rows in parts:

                def of_all(out: Tensor, _: Tensor, rows: Tensor = rows) -> Tensor:
                    # a loss may hold tensors of all N samples
                    return loss(out.new_zeros(len(x), out.shape[1]).index_put((rows,), out), y)[rows]

                value[rows], grad[rows], logits[rows] = self[rows].grad(x[rows], y[rows], of_all)
            return value, grad, logits
        self._add(self.eot, self.eot)
        sums: list[Tensor] = []
        with torch.enable_grad():
            for search in self._query_draws():
                leaf = laid_out(x.detach()).requires_grad_()
                out = self._forward(leaf, search)
                each = loss(out, y)
                slope = derivative(each.sum(), leaf)
                parts = [each.detach(), slope, out.detach(), self._margin_and_size(out.detach())]
                sums = parts if not sums else [a + b for a, b in zip(sums, parts, strict=True)]
        value, grad, logits, about = sums if self.eot == 1 else [part / self.eot for part in sums]
        self._remember(x, about)
        self._ledger.record_gradient(grad, self._rows)
        return value, grad, logits

    def jacobian(self, x: Tensor, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The gradient of every logit (N, K, C, H, W), 0 where frozen, and the logits (N, K), NaN where frozen.

        among (N, M): the classes whose gradients are wanted, (N, M, C, H, W), of many. One forward and K (M) backward
        passes per sample and draw.
        """
        self._require(Access.GRADIENTS, "a jacobian")
        if among is None:
            among = torch.arange(self.classes, device=x.device).expand(len(x), -1)
        wanted = among.shape[1]
        slopes, logits = x.new_zeros(len(x), wanted, *x.shape[1:]), x.new_full((len(x), self.classes), torch.nan)
        parts = self._parts(len(x))
        if parts is not None:
            for rows in parts:
                slopes[rows], logits[rows] = self[rows].jacobian(x[rows], among[rows])
            return slopes, logits
        self._add(self.eot, self.eot * wanted)
        logits.zero_()
        about = x.new_zeros(2, len(x))
        with torch.enable_grad():
            for search in self._query_draws():
                leaf = laid_out(x.detach()).requires_grad_()
                out = self._forward(leaf, search)
                logits += out.detach() / self.eot
                about += self._margin_and_size(out.detach()) / self.eot
                each = out.gather(1, among)
                for k in range(wanted):
                    slopes[:, k] += derivative(each[:, k].sum(), leaf, more=k + 1 < wanted) / self.eot
        self._remember(x, about)
        spread = slopes.amax(1) - slopes.amin(1)  # what all logits share moves no margin
        self._ledger.record_gradient(spread, self._rows)
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

        What deceives that model need not deceive the target, so no sample retires before its attack has run its course.
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

    @property
    def received(self) -> int:
        """How many images the model was given through this oracle, whatever the meter says."""
        return self._received()

    def submit(self, x_adv: Tensor) -> None:
        """Hand in the end of a restart. It counts even where not every iterate does; one query per sample."""
        self._but(_every_iterate=True)._ask(x_adv)
