"""A run of checks: each is measured, all are judged together, and the lock is written once, at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robustbench_local.core.containment import guarded
from robustbench_local.core.errors import ConfigError, RobustBenchError
from robustbench_local.core.progress import Progress
from robustbench_local.regression import known_images, lock
from robustbench_local.regression.changed import changed
from robustbench_local.regression.costs import cost
from robustbench_local.regression.judging import judged
from robustbench_local.regression.known_images import KnownImages
from robustbench_local.regression.lock import Entry, Record
from robustbench_local.regression.measured import Audits, Measured, measure
from robustbench_local.regression.multiplicity import settled
from robustbench_local.regression.outcome import FIRST, Outcome, Verdict
from robustbench_local.regression.settings import Check, check_of
from robustbench_local.storage.files import locked

ALPHA = 0.05
IMAGES = ".images.npz"


@dataclass
class Session:
    """Checks that are judged together.

    lock: the lock file; adversarial images lie beside it. folder: where rows, tables and pictures of the images that
    changed sides go, None where none are to be kept. alpha: the risk that a run of unchanged models fails, whatever it
    compares (Holm 1979). update: what is measured is the lock's new state. keep_images: at an update, keep the images
    that broke each model, which later models are then held against. re_anchor: at an update, move the anchor too.
    expected: how many hypotheses the lock knows that this run tests; the more, the smaller must be the p of each.
    common: settings of every check that does not say its own. outcomes: as they were told, each when it was asked for.
    """

    lock: Path = Path(lock.NAME)
    folder: Path | None = None
    alpha: float = ALPHA
    update: bool = False
    keep_images: bool = False
    re_anchor: bool = False
    expected: int = 0
    common: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    outcomes: list[Outcome] = field(default_factory=list, init=False)
    _checks: dict[str, Check] = field(default_factory=dict, init=False, repr=False)
    _measured: dict[str, Measured] = field(default_factory=dict, init=False, repr=False)
    _audits: Audits = field(default_factory=dict, init=False, repr=False)
    _tests: dict[str, set[str]] = field(default_factory=dict, init=False, repr=False)
    _compared: set[str] = field(default_factory=set, init=False, repr=False)
    _entries: dict[str, Entry] | None = field(default=None, init=False, repr=False)
    _temporary: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"alpha is {self.alpha}: the risk of calling luck a regression must lie in (0, 0.5)")

    @property
    def entries(self) -> dict[str, Entry]:
        """What the lock holds; read once. StoreError where it is damaged."""
        if self._entries is None:
            self._entries = lock.read(self.lock)
        return self._entries

    def check(self, test: str = "", **settings: Any) -> Outcome:
        """Measure and judge. test: which test asks. settings: see settings.Check.

        Raises ConfigError, ModelError, DataError, ThreatError and StoreError, as run_grid does, where nothing can be
        measured at all.
        """
        with guarded():
            check = check_of({**self.common, **settings})
            entry = self.entries.get(check.key)
            measured = self._measure(check)
            self._tests.setdefault(check.key, set()).add(test)
            self._compared |= {check.key} if check.compares and check.margin is None else set()
            known = self._known(check.key, entry)
            self._add(judged(measured, check, entry, known, self.alpha, self.update), measured)
        return self.outcomes[-1]

    def compare(self, first: str, second: str | None = None, *, variant: str | None = None, **settings: Any) -> Outcome:
        """Two models on the same images, without a lock: is the second less robust than the first?

        second: None for the first one itself, as that variant ("int8", "pruned:0.5"). The images that break the first
        are tried on the second too. settings: as in `check`; the threat and margin=0.02 among them. Raises as `check`.
        """
        second = first if second is None else second
        with guarded():
            one, two = (
                check_of({**self.common, **settings, "model": model, "variant": its, "name": None})
                for model, its in ((first, None), (second, variant))
            )
            if one.key == two.key:
                raise ConfigError(f'"{first}" is compared with itself: name another model, or a variant')
            before, now = self._measure(one), self._measure(two)
            two = replace(two, name=f"{two.key} beside {one.key}")
            outcome = judged(before, one, None, None, self.alpha, updating=True)
            if not outcome.problems:
                entry = lock.parsed(lock.entry_of(before, replays=before.known is not None))
                outcome = judged(now, two, entry, before.known, self.alpha, against=FIRST)
            costs = {_model(one): cost(before.model, before.images), _model(two): cost(now.model, now.images)}
            self._add(replace(outcome, name=two.key, costs=costs), now)
        return self.outcomes[-1]

    def attempt(self, model: str, ask: Callable[[], Outcome]) -> Outcome:
        """What `check` or `compare` gives; what it raises is a problem of an outcome that nobody can judge."""
        try:
            return ask()
        except RobustBenchError as error:
            self.outcomes.append(Outcome(model, {"model": model}, 0, problems=(str(error),)))
            return self.outcomes[-1]

    def records(self) -> dict[str, Record]:
        """What the lock is to hold of each check that was measured and can be judged, where this is an update."""
        found, broken = {}, self.broken_images()
        for name in self._judged():
            found[name] = lock.entry_of(
                self._measured[name],
                self.entries.get(name),
                tests=self._tests[name] - {""},
                compares=name in self._compared,
                replays=name in broken,
                re_anchor=self.re_anchor,
            )
        return found

    def broken_images(self) -> dict[str, KnownImages]:
        """The adversarial images of those, where they are to be kept."""
        kept = {name: self._measured[name].known for name in self._judged()} if self.keep_images else {}
        return {name: known for name, known in kept.items() if known is not None}

    def _judged(self) -> list[str]:
        """The checks that an update writes: none that died on the way, or of which something cannot be judged."""
        verdicts: dict[str, set[Verdict]] = {}
        for outcome in self.final():
            verdicts.setdefault(outcome.name, set()).add(outcome.verdict)
        known = [name for name in self._tests if Verdict.CANNOT_JUDGE not in verdicts.get(name, {Verdict.CANNOT_JUDGE})]
        return known if self.update else []

    def final(self) -> list[Outcome]:
        """All outcomes, judged together: what held when fewer comparisons were known may not hold in the end."""
        return settled(self.outcomes, self.alpha)

    def finish(self) -> None:
        """Write the lock, where this is an update."""
        if self.update:
            write(self.lock, self.records(), self.broken_images())

    def _add(self, outcome: Outcome, measured: Measured) -> None:
        """With its pictures, and with the limits of as many comparisons as are known of by now."""
        if self.folder is not None:
            outcome = replace(outcome, folder=str(self.folder), changed=changed(outcome, measured))
        self.outcomes.append(settled([*self.outcomes, outcome], self.alpha, self.expected)[-1])

    def _measure(self, check: Check) -> Measured:
        before = self._checks.setdefault(check.key, check)
        if not before.measured_alike(check):
            other = {key for key, value in check.measuring().items() if before.measuring()[key] != value}
            raise ConfigError(
                f'two checks are called "{check.key}" and differ in {", ".join(sorted(other))}: name one, name=...'
            )
        if check.key not in self._measured:
            report = self.folder is not None
            self._measured[check.key] = measure(check, str(self._place()), self.progress, self._audits, report)
        return self._measured[check.key]

    def _place(self) -> Path:
        if self.folder is not None:
            return self.folder
        self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="robustness-")
        return Path(self._temporary.name)

    def _known(self, name: str, entry: Entry | None) -> KnownImages | None:
        """The images that broke the last model, if they are those of the lock."""
        if entry is None or not entry.record["replays"]:
            return None
        file = images_beside(self.lock)
        found = known_images.read(file, name)
        if found is None or found.digest != entry.last.images:
            if self.update:
                return None
            raise ConfigError(
                f"{file} {'has none' if found is None else 'has others'} of the images that broke the last model"
                f' of "{name}": take both files from version control, or write both anew with {lock.UPDATE}'
            )
        return found


def images_beside(path: Path) -> Path:
    """The file of adversarial images beside a lock."""
    return path.with_name(path.name.removesuffix(".json") + IMAGES)


def write(path: Path, records: Mapping[str, Record], broken: Mapping[str, KnownImages]) -> None:
    """The lock with these entries in place of what it held of the same checks; the others stay.

    Images are written first: where that is all that happened, the lock still holds what it held, and says that they
    are others.
    """
    images = images_beside(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        entries = {name: entry.record for name, entry in lock.read(path).items()}
        kept = {name: known for name, known in known_images.every(images).items() if name not in records}
        if kept or broken:
            known_images.write(images, {**kept, **broken})
        else:
            images.unlink(missing_ok=True)
        lock.write(path, {**entries, **records})


def _model(check: Check) -> str:
    return check.model if check.variant is None else f"{check.model} {check.variant}"


@guarded()
def compare(
    first: str,
    second: str | None = None,
    *,
    data: str,
    threat: str | None = None,
    variant: str | None = None,
    folder: str | Path | None = None,
    alpha: float = ALPHA,
    progress: Progress | None = None,
    **settings: Any,
) -> Outcome:
    """Two models, or a model and a variant of it, on the same images -> the outcome of the second; see Session.compare.

    words.table(outcome) is a table of both. Raises as run_grid does where nothing can be measured at all.
    """
    session = Session(folder=None if folder is None else Path(folder), alpha=alpha, progress=progress or Progress())
    return session.compare(first, second, variant=variant, data=data, threat=threat, **settings)


@guarded()
def check(
    model: str,
    data: str,
    threat: str | None = None,
    *,
    lock_file: str | Path = lock.NAME,
    folder: str | Path | None = None,
    alpha: float = ALPHA,
    update: bool = False,
    keep_images: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Outcome:
    """One check, as pytest's fixture makes it -> its outcome; nothing is raised where the model is worse.

    settings: at_least, margin, suite, n and so on, see settings.Check; the others, see Session. Raises as run_grid does
    where nothing can be measured at all.
    """
    session = Session(
        lock=Path(lock_file),
        folder=None if folder is None else Path(folder),
        alpha=alpha,
        update=update,
        keep_images=keep_images,
        progress=progress or Progress(),
    )
    outcome = session.check(model=model, data=data, threat=threat, **settings)
    session.finish()
    return outcome
