"""A run of checks: each is measured, all are judged together, and the lock is written once, at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robustbench_local.core.containment import guarded
from robustbench_local.core.errors import ConfigError, RobustBenchError
from robustbench_local.core.progress import Progress
from robustbench_local.regression import known_images, lock
from robustbench_local.regression.changed import changed
from robustbench_local.regression.judging import judged
from robustbench_local.regression.known_images import KnownImages
from robustbench_local.regression.lock import Entry, Record
from robustbench_local.regression.measured import Audits, Measured, measure
from robustbench_local.regression.multiplicity import settled
from robustbench_local.regression.outcome import Outcome, Verdict
from robustbench_local.regression.settings import Check, check_of
from robustbench_local.storage.files import locked

ALPHA = 0.05
IMAGES = ".images.npz"


@dataclass
class Session:
    """Checks that are judged together.

    lock: the lock file; adversarial images lie beside it. folder: where rows and pages go, None for a temporary one.
    pictures: draw the images that changed sides, for the page. alpha: the risk that a run of unchanged models fails,
    whatever it compares (Holm 1979). update: what is measured is the lock's new state. keep_images: at an update, keep
    the images that broke each model, which later models are then held against. re_anchor: at an update, move the anchor
    too. expected: how many hypotheses the lock knows that this run tests; the more, the smaller must be the p of each.
    common: settings of every check that does not say its own.
    """

    lock: Path = Path(lock.NAME)
    folder: Path | None = None
    pictures: bool = False
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
            known = self._known(check.key, entry)
            outcome = judged(measured, check, entry, known, self.alpha, self.update)
            if self.pictures:
                outcome = replace(outcome, changed=changed(outcome, measured))
            self.outcomes.append(outcome)
        self.outcomes = settled(self.outcomes, self.alpha, self.expected)
        return self.outcomes[-1]

    def attempt(self, test: str = "", **settings: Any) -> Outcome:
        """The same; what `check` raises is a problem of the outcome, which nobody can judge then."""
        try:
            return self.check(test, **settings)
        except RobustBenchError as error:
            name = settings.get("name") or settings.get("model", "?")
            self.outcomes.append(Outcome(str(name), settings, 0, problems=(str(error),)))
            return self.outcomes[-1]

    def records(self) -> dict[str, Record]:
        """What the lock is to hold of each check that was measured and can be judged, where this is an update."""
        found, broken = {}, self.broken_images()
        for name, measured in self._measured.items() if self.update else ():
            if self.verdict_of(name) is Verdict.CANNOT_JUDGE:
                continue
            tests = sorted(self._tests[name] - {""})
            found[name] = lock.entry_of(measured, self.entries.get(name), tests, name in broken, self.re_anchor)
        return found

    def broken_images(self) -> dict[str, KnownImages]:
        """The adversarial images of those, where they are to be kept."""
        kept = self._measured if self.update and self.keep_images else {}
        judged = {name: each.known for name, each in kept.items() if self.verdict_of(name) is not Verdict.CANNOT_JUDGE}
        return {name: known for name, known in judged.items() if known is not None}

    def verdict_of(self, name: str) -> Verdict:
        """Of all that was asked of one check; of one that died on the way, that nobody can judge."""
        own = [each.verdict for each in self.outcomes if each.name == name]
        return max(own, key=[*Verdict].index, default=Verdict.CANNOT_JUDGE)

    def finish(self) -> None:
        """Write the lock, where this is an update."""
        if self.update:
            write(self.lock, self.records(), self.broken_images())

    def _measure(self, check: Check) -> Measured:
        before = self._checks.setdefault(check.key, check)
        if not before.measured_alike(check):
            other = {key for key, value in check.measuring().items() if before.measuring()[key] != value}
            raise ConfigError(
                f'two checks are called "{check.key}" and differ in {", ".join(sorted(other))}: name one, name=...'
            )
        if check.key not in self._measured:
            self._measured[check.key] = measure(check, str(self._place()), self.progress, self._audits, self.pictures)
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
        lock.write(path, {**entries, **records})


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
