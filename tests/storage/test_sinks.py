"""Rows sent to MLflow, Weights & Biases and TensorBoard: the libraries themselves are asked for what arrived."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from robustbench_local.core.errors import ConfigError
from robustbench_local.storage.row import Row
from robustbench_local.storage.sinks import sinks as all_sinks
from robustbench_local.storage.sinks.sink import Entry, Sink
from robustbench_local.storage.sinks.sinks import Sinks
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row, certify

ROOT = Path(__file__).parents[2]


@pytest.fixture
def row() -> Row:
    made, _ = a_row([1, 0, 0, 1], attack_settings={"steps": 40, "inner": {"loss": "ce"}})
    return Row({**made, "grid": "mine"})


def send(name: str, folder: Path, row: Row) -> list[str]:
    """Complaints."""
    said: list[str] = []
    Sinks([name], folder, said.append).send(row)
    return said


def test_an_entry_holds_what_was_measured_and_every_figure(row: Row) -> None:
    entry = Entry.of(row)
    assert entry.key == row.key and row.attack in entry.name
    assert entry.about["attack_settings.steps"] == 40 and entry.about["attack_settings.inner.loss"] == "ce"
    assert entry.figures["robust_accuracy"] == row.results["robust_accuracy"] == 0.5
    assert entry.figures["robust_interval_low"] < 0.5 < entry.figures["robust_interval_high"]
    assert all(isinstance(value, float) for value in entry.figures.values())


def test_tensorboard_reads_the_figures_back(tmp_path: Path, row: Row) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert send("tensorboard", tmp_path / "mine", row) == []
    found = accumulator.EventAccumulator(str(tmp_path / "mine/tensorboard" / row.key)).Reload()
    read = {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}
    assert read == pytest.approx(dict(Entry.of(row).figures))
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_mlflow_reads_the_figures_back(tmp_path: Path, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    assert send("mlflow", tmp_path / "mine", row) == []
    client = mlflow.MlflowClient()
    (experiment,) = (each for each in client.search_experiments() if each.name == str(row["grid"]))
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["robustbench_local.key"] == row.key
    assert run.data.metrics == pytest.approx(dict(Entry.of(row).figures))
    assert run.data.params["attack"] == row.attack


def test_wandb_keeps_a_run_offline(tmp_path: Path, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    assert send("wandb", tmp_path / "mine", row) == []
    wandb.teardown()  # which a process does at its end; what is not written yet is then
    (run,) = (tmp_path / "wandb").glob(f"offline-run-*-{row.key}/*.wandb")
    assert b"robust_accuracy" in run.read_bytes()


class Kept(Sink):
    """A sink that keeps what it is sent, or refuses it."""

    taken: ClassVar[list[str]] = []
    refuses = False

    def send(self, entry: Entry) -> None:
        if Kept.refuses:
            raise ConnectionError("no route to host")
        Kept.taken.append(entry.key)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> type[Kept]:
    monkeypatch.setattr(Kept, "taken", [])
    monkeypatch.setattr(Kept, "refuses", False)
    monkeypatch.setattr(all_sinks, "_loaded", lambda name, folder: Kept(folder))
    return Kept


def test_a_row_is_sent_once_whoever_sees_it(tmp_path: Path, row: Row, kept: type[Kept]) -> None:
    for _ in range(2):
        assert send("mlflow", tmp_path / "mine", row) == []
    assert kept.taken == [row.key]


def test_what_was_refused_is_said_and_sent_the_next_time(tmp_path: Path, row: Row, kept: type[Kept]) -> None:
    kept.refuses = True
    (said,) = send("mlflow", tmp_path / "mine", row)
    assert row.key in said and "no route to host" in said
    kept.refuses = False
    assert send("mlflow", tmp_path / "mine", row) == [] and kept.taken == [row.key]


def test_a_sink_that_is_not_installed_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "robustbench_local.storage.sinks.wandb", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'robustbench_local\[wandb\]'"):
        Sinks(["wandb"], tmp_path, print)


def test_no_sink_is_loaded_where_none_is_named() -> None:
    script = (
        "import json, sys\n"
        "from robustbench_local.grids import run\n"
        "print(json.dumps([name for name in ('mlflow', 'wandb', 'tensorboard') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_certificate_is_sent_under_its_method(tmp_path: Path) -> None:
    entry = Entry.of(certify(Store(tmp_path), [1, 1, 0, 1]))
    assert entry.name == "preact_small none certify crown linf:8/255" and entry.about["certificate"] == "crown"
    assert entry.figures["certified_accuracy"] == 0.75 and "certified_interval_low" in entry.figures
