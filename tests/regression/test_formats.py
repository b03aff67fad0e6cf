"""SARIF against its published schema, JUnit against the rules of pytest's."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from robustbench_local.metrics.rates import Rate
from robustbench_local.regression.outcome import LESS_ROBUST, MASKED, Comparison, Outcome
from robustbench_local.regression.sarif import sarif

SCHEMA = Path(__file__).parents[2] / ".venv" / "sarif-2.1.0.json"
# junit-10.xsd, which pytest's own tests hold its files against: what may be within each element
WITHIN = {
    "testsuites": {"testsuite"},
    "testsuite": {"testsuite", "properties", "testcase", "system-out", "system-err"},
    "properties": {"property"},
    "testcase": {"skipped", "errors", "error", "failure", "system-out", "system-err"},
}


def outcome(kind: str | None, name: str = "net", model: str = "models/current.pt2") -> Outcome:
    difference = Rate(0.1, 0.05, 0.15)
    compared = Comparison(
        kind or LESS_ROBUST, "attacks", "last", 100, 0.6, 0.5, (1,), (), difference, 0.001, 0.05, None, 0.1
    )
    if kind is None:
        compared = replace(compared, p=0.9)
    return Outcome(name, {"model": model}, 100, {"attacks": Rate(0.5, 0.4, 0.6)}, comparisons=(compared,))


def test_sarif_has_a_result_for_each_failed_check_and_no_other() -> None:
    made = json.loads(sarif([outcome(None), outcome(LESS_ROBUST, "b"), outcome(MASKED, "c", "my models/n.py:Net")]))
    (run,) = made["runs"]
    assert [each["ruleId"] for each in run["results"]] == ["robustness-worse", "robustness-cannot-judge"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[each["ruleIndex"]] == each["ruleId"] for each in run["results"])
    places = [each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in run["results"]]
    assert places == ["models/current.pt2", "my%20models/n.py"]


def test_sarif_is_as_its_schema_says() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    if not SCHEMA.is_file():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("SARIF's schema is not there: make browser")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    check = jsonschema.Draft7Validator(schema)
    for outcomes in ([], [outcome(None)], [outcome(LESS_ROBUST), outcome(MASKED, "zoo", "zoo:mnist/none")]):
        made = json.loads(sarif(outcomes))
        assert [error.message for error in check.iter_errors(made)] == []
    made["runs"][0]["results"][0]["level"] = "bad"  # the twin
    assert list(check.iter_errors(made))


def faults(element: ElementTree.Element) -> list[str]:
    """What is within an element that may not be there."""
    allowed = WITHIN.get(element.tag, set())
    found = [f"{child.tag} within {element.tag}" for child in element if child.tag not in allowed]
    return found + [fault for child in element for fault in faults(child)]


def test_junit_properties_are_where_the_schema_allows_them(pytester: Any) -> None:
    pytester.makepyfile(
        "def test_model(robustness):\n    robustness.check('no.pt2', data='mnist', threat='linf:0.1')\n"
    )
    pytester.runpytest_inprocess("--junitxml=junit.xml", "-p", "no:hypothesispytest").assert_outcomes(failed=1)
    root = ElementTree.fromstring((pytester.path / "junit.xml").read_text())
    (known,) = root.iter("property")
    assert known.get("name") == "robustness: no.pt2" and "cannot judge" in str(known.get("value"))
    assert faults(root) == []
    next(root.iter("testcase")).append(ElementTree.Element("properties"))  # the twin: what record_property makes
    assert faults(root) == ["properties within testcase"]


pytest_plugins = "pytester"
