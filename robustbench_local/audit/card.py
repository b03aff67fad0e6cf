"""The report card: what was found, what it means, and what to do."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.core.escaping import shown

WORDS = {
    Status.SOUND: "nothing speaks against the evaluation of this model by gradient attacks",
    Status.SUSPICIOUS: "robust accuracy is overstated somewhere, or cannot be trusted as it is measured",
    Status.BROKEN: "the model or the attack does not do what an evaluation takes it to do",
    Status.UNCHECKED: "nothing could be checked",
}
COLOURS = {Status.SOUND: "green", Status.SUSPICIOUS: "yellow", Status.BROKEN: "bold red", Status.UNCHECKED: "dim"}


@dataclass(frozen=True)
class Card:
    """findings in the order of the checks. clean, robust: accuracies in [0, 1] on the `images` that were attacked,
    robust against all attacks that the audit ran within `threat`; seconds it took.
    """

    findings: tuple[Finding, ...]
    threat: str
    images: int
    clean: float
    robust: float
    seconds: float

    @property
    def status(self) -> Status:
        return max(finding.status for finding in self.findings)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is not sound, the worst first."""
        bad = [finding for finding in self.findings if finding.status > Status.SOUND]
        return tuple(sorted(bad, key=lambda finding: -finding.status))

    def __getitem__(self, name: str) -> Finding:
        """The finding of the check of that name."""
        return next(finding for finding in self.findings if finding.check == name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        findings = [asdict(finding) | {"status": finding.status.name.lower()} for finding in self.findings]
        return asdict(self) | {"status": self.status.name.lower(), "findings": findings}

    def show(self, console: Console | None = None) -> None:
        """Print it: the verdict, what is not sound with its evidence and advice, then all checks in one line each."""
        console = console or Console(width=None if sys.stdout.isatty() else 100)
        console.print(Text.assemble((self.status.name, COLOURS[self.status]), f": {WORDS[self.status]}"))
        console.print(
            f"{self.images} images, {self.threat}: clean {100 * self.clean:.1f} %, robust at most"
            f" {100 * self.robust:.1f} % (the lowest per image of all attacks of this audit), {self.seconds:.0f} s\n",
            highlight=False,
            markup=False,
        )
        for finding in self.findings:
            name = finding.status.name.lower()
            line = shown(f"{name:<10} {finding.check}: {finding.evidence}", "terminal")
            folded = textwrap.fill(line, console.width, subsequent_indent=11 * " ")
            console.print(Text(folded, style=COLOURS[finding.status] if finding.status != Status.SOUND else ""))
            if finding.status > Status.SOUND:
                for text in (f"do: {finding.advice}", f"see: {finding.source}"):
                    text = shown(text, "terminal")
                    console.print(Text(textwrap.indent(textwrap.fill(text, console.width - 11), 11 * " "), style="dim"))
