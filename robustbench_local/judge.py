"""Crafted examples in, verdicts out: the only place that says "robust", and it takes nobody's word."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from robustbench_local.attack import Attack
from robustbench_local.defense import call, is_stochastic, undefended
from robustbench_local.draws import Draws
from robustbench_local.errors import ConfigError, ThreatError
from robustbench_local.modes import as_deployed, full_float32, has_bfloat16
from robustbench_local.oracle import Access, Oracle, lead
from robustbench_local.preflight import Source, check_images, check_model
from robustbench_local.preparing import own_images
from robustbench_local.progress import Report
from robustbench_local.rounding import to_8bit
from robustbench_local.threat import ThreatModel

DRAWS = 20  # fresh draws that judge a random model
EOT = 20  # search draws averaged per query of a random model (AutoAttack rand, Croce and Hein 2020)
BATCH = {"cuda": 2048, "cpu": 250}  # first guess, halved when memory runs out
PRECISIONS = ("float32", "fast", "float64")
COUNTS = ("all", "last")


@dataclass(frozen=True)
class Verdict:
    """What one attack left standing. All tensors are on the model's device, in the order of the images.

    Robust accuracy is an upper bound: a stronger attack may find more. Of a random model clean and robust say "on
    more than half of the draws", the accuracies are means over draws, and the bits (N, R) are kept. forwards and
    backwards are passes per image; what an attack spent in preparing, on all its own images together, is apart.
    clean_scores and scores (N, K) are log-probabilities on the clean and on the attacked images (on the clean one where
    the attacked one lies outside the ball), of a random model the log of their mean over its draws (NaN where a logit
    was not finite). won, of attacks that minimise only: (N,) the share of draws that x_adv deceives, wherever it lies.
    notes are the attack's figures per image, (N,), NaN where it has none.
    """

    labels: Tensor
    ids: Tensor
    clean: Tensor
    robust: Tensor
    robust_8bit: Tensor
    x_adv: Tensor
    distance: Tensor
    clean_scores: Tensor
    scores: Tensor
    forwards: Tensor
    backwards: Tensor
    flags: tuple[str, ...]
    seconds: float
    clean_bits: Tensor | None = None
    bits: Tensor | None = None
    bits_8bit: Tensor | None = None
    won: Tensor | None = None
    prepared_forwards: int = 0
    prepared_backwards: int = 0
    notes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def clean_accuracy(self) -> float:
        return _mean(self.clean if self.clean_bits is None else self.clean_bits)

    @property
    def robust_accuracy(self) -> float:
        return _mean(self.robust if self.bits is None else self.bits)

    @property
    def robust_accuracy_8bit(self) -> float:
        """After rounding the adversarial images to 8 bits inside the ball, as a file would hold them."""
        return _mean(self.robust_8bit if self.bits_8bit is None else self.bits_8bit)


def _mean(bits: Tensor) -> float:
    return bits.double().mean().item()


@dataclass(frozen=True)
class Judge:
    """How a verdict is reached. Judge(...)(model, images, attack, threat) -> Verdict.

    targets: None for untargeted attacks; "random" (any other class), "least_likely", or int64 (N,): the attack must
    then reach that class, and robust means it did not. budget: forward passes per sample. batch_size: None finds
    itself. precision: "float32"; "fast" searches in bfloat16 first and attacks what stands again in float32;
    "float64" is for checks. count: "all" counts every in-ball iterate, "last" only where each restart ends, as papers
    did. eot and draws: search draws per query and fresh draws per verdict of a random model.

    adaptive: the attack is on the model as deployed, through its surrogates and its randomness; and, without a budget,
    one that needs gradients is on its undefended part as well, so that knowing more never finds less. False, the naive
    attack: on the undefended part alone, to its end, as one who knows of no defense would.
    """

    seed: int = 0
    targets: str | Tensor | None = None
    budget: int | None = None
    batch_size: int | None = None
    precision: str = "float32"
    count: str = "all"
    eot: int = EOT
    draws: int = DRAWS
    adaptive: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f'precision "{self.precision}" is unknown: one of {", ".join(PRECISIONS)}')
        if self.count not in COUNTS:
            raise ConfigError(f'count "{self.count}" is unknown: one of {", ".join(COUNTS)}')
        if self.budget is not None and self.precision == "fast":
            raise ConfigError("a budget is one search's, and fast may search twice: give it with precision=float32")
        for name in ("budget", "batch_size", "eot", "draws"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: it must be at least 1")
        if isinstance(self.targets, str) and self.targets not in ("random", "least_likely"):
            raise ConfigError(f'targets "{self.targets}" is unknown: "random", "least_likely" or int64 (N,)')

    def __call__(
        self, model: nn.Module, images: Source, attack: Attack, threat: ThreatModel, report: Report | None = None, *,
        attacker: Source | None = None,
    ) -> Verdict:  # fmt: skip
        """attacker: images that an attack may learn from, where it asks for some; none of them among the judged."""
        if threat.norm not in attack.norms:
            known = ", ".join(sorted(attack.norms))
            raise ThreatError(f"{type(attack).__name__} does not know the norm {threat.norm}: it knows {known}")
        if isinstance(self.targets, Tensor) and self.targets.shape != (len(images),):
            raise ConfigError(f"targets are of shape {tuple(self.targets.shape)} for {len(images)} images: one each")
        started = time.monotonic()
        report = report or Report()
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        with as_deployed(model), full_float32():
            first = images[:64].to(dtype)
            check_images(first, images.labels[:64])
            draws = Draws(self.seed, images.ids, dtype=dtype)
            own = own_images(attack, attacker, first, self.seed)
            model, flags = check_model(model, images, draws, dtype)
            name = type(attack).__name__
            attack, prepared = self._prepare(model, attack, own, threat)
            size = self.batch_size or BATCH.get(first.device.type, 250)
            parts: list[_Part] = []
            done = 0
            while done < len(images):
                rows = slice(done, min(done + size, len(images)))
                part: _Part | None = None
                try:
                    part = self._batch(model, images, rows, attack, threat, draws[rows], dtype)
                except RuntimeError as error:
                    if not _out_of_memory(error) or size == 1:
                        raise
                if part is None:  # only here has the error let go of the batch's tensors
                    size = max(1, min(size, len(images)) // 2)
                    if first.device.type == "cuda":
                        torch.cuda.empty_cache()
                    report.line(f"out of memory: going on with batches of {size}")
                    continue
                parts.append(part)
                done = rows.stop
                report.advance(f"{name.lower()} {threat}", done / len(images))
        for fault in parts[0].count:
            if total := sum(part.count[fault] for part in parts):
                flags.append(f"{fault}:{total}")
        tensors = {key: torch.cat([part.tensors[key] for part in parts]) for key in parts[0].tensors}
        noted = sorted(set().union(*(part.notes for part in parts)))
        notes = {key: torch.cat([part.note(key) for part in parts]) for key in noted}
        return Verdict(
            labels=images.labels, ids=images.ids, flags=tuple(flags), seconds=time.monotonic() - started,
            prepared_forwards=prepared[0], prepared_backwards=prepared[1], notes=notes, **tensors,
        )  # fmt: skip

    def _prepare(
        self, model: nn.Module, attack: Attack, own: tuple[Tensor, Tensor, Draws], threat: ThreatModel
    ) -> tuple[Attack, tuple[int, int]]:
        """(the attack as it runs on the batches, forward and backward passes it took to become so)."""
        x, y, draws = own
        oracle = self._oracle(model, x, y, attack, threat, draws.stream("prepare"), targeted=False)
        prepared = attack.prepare(oracle, x.clone(), y, threat, draws.stream("learn"))
        if prepared.access > attack.access or prepared.minimises != attack.minimises:
            raise ConfigError(f"{type(attack).__name__} became another kind of attack when it was prepared")
        return prepared, (int(oracle.forwards.sum()), int(oracle.backwards.sum()))

    def _oracle(
        self, model: nn.Module, x: Tensor, y: Tensor, attack: Attack, threat: ThreatModel, draws: Draws, *,
        targeted: bool,
    ) -> Oracle:  # fmt: skip
        return Oracle(
            model, x, y, threat, attack.access, draws, targeted=targeted, eot=self.eot, budget=self.budget,
            every_iterate=self.count == "all", minimises=attack.minimises,
        )  # fmt: skip

    def _batch(
        self, model: nn.Module, images: Source, rows: slice, attack: Attack, threat: ThreatModel, draws: Draws,
        dtype: torch.dtype,
    ) -> _Part:  # fmt: skip
        x, y = images[rows].to(dtype), images.labels[rows]
        check_images(x, y)
        x = x.contiguous(memory_format=torch.channels_last)
        random = is_stochastic(model)
        answers = self._answers(model, x, draws.stream("clean"))
        rights = _leads(answers, y) < 0
        clean = rights.double().mean(1) > 0.5
        goal = y if self.targets is None else self._goal(answers.mean(1), y, rows, draws.stream("targets"))
        worth = torch.ones_like(clean) if random else clean  # what errs already is not attacked
        found = _Found(x.clone(), torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(clean), {})
        if worth.any():
            found.put(worth, self._found(model, x[worth], goal[worth], attack, threat, draws[worth]))
        x_adv = found.x_adv
        nan = x_adv.isnan().flatten(1).any(1)
        inside = threat.contains(x_adv, x)
        x_adv = torch.where(nan.view(-1, 1, 1, 1), x, x_adv)
        reached = self._answers(model, x_adv, draws.stream("verdict"))
        attacked = _allowed(reached, inside, answers)
        rounded = to_8bit(x_adv, x, threat)
        answers_8bit = self._answers(model, rounded, draws.stream("verdict"))
        attacked_8bit = _allowed(answers_8bit, inside & threat.contains(rounded, x), answers)
        stands, stands_8bit = self._stand(attacked, goal), self._stand(attacked_8bit, goal)
        tensors = dict(
            clean=clean, x_adv=x_adv, forwards=found.forwards, backwards=found.backwards,
            distance=threat.distance(x_adv, x), clean_scores=_scores(answers), scores=_scores(attacked),
        )  # fmt: skip
        for name, bits in (("robust", stands), ("robust_8bit", stands_8bit)):
            tensors[name] = bits.double().mean(1) > 0.5 if random else clean & bits[:, 0]
        if attack.minimises:
            tensors["won"] = 1 - self._stand(reached, goal).float().mean(1)
        if random:
            tensors |= dict(clean_bits=rights, bits=stands, bits_8bit=stands_8bit)
        count = dict(
            nan_pixels=int(nan.sum()),
            outside_ball=0 if attack.minimises else int((~inside & ~nan).sum()),  # those look for no ball
            near_tie=0 if random else int((found.fallen & tensors["robust"]).sum()),
        )
        return _Part(tensors, count, found.notes)

    def _answers(self, model: nn.Module, x: Tensor, draws: Draws) -> Tensor:
        """(N, R, K) logits; R is 1 unless the model is random, and then each draw is a fresh one."""
        rounds = self.draws if is_stochastic(model) else 1
        with torch.no_grad():
            return torch.stack([call(model, x, draws.stream(k)) for k in range(rounds)], 1)

    def _stand(self, answers: Tensor, goal: Tensor) -> Tensor:
        """(N, R) bool: by these answers (N, R, K) the attacker has not won."""
        return _leads(answers, goal, targeted=self.targets is not None) < 0

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

    def _found(
        self, model: nn.Module, x: Tensor, goal: Tensor, attack: Attack, threat: ThreatModel, draws: Draws
    ) -> _Found:
        """The adaptive search, and for what it did not fell the naive one; or the naive one alone."""
        bare = undefended(model) if attack.access is Access.GRADIENTS else None
        if bare is None or (self.adaptive and self.budget is not None):
            return self._search(model, x, goal, attack, threat, draws)
        static = replace(self, count="last")  # what deceives the undefended part need not deceive the whole
        if not self.adaptive:
            return static._search(bare, x, goal, attack, threat, draws)
        found = self._search(model, x, goal, attack, threat, draws)
        rows = torch.ones_like(found.fallen) if attack.minimises or is_stochastic(model) else ~found.fallen
        if rows.any():
            naive = static._search(bare, x[rows], goal[rows], attack, threat, draws[rows])
            both = (found[rows], naive)
            leads = [self._worth(model, one, x[rows], goal[rows], attack, threat, draws[rows]) for one in both]
            found.put(rows, _Found.better(*both, leads[1] > leads[0]))
        return found

    def _worth(
        self, model: nn.Module, found: _Found, x: Tensor, goal: Tensor, attack: Attack, threat: ThreatModel,
        draws: Draws,
    ) -> Tensor:  # fmt: skip
        """(N,) the attacker's mean lead over search draws; of attacks that minimise, how near a success is."""
        search = replace(self, draws=self.eot)
        leads = _leads(search._answers(model, found.x_adv, draws.stream("worth")), goal,
                       targeted=self.targets is not None).mean(1)  # fmt: skip
        inside = threat.contains(found.x_adv, x)
        if not attack.minimises:
            return torch.where(inside, leads, -torch.inf)
        return torch.where(leads >= 0, -threat.distance(found.x_adv, x), -torch.inf)

    def _search(
        self, model: nn.Module, x: Tensor, goal: Tensor, attack: Attack, threat: ThreatModel, draws: Draws
    ) -> _Found:
        """Run the attack. "fast" searches in bfloat16 first, where that is native; what it did not fell starts anew.

        A random model is searched in float32 only: nothing of it may retire on one draw.
        """
        if self.precision == "fast" and has_bfloat16(x.device) and not is_stochastic(model):
            with torch.autocast(x.device.type, torch.bfloat16):
                quick = self._attack(model, x, goal, attack, threat, draws)
            answers = self._answers(model, quick.x_adv, draws.stream("verdict"))
            stands = self._stand(answers, goal)[:, 0] | ~threat.contains(quick.x_adv, x)
            if stands.any():
                quick.put(stands, self._attack(model, x[stands], goal[stands], attack, threat, draws[stands]), add=True)
            return quick
        return self._attack(model, x, goal, attack, threat, draws)

    def _attack(
        self, model: nn.Module, x: Tensor, goal: Tensor, attack: Attack, threat: ThreatModel, draws: Draws
    ) -> _Found:
        targeted = self.targets is not None
        oracle = self._oracle(model, x, goal, attack, threat, draws.stream("oracle"), targeted=targeted)
        x_adv = attack(oracle, x.clone(memory_format=torch.preserve_format), goal, threat, draws.stream("attack"))
        if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
            what = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
            name = type(attack).__name__
            raise ConfigError(f"{name} returned {what}: an attack returns images like x, {tuple(x.shape)}")
        return _Found(x_adv.detach().to(x), oracle.forwards, oracle.backwards, oracle.fallen, oracle.notes)


@dataclass
class _Found:
    """What a search came back with, per sample."""

    x_adv: Tensor
    forwards: Tensor
    backwards: Tensor
    fallen: Tensor
    notes: dict[str, Tensor]

    def __getitem__(self, rows: Tensor) -> _Found:
        notes = {name: values[rows] for name, values in self.notes.items()}
        return _Found(self.x_adv[rows], self.forwards[rows], self.backwards[rows], self.fallen[rows], notes)

    @staticmethod
    def better(one: _Found, other: _Found, takes: Tensor) -> _Found:
        """one's finds, or the other's where takes (N,) says so; the spending of both, the notes of the first."""
        x_adv = torch.where(takes.view(-1, 1, 1, 1), other.x_adv, one.x_adv)
        forwards, backwards = one.forwards + other.forwards, one.backwards + other.backwards
        return _Found(x_adv, forwards, backwards, one.fallen, one.notes)

    def put(self, rows: Tensor, other: _Found, add: bool = False) -> None:
        """Put another search's finds into these rows; add: its spending comes on top."""
        self.x_adv[rows], self.fallen[rows] = other.x_adv, other.fallen
        self.forwards[rows] = other.forwards + (self.forwards[rows] if add else 0)
        self.backwards[rows] = other.backwards + (self.backwards[rows] if add else 0)
        for name, values in other.notes.items():
            self.notes.setdefault(name, values.new_full(rows.shape, torch.nan))[rows] = values


@dataclass
class _Part:
    """One batch's share of a verdict."""

    tensors: dict[str, Tensor]
    count: dict[str, int]
    notes: dict[str, Tensor]

    def note(self, name: str) -> Tensor:
        """(n,), NaN where this batch has no such note."""
        return self.notes.get(name, torch.full_like(self.tensors["distance"], torch.nan))


def _leads(answers: Tensor, goal: Tensor, *, targeted: bool = False) -> Tensor:
    """(N, R) leads of the attacker by answers (N, R, K)."""
    rounds = answers.shape[1]
    leads = lead(answers.flatten(0, 1), goal.repeat_interleave(rounds), targeted=targeted)
    return leads.view(-1, rounds)


def _allowed(answers: Tensor, inside: Tensor, clean: Tensor) -> Tensor:
    """(N, R, K): an attacked image outside the ball does not count, and the clean one stands in its place."""
    return torch.where(inside[:, None, None], answers, clean)


def _scores(answers: Tensor) -> Tensor:
    """(N, K) log-probabilities of answers (N, R, K): of a random model the log of their mean over its draws."""
    mean: Tensor = answers.log_softmax(2).logsumexp(1)
    return mean - math.log(answers.shape[1])


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
