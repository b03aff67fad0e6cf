"""Failed checks as SARIF 2.1.0 (OASIS 2020), which code hosts show beside the code: one result per failed check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from robustbench_local import __version__
from robustbench_local.regression.outcome import Outcome, Verdict
from robustbench_local.regression.words import line, story

_RULES = {
    Verdict.WORSE: ("robustness-worse", "The model is less robust than the last one, or than its floor."),
    Verdict.CANNOT_JUDGE: ("robustness-cannot-judge", "The figures cannot be believed, or not be compared."),
}


def sarif(outcomes: Sequence[Outcome]) -> str:
    """The whole file. A location is the model's file, as it was named."""
    failed = [outcome for outcome in outcomes if outcome.verdict in _RULES]
    record = {
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "robustbench_local",
                        "semanticVersion": __version__,
                        "rules": [{"id": name, "shortDescription": {"text": text}} for name, text in _RULES.values()],
                    }
                },
                "results": [_result(outcome) for outcome in failed],
            }
        ],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _result(outcome: Outcome) -> dict[str, Any]:
    rule, _ = _RULES[outcome.verdict]
    return {
        "ruleId": rule,
        "ruleIndex": [name for name, _ in _RULES.values()].index(rule),
        "level": "error",
        "message": {"text": story(outcome)},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(str(outcome.settings["model"]))}}}],
        "partialFingerprints": {"check/v1": outcome.name},
        "properties": {"summary": line(outcome), "verdict": str(outcome.verdict)},
    }


def _uri(name: str) -> str:
    """A model's file as a relative reference: of my_models.py:Net the file; of zoo:NAME a name in a path."""
    file, _, inside = name.partition(":")
    return quote(file if file.endswith(".py") else f"{file}/{inside}" if inside else file)
