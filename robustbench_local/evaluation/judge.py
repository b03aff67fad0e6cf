"""Crafted examples in, verdicts out: the only place that says "robust", and it takes nobody's word."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from robustbench_local.config.arguments import Goals
from robustbench_local.config.ranges import Aim, Count, Counting, Precision, Seed
from robustbench_local.config.settings import fit_fields
from robustbench_local.core.access import beyond
from robustbench_local.core.attack import Attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.decision import majority, rounds_of, success_margins
from robustbench_local.core.defense import Rejection, is_stochastic, noticed, rejection
from robustbench_local.core.device import has_float64, out_of_memory, release_memory, trim_memory
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ConfigError, DataError, ModelError, ThreatError
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.progress import Progress
from robustbench_local.core.source import Source
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict as Verdict
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.attacker_data import own_images
from robustbench_local.evaluation.batch import BatchVerdict, CleanAnswers, decide
from robustbench_local.evaluation.batch_size import first_guess, is_large, queried_at_once
from robustbench_local.evaluation.budget import budget_within, queries_per_image
from robustbench_local.evaluation.corrupted_images import CorruptedImages, CorruptionSpec
from robustbench_local.evaluation.kept import Collected, Keep
from robustbench_local.evaluation.part_verdict import PartVerdict, joined, together
from robustbench_local.evaluation.preflight import REPEATS, SAMPLE, Checked, Tally, check_images, check_model
from robustbench_local.evaluation.search import Search, SearchResult
from robustbench_local.evaluation.snapshot import restored

DRAWS = 20  # fresh draws that judge a random model
EOT = 20  # search draws averaged per query of a random model (AutoAttack rand, Croce and Hein 2020)


@dataclass(frozen=True)
class Judge:
    """How a verdict is reached. Judge(...)(model, images, attack, threat) -> Verdict.

    targets: None for untargeted attacks; "random" (any other class), "least_likely", or int64 (N,): the attack must
    then reach that class, and robust means it did not. budget: forward passes per sample, of attack and checks
    together (see `checks` and budget.py). batch_size: None finds itself, see batch_size.py.
    precision: "float32"; "fast" searches in bfloat16 first and attacks what is not broken again in float32; "float64"
    is for checks. count: "all" counts every in-ball iterate, "last" only where each restart ends, as papers did. eot
    and draws: search draws per query and fresh draws per verdict of a random model. attack_under: a corruption by name
    and severity ("fog:3") that images meet first; clean then means under that corruption. allow_chance: whether a model
    at chance on clean images is attacked all the same, and flagged; None: nobody looks.

    adaptive: the attack is on the model as deployed, through its surrogates and its randomness; and, without a budget,
    one that needs gradients is on its undefended part as well, so that knowing more never finds less. False, the naive
    attack: on the undefended part alone, to its end, as one who knows of no defense would.
    """

    seed: Seed = 0
    targets: Aim | Goals | None = None
    budget: Count | None = None
    batch_size: Count | None = None
    precision: Precision = "float32"
    count: Counting = "all"
    eot: Count = EOT
    draws: Count = DRAWS
    adaptive: bool = True
    attack_under: str | None = None
    allow_chance: bool | None = None

    def __post_init__(self) -> None:
        fit_fields(self)
        if self.attack_under is not None:
            CorruptionSpec.parse(self.attack_under)
        if self.budget is not None and self.precision == "fast":
            raise ConfigError("a budget is one search's, and fast may search twice: give it with precision=float32")

    def sees(self, images: Source) -> Source:
        """The images as they arrive."""
        if self.attack_under is None:
            return images
        return CorruptedImages(images, CorruptionSpec.parse(self.attack_under))

    def __call__(
        self,
        model: nn.Module,
        images: Source,
        attack: Attack,
        threat: ThreatModel,
        progress: Progress | None = None,
        *,
        attacker: Source | None = None,
        known: AnswerCache | None = None,
        keep: Keep | None = None,
    ) -> Verdict:
        """attacker: images that an attack may learn from, where it asks for some; none of them among the judged.

        known: what verdicts on this model asked before of clean images; what is new is added. keep: what is handed the
        adversarial images, batch by batch: the verdict then has none, and memory does not grow with their number.
        """
        every = slice(0, len(images))
        part = self.part(model, images, attack, threat, every, progress, attacker=attacker, known=known, keep=keep)
        return joined([part])

    def part(
        self,
        model: nn.Module,
        images: Source,
        attack: Attack,
        threat: ThreatModel,
        rows: slice,
        progress: Progress | None = None,
        *,
        attacker: Source | None = None,
        known: AnswerCache | None = None,
        keep: Keep | None = None,
    ) -> PartVerdict:
        """The verdict on images[rows] alone, start:stop; `joined` makes one of the parts.

        What is checked beforehand, and whether the model is at chance, is asked of all images, so that a part that
        holds one class only is no worse than the rest. keep is handed places in the part. Otherwise as __call__.
        """
        if threat.norm not in attack.norms:
            norms = ", ".join(sorted(attack.norms))
            raise ThreatError(f"{type(attack).__name__} does not know the norm {threat.norm}: it knows {norms}")
        if reason := beyond(attack.access, model):
            raise AccessError(f"{type(attack).__name__} {reason}: choose an attack that needs less")
        if self.targets is not None and isinstance(attack, Corruption):
            raise ConfigError(f"{type(attack).__name__} is a corruption and aims at no class: targets must be null")
        if isinstance(self.targets, Tensor) and self.targets.shape != (len(images),):
            raise ConfigError(f"targets are of shape {tuple(self.targets.shape)} for {len(images)} images: one each")
        if self.precision == "float64" and not has_float64(images.labels.device):
            raise ConfigError(
                f"precision=float64 does not exist on {images.labels.device}: take float32, or device=cpu"
            )
        if (budget := budget_within(self.budget, queries_per_image(model))) != self.budget:
            limited = replace(self, budget=budget)
            return limited.part(
                model, images, attack, threat, rows, progress, attacker=attacker, known=known, keep=keep
            )
        started, declared = time.monotonic(), getattr(model, "clean_accuracy", None)
        as_given, images = images, self.sees(images)
        progress, known = progress or Progress(), known or AnswerCache()
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        with as_deployed(model), full_float32(), noticed() as seen, restored(model) as before:
            first = images[:64].to(dtype)
            check_images(first, images.labels[:64])
            if not 0 <= rows.start < rows.stop <= len(images):
                raise DataError(f"images {rows.start}:{rows.stop} are to be judged: some of 0:{len(images)}, in order")
            draws = Draws(self.seed, images.ids.clone(), dtype=dtype)
            own = own_images(attack, attacker, first, self.seed)
            asked, judged = Tally(), Tally()
            size = self.batch_size or known.once(
                lambda: first_guess(model, first[:1], draws[:1], asked), model, "batch size", tuple(first.shape[1:])
            )
            checked: Checked | None = None
            while checked is None:
                try:
                    checked = self._check(model, images, draws, size, known, asked, judged)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error) or size == 1:
                        raise
                if checked is None:
                    size = _fewer(min(size, SAMPLE, len(images)), first.device, progress)
            flags = list(checked.flags) if self.checks else [*checked.flags, "unchecked"]
            if self.allow_chance is not None:
                flags += self._look(checked, as_given, known, asked)
                before.restore()
            given, model = model, checked.model
            name = type(attack).__name__
            search = _in_batches(self._search(attack, threat, judged), size, first)
            search, spent = search.prepare(model, *own)
            collected, x_adv = Collected(rows.stop - rows.start), first
            keep = collected if keep is None else keep
            batches: list[BatchVerdict] = []
            done, changed = rows.start, False
            while done < rows.stop:
                some = slice(done, min(done + size, rows.stop))
                batch: BatchVerdict | None = None
                try:
                    batch = self._batch(model, images, some, search, draws[some], dtype, known)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error) or size == 1:
                        raise
                if batch is None:  # only here has the error let go of the batch's tensors
                    size = _fewer(min(size, rows.stop - rows.start), first.device, progress)
                    search = _in_batches(search, size, first)
                    continue
                x_adv = batch.tensors.pop("x_adv")
                keep(slice(some.start - rows.start, some.stop - rows.start), x_adv)
                if is_large(first):
                    trim_memory(first.device)
                batches.append(batch)
                done = some.stop
                progress.advance(f"{name.lower()} {threat}", (done - rows.start) / (rows.stop - rows.start))
            if self.checks and checked.changed(asked):
                changed = True
                known.forget(given, model)
            if names := before.foreign(lambda: checked.ask_every_way(x_adv, asked)):
                raise AccessError(
                    f"{name} changed the model ({', '.join(sorted(names)[:5])}), and there is no verdict: an attack"
                    " asks its oracle and touches nothing. The model is again what it was"
                )
        return PartVerdict(
            labels=images.labels[rows],
            ids=images.ids[rows],
            x_adv=collected.whole(like=x_adv),
            found=together(batches),
            flags=tuple(flags),
            changed=changed,
            wrote=bool(seen.wrote),
            forms=frozenset(seen.forms),
            declared=declared,
            detects=rejection(model) is Rejection.DETECTION,
            seconds=time.monotonic() - started,
            prepared_forwards=spent[0],
            prepared_backwards=spent[1],
            checked_forwards=asked.forwards,
            judged_forwards=judged.forwards,
        )

    def _search(self, attack: Attack, threat: ThreatModel, judged: Tally) -> Search:
        budget = None if self.budget is None else self.budget - self.checks
        return Search(
            attack,
            threat,
            self.targets is not None,
            self.precision,
            self.count,
            budget,
            self.eot,
            self.adaptive,
            own=judged,
        )

    @property
    def checks(self) -> int:
        """How often, at most, an image is asked about for the sake of checks alone: an eighth of a budget, or less."""
        return REPEATS if self.budget is None else min(REPEATS, self.budget // 8)

    def _check(
        self, model: nn.Module, images: Source, draws: Draws, size: int, known: AnswerCache, asked: Tally, judged: Tally
    ) -> Checked:
        """Once for all verdicts that share what is known, unless the model changes."""
        about = self.seed, self.attack_under, draws.dtype
        return known.once(
            lambda: check_model(
                model,
                images,
                draws,
                draws.dtype,
                size=size,
                repeats=max(0, self.checks - 1),
                known=known,
                about=about,
                asked=asked,
                judged=judged,
            ),
            model,
            "checked",
            *about,
            size,
            tuple(images.ids.tolist()),
        )

    def _look(self, checked: Checked, images: Source, known: AnswerCache, asked: Tally) -> list[str]:
        """The caution on a model's numbers, if any. ModelError where it is at chance and that is not allowed."""
        about = "look", self.seed, checked.x.dtype, tuple(images.ids.tolist())
        seen = known.once(lambda: checked.look(images, self.budget, asked), checked.model, *about)
        if seen.stop and not self.allow_chance:
            raise ModelError(f"{seen.text}. No attack says anything of such a model; allow_chance=true goes on")
        return [] if seen.flag is None else [seen.flag]

    def _batch(
        self,
        model: nn.Module,
        images: Source,
        rows: slice,
        search: Search,
        draws: Draws,
        dtype: torch.dtype,
        known: AnswerCache,
    ) -> BatchVerdict:
        x, y = images[rows].to(dtype), images.labels[rows]
        check_images(x, y)
        x = x.contiguous(memory_format=torch.channels_last)
        about = self.seed, self.attack_under, dtype, tuple(images.ids[rows].tolist())
        streams = [draws.stream("clean").stream(k) for k in range(rounds_of(model, self.draws))]
        asks = [partial(search.answer, model, x, stream) for stream in streams]
        clean_answers = torch.stack([known.once(ask, model, *about, k) for k, ask in enumerate(asks)], 1)
        clean = CleanAnswers(clean_answers, success_margins(clean_answers, y) < 0)
        classes = clean_answers.shape[2] - (rejection(model) is not Rejection.NONE)  # which no target is to be
        means = clean_answers.mean(1)[:, :classes]
        goal = y if self.targets is None else self._goal(means, y, rows, draws.stream("targets"))
        attacked = majority(clean.right)  # what errs already is not attacked
        if is_stochastic(model) or isinstance(search.attack, Corruption):
            attacked = torch.ones_like(attacked)
        found = SearchResult.nothing(x)
        if attacked.any():
            found.update(attacked, search(model, x[attacked], goal[attacked], draws[attacked]))
        return decide(search, found, model, x, goal, clean, draws, self.draws)

    def _goal(self, logits: Tensor, y: Tensor, rows: slice, draws: Draws) -> Tensor:
        """The class each image is to become."""
        classes = logits.shape[1]
        if self.targets == "least_likely":
            return logits.scatter(1, y[:, None], torch.inf).argmin(1)
        if isinstance(self.targets, Tensor):
            goal = self.targets.to(y)[rows]
            if bool((goal == y).any()) or int(goal.min()) < 0 or int(goal.max()) >= classes:
                raise ConfigError(f"targets must be classes in 0 .. {classes - 1} other than the true one")
            return goal
        return (y + 1 + draws.integers(classes - 1)) % classes


def _fewer(size: int, device: torch.device, progress: Progress) -> int:
    """Half as many images at once, after memory ran out with so many."""
    release_memory(device)
    progress.line(f"out of memory: going on with batches of {max(1, size // 2)}")
    return max(1, size // 2)


def _in_batches(search: Search, size: int, x: Tensor) -> Search:
    """The search of batches of that size, of images like x (n, C, H, W)."""
    return replace(search, width=size, chunk=queried_at_once(size, x))
