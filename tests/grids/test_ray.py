"""A grid by Ray: the same rows, and what becomes of workers and machines that are lost."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_local.core.errors import ConfigError
from robustbench_local.grids.executors.ray_cluster import check_room, room_for
from robustbench_local.grids.run import run
from tests.helpers.one_grid import GRID, opened, outcome, written

SMALL, LARGE = {"CPU": 2.0, "memory": 4.0 * 2**30}, {"CPU": 1.0, "GPU": 1.0}
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def test_what_no_machine_has_is_said_before_anything_waits() -> None:
    check_room({"CPU": 1.0, "GPU": 1.0}, [SMALL, LARGE], "here")
    # together they would have it, but a cell runs on one machine
    with pytest.raises(ConfigError, match=r"CPU 2, GPU 1, .* here .* CPU 2, GPU 0; CPU 1, GPU 1.*cluster\.num_gpus"):
        check_room({"CPU": 2.0, "GPU": 1.0}, [SMALL, LARGE], "here")
    with pytest.raises(ConfigError, match=r"memory 8\.0 GiB, .* memory 4\.0 GiB"):
        check_room({"memory": 8.0 * 2**30}, [SMALL], "here")
    with pytest.raises(ConfigError, match="they have none"):
        check_room({"CPU": 1.0}, [], "here")


def test_how_many_cells_a_machine_takes() -> None:
    assert [room_for({"CPU": amount}, SMALL) for amount in (1.0, 0.5, 2.0, 3.0)] == [2, 4, 1, 0]
    assert room_for({"CPU": 0.5, "GPU": 0.5}, LARGE) == 2


@pytest.mark.parametrize("name", ["ray", "submitit"])
def test_nothing_loads_a_scheduler_that_was_not_asked_for(name: str) -> None:
    code = f"""
import sys
sys.modules[{name!r}] = None  # whoever imports it fails
import robustbench_local.cli.run
from robustbench_local import run_grid
from robustbench_local.grids.executors import choice, inline, local, errands, served
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), timeout=120)


@pytest.mark.parametrize(("executor", "name"), [("ray", "ray"), ("slurm", "submitit")])
def test_where_it_is_missing_the_error_says_how_to_get_it(
    executor: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'robustbench_local\[{executor}\]'"):
        run(opened(tmp_path, "out", executor=executor, workers=1))


@pytest.mark.parametrize(
    ("cluster", "says"), [({"num_gpu": 1}, 'did you mean "num_gpus"'), ({"num_cpus": "many"}, "must be a number")]
)
def test_a_mistake_in_what_ray_is_told_is_explained(cluster: dict[str, object], says: str, tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match=says):
        run(opened(tmp_path, "out", executor="ray", cluster=cluster))


def test_a_cluster_goes_with_an_executor_that_has_one(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match="executor=ray or executor=slurm"):
        run(opened(tmp_path, "out", cluster={"num_cpus": 1}))


@pytest.mark.slow
@needs_ray
def test_a_cluster_of_this_machine_gives_the_same_rows(tmp_path: Path) -> None:
    written(tmp_path)
    run(opened(tmp_path, "inline"))
    run(opened(tmp_path, "ray", executor="ray", workers=2))
    assert len(outcome(tmp_path / "ray")) == 4
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "inline")


@pytest.mark.slow
@needs_ray
def test_more_than_there_is_is_refused_at_once(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match=r"GPU 64, and no machine of the Ray cluster of this machine"):
        run(opened(tmp_path, "ray", executor="ray", workers=1, cluster={"num_gpus": 64}))


@pytest.mark.slow
@needs_ray
def test_a_machine_that_is_lost_costs_what_was_on_it(tmp_path: Path) -> None:
    """Two nodes, the second of which sees neither the folder nor the cache; the first is lost in the middle."""
    written(tmp_path, GRID.replace("n: 24", "n: 400").replace("steps: 3", "steps: 40"))
    run(opened(tmp_path, "inline"))
    said = two_nodes(tmp_path)
    assert "a worker died of the loss of its worker of Ray" in said
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "inline")


def two_nodes(folder: Path) -> str:
    """What is said by the script that runs the grid, in a process of its own."""
    script = Path(__file__).parents[1] / "helpers" / "ray_nodes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=400, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
