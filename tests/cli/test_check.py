"""`robustbench-local check`: exit codes, files, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from robustbench_local.cli.main import main
from robustbench_local.grids import bench
from robustbench_local.regression import measured
from tests.helpers.checked import asking, folder


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder(tmp_path))
    monkeypatch.setattr(measured, "_audit", lambda *_: ())
    monkeypatch.setattr(bench, "audit_and_keep", lambda *_: [])
    return tmp_path


def written(*checks: dict[str, object], **common: object) -> None:
    Path("robustness.yaml").write_text(yaml.safe_dump({"common": common, "checks": list(checks)}))


def test_exit_codes_say_holds_worse_and_cannot_judge(capsys: pytest.CaptureFixture[str]) -> None:
    written(asking())
    assert main(["check"]) == 2 and "no entry" in capsys.readouterr().out
    assert main(["check", "--update"]) == 0
    assert main(["check", "robustness.yaml"]) == 0 and "holds: net" in capsys.readouterr().out
    written(asking("worse"), asking("worse", name="other"))
    assert main(["check", "--json", "o.json", "--sarif", "r.sarif", "--report", "report"]) == 1
    text = capsys.readouterr().out
    assert "significantly less robust" in text and 'no entry "other"' in text
    assert [each["verdict"] for each in json.loads(Path("o.json").read_text())["outcomes"]] == ["worse", "cannot judge"]
    assert len(json.loads(Path("r.sarif").read_text())["runs"][0]["results"]) == 2
    assert "net</bdi>: worse" in Path("report/robustness.html").read_text()


def test_one_check_that_dies_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    written(
        {"model": "nowhere.pt2"},
        {"model": "models.py:net", "at_least": 0.1},
        **{key: value for key, value in asking().items() if key not in ("model", "name")},
    )
    assert main(["check"]) == 2
    text = capsys.readouterr().out
    assert "nowhere.pt2 cannot be judged" in text and "holds: models.py:net" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("checks: []\n", "has no check"),
        ("cheks: [{model: a}]\n", "did you mean"),
        ("checks: 3\n", "checks"),
        ("checks: [{model: a, data: mnist}]\nalpha: 3\n", "alpha"),
    ],
)
def test_a_file_that_means_nothing_says_so(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("robustness.yaml").write_text(text)
    assert main(["check"]) == 2 and words in capsys.readouterr().err
    assert main(["check", "absent.yaml"]) == 2 and "absent.yaml" in capsys.readouterr().err
