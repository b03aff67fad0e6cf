"""The outcome of a check: does the model hold, is it worse, or can nobody judge; with all figures that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from robustbench_local.gallery.views import Sample
from robustbench_local.metrics.rates import Rate


class Verdict(StrEnum):
    """worse: less robust than the last model, or a floor. cannot judge: figures that cannot be believed or compared."""

    HOLDS = "holds"
    WORSE = "worse"
    CANNOT_JUDGE = "cannot judge"


LESS_ROBUST = "less robust"
MASKED = "masked"
LAST, ANCHOR, FIRST = "last", "anchor", "first"


@dataclass(frozen=True)
class Comparison:
    """A hypothesis that is tested on the same n images.

    kind: LESS_ROBUST, the model against the lock; MASKED, whether old adversarial images break more than the attacks
    of now, which then are weaker than they were. of: attacks or corruptions. against: LAST or ANCHOR of
    the lock, or FIRST of two models.
    before, after: accuracies in [0, 1]; lost, gained: ids of images that did worse or better. difference: before -
    after with its 95 % interval. p: one-sided (McNemar's exact test; of shares, sign flips). limit: what p must be
    below to count, by Holm over all that the run tests. spread: the standard deviation of the images' differences where
    these are of shares, None of bits. noticeable: the smallest drop that would have been caught with 80 % power, None
    where none would.
    """

    kind: str
    of: str
    against: str
    n: int
    before: float
    after: float
    lost: tuple[int, ...]
    gained: tuple[int, ...]
    difference: Rate
    p: float
    limit: float
    spread: float | None
    noticeable: float | None

    @property
    def rejected(self) -> bool:
        """Whether it is beyond luck."""
        return self.p < self.limit


@dataclass(frozen=True)
class Claim:
    """What must be shown or must not be refuted: a floor, or that the model is not worse by more than a margin.

    bound: the side of the interval that was held against wanted. held: whether that is so.
    """

    what: str
    wanted: float
    bound: float
    value: float
    held: bool
    text: str


@dataclass(frozen=True)
class Doubt:
    """What an audit found that is not sound: suspicious or broken."""

    check: str
    status: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class Cost:
    """What a model costs: seconds for an image (the median of several repeats, the fastest and the slowest), bytes on
    the disk.
    """

    seconds: float
    fastest: float
    slowest: float
    bytes: int


@dataclass(frozen=True)
class Outcome:
    """What a check came to. JSON by as_dict().

    rates: accuracy with its 95 % interval, clean, under attacks (the worst case per image) and under corruptions (their
    mean). worst_class: its name and rate under the first of these. problems: why nobody can judge. replayed: accuracy
    on the images that broke the last model, None where they were not kept. smallest: distances of the nearest
    adversarial images of those lost. margins: the median change of the margin, in nats. costs: of two models that were
    compared, by name. new: there was no entry in the lock. folder: where rows and pages are, if
    they are kept. changed: pictures of images lost and gained, where a page is asked for.
    """

    name: str  # what the lock calls it
    settings: Mapping[str, Any]
    n: int
    rates: Mapping[str, Rate] = field(default_factory=dict)
    worst_class: tuple[str, Rate] | None = None
    comparisons: tuple[Comparison, ...] = ()
    claims: tuple[Claim, ...] = ()
    problems: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    replayed: Rate | None = None
    lost_classes: Mapping[str, int] = field(default_factory=dict)
    smallest: tuple[float, ...] = ()
    margins: float | None = None
    random: bool = False
    suite: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    new: bool = False
    updating: bool = False
    folder: str = ""
    changed: tuple[Sample, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.problems or self.of_kind(MASKED):
            return Verdict.CANNOT_JUDGE
        worse = not self.updating and self.of_kind(LESS_ROBUST)
        return Verdict.WORSE if worse or any(not claim.held for claim in self.claims) else Verdict.HOLDS

    @property
    def hypotheses(self) -> list[Comparison]:
        """Its comparisons that are tested. With a margin, to be less robust is judged by a claim in their place."""
        claimed = self.settings.get("margin") is not None
        return [each for each in self.comparisons if each.kind == MASKED or not claimed]

    def of_kind(self, kind: str) -> list[Comparison]:
        """Those of its hypotheses that are beyond luck."""
        return [each for each in self.hypotheses if each.kind == kind and each.rejected]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for another program."""
        plain = asdict(replace(self, changed=()))
        del plain["changed"]
        for place, each in enumerate(self.comparisons):
            plain["comparisons"][place]["rejected"] = each.rejected
        return {"verdict": str(self.verdict), **plain}
