"""The report card: what was found, what it means, and what to do."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from robustbench_local.audit.finding import Finding, Status, Timed
from robustbench_local.core import tables
from robustbench_local.core.escaping import shown
from robustbench_local.metrics.rates import wilson

WORDS = {
    Status.SOUND: "nothing speaks against this evaluation",
    Status.SUSPICIOUS: "the robust accuracy of this evaluation is overstated, or cannot be trusted as measured",
    Status.BROKEN: "the model or the attack does not do what an evaluation takes it to do",
    Status.UNCHECKED: "nothing could be checked",
}
COLOURS = {Status.SOUND: "green", Status.SUSPICIOUS: "yellow", Status.BROKEN: "bold red", Status.UNCHECKED: "dim"}
SCHEMA = "robustbench-local/audit-card/2"


@dataclass(frozen=True)
class Card:
    """findings in the order of the checks. clean, robust, evaluated: accuracies in [0, 1] on the same `images`, those
    that were attacked: without an attack, against all attacks that the audit ran within `threat`, and against the
    attack whose evaluation is audited, None where it could not run (of a random model by the majority
    of its draws); seconds it took.
    """

    findings: tuple[Timed, ...]
    threat: str
    images: int
    clean: float
    robust: float
    seconds: float
    evaluated: float | None = None

    @property
    def status(self) -> Status:
        return max(finding.status for finding in self.findings)

    @property
    def difference(self) -> float | None:
        """By how much the evaluation lies above the worst case of all attacks of the audit."""
        return None if self.evaluated is None else self.evaluated - self.robust

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the evaluation's robust accuracy (Wilson)."""
        return None if self.evaluated is None else wilson(self.evaluated * self.images, self.images)

    @property
    def faults(self) -> tuple[Timed, ...]:
        """What is not sound, the worst first."""
        bad = [finding for finding in self.findings if finding.status > Status.SOUND]
        return tuple(sorted(bad, key=lambda finding: -finding.status))

    def __getitem__(self, name: str) -> Timed:
        """The finding of the check of that name."""
        return next(finding for finding in self.findings if finding.check == name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        findings = [asdict(finding) | {"status": finding.status.name.lower()} for finding in self.findings]
        figures = {"status": self.status.name.lower(), "difference": self.difference, "interval": self.interval}
        return {"schema": SCHEMA} | asdict(self) | figures | {"findings": findings}

    def show(self, console: Console | None = None, *, verbose: bool = False) -> None:
        """Print it: the verdict, what is not sound with its evidence and advice, then the others in one line each.

        verbose: the time that each check took as well, the longest first.
        """
        console = console or tables.console()
        console.print(Text.assemble((self.status.name, COLOURS[self.status]), f": {WORDS[self.status]}"))
        own = "no number" if self.evaluated is None else f"{100 * self.evaluated:.1f} % robust"
        text = (
            f"{own} under the attack that is audited, at most {100 * self.robust:.1f} %"
            f" under all attacks of this audit ({self.images} images, {self.threat}; clean {100 * self.clean:.1f} %;"
            f" {self.seconds:.0f} s)"
        )
        console.print(textwrap.fill(text, console.width) + "\n", highlight=False, markup=False)
        for finding in self.faults:
            _line(console, finding)
            for text in (f"do: {finding.advice}", f"see: {finding.source}"):
                text = shown(text, "terminal")
                console.print(Text(textwrap.indent(textwrap.fill(text, console.width - 11), 11 * " "), style="dim"))
        for status in (Status.SOUND, Status.UNCHECKED):
            for finding in self.findings:
                if finding.status is status:
                    _line(console, finding)
        if verbose:
            console.print()
            for finding in sorted(self.findings, key=lambda finding: -finding.seconds):
                share = 100 * finding.seconds / max(self.seconds, 1e-9)
                took = f"{share:5.1f} % {finding.seconds:7.1f} s {finding.cpu:7.1f} s of processor  {finding.check}"
                console.print(Text(shown(took, "terminal")))


def _line(console: Console, finding: Finding) -> None:
    """What a check found: a fault in full, folded to the console's width; what is none in one line."""
    line = shown(f"{finding.status.name.lower():<10} {finding.check}: {finding.evidence}", "terminal")
    if finding.status > Status.SOUND:
        line = textwrap.fill(line, console.width, subsequent_indent=11 * " ")
    elif len(line) > console.width:
        line = line[: console.width - 1] + "\u2026"
    console.print(Text(line, style=COLOURS[finding.status] if finding.status != Status.SOUND else ""))
