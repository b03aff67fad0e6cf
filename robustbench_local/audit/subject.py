"""A model under audit: its images, its answers, and the attacks that were run on it, each once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.audit.effort import Effort
from robustbench_local.audit.process import Untouched
from robustbench_local.audit.recording import Recording, recorded
from robustbench_local.audit.rounding import moved, rounding
from robustbench_local.audit.statistics import paired
from robustbench_local.config.plugins import find_attack
from robustbench_local.config.ranges import Counting
from robustbench_local.core import losses
from robustbench_local.core.access import Access, beyond, granted
from robustbench_local.core.attack import Attack
from robustbench_local.core.decision import correct, joined
from robustbench_local.core.defense import Preprocess, Rejection, call, is_stochastic, rejection
from robustbench_local.core.device import kept_random_state, out_of_memory
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError, RobustBenchError
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import Tensors, named_by_content
from robustbench_local.evaluation.judge import Judge
from robustbench_local.evaluation.preflight import check_model

REPEATS = 3  # of a question, to see whether its answers vary
CLEARLY = 0.35  # of 20 fresh draws: two standard deviations of the difference of two shares


class Subject:
    """What checks may ask. Everything runs in evaluation mode, see audit_model(); images are (N, C, H, W) in [0, 1].

    attack: whose evaluation is audited beside the model; None: the audit's own. surrogates: names of models from which
    adversarial images are transferred. classes: how many the data have, where a last logit may mean "reject".
    train: images the model was trained on, with labels.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        *,
        attack: Attack | None = None,
        seed: int = 0,
        effort: Effort | None = None,
        surrogates: Sequence[str] = (),
        classes: int | None = None,
        train: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.model, self.x, self.y, self.threat = model, x, y, threat
        self.attack, self.seed, self.effort = attack, seed, effort or Effort()
        self.surrogates, self.train = tuple(surrogates), train
        images = named_by_content(x, y)
        self.draws = Draws(seed, images.ids)
        self._spare = _copies(model, 3)  # before anything was asked
        self.untouched = Untouched(model) if self.effort.process else None
        checked = check_model(model, images, self.draws, torch.float32)
        self.deployed, self.flags = checked.model, checked.flags
        self.random = is_stochastic(self.deployed)
        self.first = self.ask(self.few)
        self.first_perturbed = self._perturbed_answers()
        self.rounding = rounding(model, self.first)
        self.outputs = self.first.shape[1]
        self.rejects = rejection(model)
        self.classes = classes or self.outputs - (self.rejects is not Rejection.NONE)
        self._runs: dict[tuple[Any, ...], Verdict | None] = {}

    # images

    @cached_property
    def few(self) -> Tensor:
        """The first images, for questions about the set-up."""
        return self.x[: self.effort.few]

    @cached_property
    def few_labels(self) -> Tensor:
        return self.y[: self.effort.few]

    @cached_property
    def perturbed(self) -> Tensor:
        """The first images, each at a random point of its ball."""
        return self.threat.start(self.few, self.draws[: len(self.few)].stream("audit:perturbed"))

    @cached_property
    def variants(self) -> dict[str, Tensor]:
        """Images that are none of the given ones, (n, C, H, W) each: of the first, after PGD too where there is one."""
        near = self.few + (self.perturbed - self.few) / 16
        found = self.pgd() if granted(self.model) >= Access.GRADIENTS else None
        attacked = {} if found is None else {"attacked": found.x_adv[: len(self.few)]}
        return attacked | {"perturbed": self.perturbed, "slightly perturbed": near}

    @property
    def attacked(self) -> int:
        """How many images attacks run on."""
        return min(len(self.x), self.effort.random) if self.random else len(self.x)

    def first_rows(self, most: int) -> Tensor:
        """Of the attacked images, so many at most."""
        return torch.arange(min(most, self.attacked), device=self.x.device)

    # answers

    def ask(self, x: Tensor, model: nn.Module | None = None, rows: Tensor | slice | None = None) -> Tensor:
        """Logits (n, K); of a random model with the same draws each time. rows: which images', by default 0 .. n-1."""
        draws = self.draws[slice(0, len(x)) if rows is None else rows].stream("audit:ask")
        with torch.no_grad(), kept_random_state(x.device):
            return call(self.deployed if model is None else model, x, draws).detach()

    def varying(self, x: Tensor) -> Tensor:
        """(n,) bool: whose answers to the same question, with the same draws, follow torch's global generator or other
        sources.
        """
        draws = self.draws[: len(x)].stream("audit:ask")
        with torch.no_grad(), kept_random_state(x.device):
            first, *others = (call(self.deployed, x, draws[:]).detach() for _ in range(REPEATS))
        return torch.stack([self.differ(first, other) for other in others]).any(0)

    def differ(self, a: Tensor, b: Tensor) -> Tensor:
        """(n,) bool: whose answers (n, K) differ by more than the model's rounding."""
        return moved(a, b, self.rounding)

    def right(self, x: Tensor) -> Tensor:
        """(N,) bool: which of all images, as given in x (N, ...), are classified as labelled.

        ModelError where the model dies of them: then there is no accuracy to doubt.
        """
        parts = []
        for rows in torch.arange(len(x), device=x.device).split(250):
            try:
                parts.append(self.ask(x[rows], rows=rows))
            except RobustBenchError:
                raise
            except Exception as error:  # a stranger's model may die of anything
                if out_of_memory(error):
                    raise
                where = f"images {int(rows[0])} to {int(rows[-1])}, all of them clean"
                raise ModelError(f"the model died of {where}: {type(error).__name__}: {error}") from error
        return correct(torch.cat(parts), self.y)

    @cached_property
    def clean(self) -> Tensor:
        """(N,) bool."""
        return self.right(self.x)

    def _perturbed_answers(self) -> Tensor:
        """NaN where the model dies of perturbed images, which it does not of clean ones."""
        try:
            return self.ask(self.perturbed)
        except Exception:  # a stranger's model may die of anything
            return torch.full_like(self.first, torch.nan)

    def seen(self, logits: Tensor, y: Tensor) -> Tensor:
        """Logits as an attacker sees them: of a detector joined with the rejection."""
        return joined(logits, y) if self.rejects is Rejection.DETECTION else logits

    def margin(self, x: Tensor) -> Tensor:
        """(n,): at 0 and above an attacker of the first n images succeeds, with x in their place."""
        y = self.y[: len(x)]
        return losses.margin(self.seen(self.ask(x), y), y)

    def fresh(self) -> nn.Module | None:
        """A copy of the model that nobody has asked yet, or None where it cannot be copied, or no more are left."""
        return self._spare.pop() if self._spare else None

    def slope(self, x: Tensor, y: Tensor, loss: losses.Loss, *, joint: bool = True) -> tuple[Tensor, Tensor] | None:
        """(loss (n,), gradient like x) of one pass at x, the first n images; None: no gradient reaches the input.

        joint: as an attacker sees the logits, see `seen`.
        """
        with torch.enable_grad(), kept_random_state(x.device):
            leaf = x.detach().clone().requires_grad_()
            logits = call(self.deployed, leaf, self.draws[: len(x)].stream("audit:ask"))
            value = loss(self.seen(logits, y) if joint else logits, y)
            if not value.requires_grad:
                return None
            grad = torch.autograd.grad(value.sum(), leaf, allow_unused=True)[0]
        return None if grad is None else (value.detach(), grad)

    @property
    def surrogate_steps(self) -> list[Preprocess]:
        """The steps that declare a surrogate, whose gradients stand for their own."""
        parts = self.model.modules()
        return [part for part in parts if isinstance(part, Preprocess) and part.surrogate is not None]

    @property
    def declares_surrogate(self) -> bool:
        """Whether some part says that its gradients are a surrogate's."""
        parts = self.model.modules()
        return bool(self.surrogate_steps) or any(getattr(part, "surrogate_gradients", False) for part in parts)

    # attacks

    def run(
        self,
        attack: str | Attack,
        threat: ThreatModel | None = None,
        *,
        model: nn.Module | None = None,
        tag: str = "",
        eot: int | None = None,
        count: Counting = "all",
        rows: Tensor | None = None,
        x: Tensor | None = None,
        **settings: Any,
    ) -> Verdict | None:
        """The verdict on the attacked images (or on these rows of them), asked for once; None where no attack is
        possible.

        None: the attack knows no such norm, or needs a gradient that is not there. model, x, with a tag: another model
        than the audited one, other images in place of the rows'.
        """
        threat = threat or self.threat
        attack = find_attack(attack, settings) if isinstance(attack, str) else attack
        rows = self.first_rows(self.attacked) if rows is None else rows
        eot = eot or self.effort.eot
        key = repr(attack), str(threat), tag, eot, count, tuple(rows.tolist())
        if key not in self._runs:
            images = Tensors(self.x[rows] if x is None else x, self.y[rows], self.draws.ids[rows])
            judge = Judge(seed=self.seed, eot=eot, count=count)
            known = threat.norm in attack.norms and beyond(attack.access, self.model) is None and len(rows)
            try:
                verdict = judge(model or self.model, images, attack, threat) if known else None
            except ModelError:  # no gradient reaches the input: what that means is a check's to say
                verdict = None
            self._runs[key] = verdict
            if verdict is not None and not tag and str(threat) == str(self.threat):
                self.worst[rows] &= verdict.robust
        return self._runs[key]

    def pgd(self, threat: ThreatModel | None = None, **settings: Any) -> Verdict | None:
        return self.run("pgd", threat, **({"steps": self.effort.steps} | settings))

    @cached_property
    def gradients(self) -> Tensor | None:
        """(n,) bool: what is robust against the audit's own gradient attacks, by cross-entropy and by the margin from
        random starts, and what these leave by the margin from the clean image.
        """
        runs = self._by_gradients
        if not runs:
            return None
        robust = torch.stack([run.robust for run in runs]).all(0)
        rows = robust.nonzero()[:, 0]
        from_clean = self.pgd(loss="margin", random_start=False, rows=rows)
        if from_clean is not None:
            robust[rows[self.fell(from_clean, rows)]] = False
        return robust

    @property
    def _by_gradients(self) -> list[Verdict]:
        return [run for run in (self.pgd(), self.pgd(loss="margin")) if run is not None]

    @property
    def unharmed(self) -> bool:
        """Whether the user's own attack leaves no more than PGD by the margin: then it needs no cross-entropy."""
        own = self.run(self.attack) if self.attack is not None else None
        by_margin = self.pgd(loss="margin")
        return own is not None and by_margin is not None and not paired(own.robust, by_margin.robust).above

    @cached_property
    def left(self) -> Tensor:
        """Rows of the attacked images that are robust against the audit's own gradient attacks; without gradients,
        against the evaluation.
        """
        robust = self.gradients
        if robust is None:
            verdict = self.run(self.evaluation)
            robust = self.clean[: self.attacked] if verdict is None else verdict.robust
        return robust.nonzero()[:, 0]

    @cached_property
    def worst(self) -> Tensor:
        """(n,) bool: which of the attacked images all attacks so far have left, within the audited threat."""
        return self.clean[: self.attacked].clone()

    def fell(self, verdict: Verdict, rows: Tensor) -> Tensor:
        """(n,) bool: which of these rows, robust until then, the attack of that verdict broke. Of a random model on
        many more draws than gradients did: an image near the boundary falls by luck.
        """
        shares = [run.bits.cpu().double().mean(1) for run in self._by_gradients if run.bits is not None]
        if verdict.bits is None or not shares:
            return ~verdict.robust
        before = torch.stack(shares).amin(0)[rows.cpu()]
        return (before - verdict.bits.cpu().double().mean(1) > CLEARLY).to(rows.device)

    def record(self, attack: Attack) -> Recording | None:
        """The attack on the attacked images as it sees it itself; None where it cannot run, or knows no such norm."""
        if self.threat.norm not in attack.norms or beyond(attack.access, self.model):
            return None
        n = self.attacked
        x, y, draws = self.x[:n], self.y[:n], self.draws[:n]
        return recorded(attack, self.deployed, x, y, self.threat, draws, eot=self.effort.eot)

    @cached_property
    def recording(self) -> Recording | None:
        """Of the audited attack."""
        return self.record(self.evaluation)

    @property
    def evaluation(self) -> Attack:
        """The attack whose evaluation is audited: the user's, or the audit's plain PGD."""
        return self.attack or find_attack(*self._usual())

    def _usual(self) -> tuple[str, dict[str, int]]:
        """A plain attack of the access that the model grants."""
        match granted(self.model):
            case Access.GRADIENTS:
                return "pgd", {"steps": self.effort.steps}
            case Access.SCORES:
                return "square", {"steps": self.effort.queries}
            case _:
                return "hopskipjump", {}

    @property
    def unbounded(self) -> ThreatModel:
        """A ball of the same norm that holds every image."""
        size = self.x[0].numel()
        eps = {Norm.LINF: 1.0, Norm.L2: size**0.5, Norm.L1: float(size), Norm.L0: float(self.x[0, 0].numel())}
        return ThreatModel(self.threat.norm, eps.get(self.threat.norm, 0.0), allow_large=True)

    def scaled(self, factor: float) -> ThreatModel:
        """The threat at factor times its eps, not beyond unbounded."""
        eps = min(factor * self.threat.eps, self.unbounded.eps)
        eps = float(max(1, int(eps))) if self.threat.norm is Norm.L0 and factor else eps
        return ThreatModel(self.threat.norm, eps, allow_large=True)


def _copies(model: nn.Module, count: int) -> list[nn.Module]:
    try:
        return [copy.deepcopy(model) for _ in range(count)]
    except Exception:  # a stranger's module may refuse in any way
        return []
