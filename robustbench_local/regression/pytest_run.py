"""What one run of pytest has checked: sent from workers to their controller, judged together, written once."""

# torch is loaded by the first test that checks something, and by no other run of pytest: hence imports in functions

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from robustbench_local.regression.outcome import Outcome
    from robustbench_local.regression.session import Session

# what a worker found: outcomes, records of the lock, a file of adversarial images
Part: TypeAlias = "tuple[list[Outcome], dict[str, Any], Path]"
WORKER = "robustness"  # what workers and their controller tell each other


class Run:
    """One run of pytest, in a worker of pytest-xdist, in its controller, or without it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.selected: set[str] = set()
        self.whole = config.args_source is not pytest.Config.ArgsSource.ARGS  # no file was named, nothing deselected
        self.outcomes: list[Outcome] = []
        self._session: Session | None = None
        self._gathered: list[Part] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._notes: list[str] = []

    @property
    def session(self) -> Session:
        """Made when a test first checks something."""
        if self._session is None:
            from robustbench_local.core.errors import RobustBenchError
            from robustbench_local.regression.multiplicity import expected
            from robustbench_local.regression.session import Session

            option, device = self.config.getoption, self.config.getoption("robustness_device")
            self._session = Session(
                lock=self.lock,
                folder=self._asked("robustness_report"),
                alpha=self._alpha(),
                update=option("robustness_update"),
                keep_images=option("robustness_images") or self.config.getini("robustness_images"),
                re_anchor=option("robustness_anchor"),
                common={"device": device} if device else {},
            )
            with suppress(RobustBenchError):  # a lock that cannot be read is said by the first check
                self._session.expected = expected(self._session.entries.values(), self.selected)
        return self._session

    @property
    def lock(self) -> Path:
        return self.config.rootpath / str(self.config.getini("robustness_lock"))

    def folder(self) -> Path:
        """Where rows and pages go: of the whole run, whichever worker makes them."""
        if (given := self._asked("robustness_report")) is not None:
            return given
        if is_worker(self.config):
            return Path(self.config.workerinput[WORKER])  # type: ignore[attr-defined]
        self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="robustness-")
        return Path(self._temporary.name)

    def _asked(self, option: str) -> Path | None:
        """The place that an option names, from where pytest was called."""
        given = self.config.getoption(option)
        return Path(self.config.invocation_params.dir, given) if given else None

    def gather(self, sent: bytes | None) -> None:
        """What a worker found."""
        if sent is not None:
            self._gathered.append(pickle.loads(sent))

    def finish(self, session: pytest.Session, exitstatus: int) -> None:
        """Send it to the controller, or judge all together, and write what is to be written."""
        if is_worker(self.config):
            self.config.workeroutput[WORKER] = self._sent()  # type: ignore[attr-defined]
            return
        parts = list(self._gathered)
        if self._session is not None:
            parts.append((self._session.outcomes, self._session.records(), self._images()))
        if not parts:
            return
        from robustbench_local.regression.multiplicity import settled
        from robustbench_local.regression.outcome import Verdict

        before = [outcome for outcomes, _, _ in parts for outcome in outcomes]
        self.outcomes = settled(before, self._alpha())
        late = [now for then, now in zip(before, self.outcomes, strict=True) if then.verdict != now.verdict]
        self._notes += [f"counted with all others (Holm), this fails as well: {outcome.name}" for outcome in late]
        written = self._update(parts, exitstatus) if self.config.getoption("robustness_update") else True
        if (late or not written) and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._report()
        if self.whole and exitstatus == pytest.ExitCode.OK and self._session is not None:
            unasked = sorted({*self._session.entries} - {outcome.name for outcome in self.outcomes})
            self._notes += [f"the lock has an entry that no test asked for: {name}" for name in unasked]
        for outcome in self.outcomes:
            if outcome.verdict is Verdict.CANNOT_JUDGE and outcome.updating:
                self._notes.append(f"the lock keeps what it had: {outcome.name}")

    def summarise(self, reporter: pytest.TerminalReporter) -> None:
        """A line for each check."""
        if self.outcomes or self._notes:
            from robustbench_local.core.escaping import shown
            from robustbench_local.regression.words import line

            reporter.section("robustness")
            for text in [*map(line, self.outcomes), *self._notes]:
                reporter.line(shown(text, "terminal"))

    def _alpha(self) -> float:
        text = str(self.config.getini("robustness_alpha"))
        try:
            return float(text)
        except ValueError:
            raise pytest.UsageError(f"robustness_alpha is {text!r}: it must be a number in (0, 0.5)") from None

    def _sent(self) -> bytes | None:
        if self._session is None:
            return None
        return pickle.dumps((self._session.outcomes, self._session.records(), self._images()))

    def _images(self) -> Path:
        """A file of the adversarial images that are to be kept."""
        assert self._session is not None
        file = self.folder() / f"{getattr(self.config, 'workerinput', {}).get('workerid', 'own')}.images.npz"
        if broken := self._session.broken_images():
            from robustbench_local.regression import known_images

            known_images.write(file, broken)
        return file

    def _update(self, parts: Sequence[Part], exitstatus: int) -> bool:
        """One writer, at the end, of all that workers measured -> whether it is written; not of a run cut short."""
        from robustbench_local.core.errors import RobustBenchError
        from robustbench_local.regression import known_images
        from robustbench_local.regression.lock import joined
        from robustbench_local.regression.session import write

        records = joined(own for _, own, _ in parts)
        try:
            if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                raise RobustBenchError("the run was cut short")
            broken = {name: known for _, _, file in parts for name, known in known_images.every(file).items()}
            write(self.lock, records, broken)
        except RobustBenchError as error:
            self._notes.append(f"{self.lock} was not written: {error}")
            return False
        self._notes.append(
            f"{self.lock} written: {len(records)} check{'s' * (len(records) != 1)}; review it as any lock"
        )
        return True

    def _report(self) -> None:
        from robustbench_local.regression.words import line
        from robustbench_local.regression.written import write_outcomes

        files = [self._asked(option) for option in ("robustness_report", "robustness_sarif")]
        self._notes += [f"{path} written" for path in write_outcomes(self.outcomes, *files)]
        if self.config.getoption("xmlpath", None):
            from _pytest.junitxml import xml_key  # private: asked for only where such a file is written

            if (xml := self.config.stash.get(xml_key, None)) is not None:
                for outcome in self.outcomes:  # of the whole suite: the schema has no properties of a test
                    xml.add_global_property(f"robustness: {outcome.name}", line(outcome))


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
