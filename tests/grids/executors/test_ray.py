"""A grid by Ray: the same rows, and what becomes of workers and machines that are lost."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from robustbench_local.core.errors import ConfigError, RobustBenchError
from robustbench_local.grids.executors.ray_cluster import check_room, room_for
from robustbench_local.grids.run import run
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from robustbench_local.storage.store import Store
from tests.helpers.one_grid import GRID, opened, written
from tests.helpers.outcomes import differences, outcome
from tests.helpers.ray_nodes import RAY, blinded
from tests.helpers.rogues import install_rogues

ROOT = Path(__file__).parents[3]
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


def test_nothing_loads_a_scheduler_that_was_not_asked_for() -> None:
    code = """
import sys
sys.modules.update(ray=None, submitit=None)  # whoever imports one fails
import robustbench_local.cli.run
from robustbench_local import run_grid
from robustbench_local.grids.executors import choice, errands, inline, local, ray_cluster, served
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


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_is_not_there_is_said_at_once(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        there = address.format(taken.getsockname()[1])
        monkeypatch.setenv("RAY_ADDRESS", there)
        with pytest.raises(RobustBenchError, match=rf"no Ray cluster answers at {there}.*RAY_ADDRESS"):
            run(opened(tmp_path, "out", executor="ray"))


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
    assert differences(outcome(tmp_path / "inline" / "one"), outcome(tmp_path / "ray" / "one")) == []


@pytest.mark.slow
@needs_ray
def test_more_than_there_is_is_refused_at_once(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match=r"GPU 64, and no machine of the Ray cluster of this machine"):
        run(opened(tmp_path, "ray", executor="ray", workers=1, cluster={"num_gpus": 64}))


@pytest.mark.slow
@needs_ray
def test_what_is_lost_is_done_again_and_a_plug_in_that_crashes_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that see neither the results nor the cache; one of them is lost while both are at work."""
    install_rogues(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    steps = ", ".join(f"{{pgd: {{steps: {steps}}}}}" for steps in (60, 50, 40, 30))
    text = GRID.replace("n: 24", "n: 300").replace("none, {bit_depth: {bits: 3}}", "none")
    written(tmp_path, text.replace("fgsm, {pgd: {steps: 3}}", steps))
    run(opened(tmp_path, "inline"))
    written(tmp_path, text.replace("fgsm, {pgd: {steps: 3}}", f"segfaults, {steps}"))
    with nodes(tmp_path) as (cluster, address):
        said = run_until_a_cell_is_done(tmp_path, address, lambda: print(file=cluster.stdin, flush=True))
    assert "a worker died of the loss of its worker of Ray" in said
    # three times, and once more where the loss of the node was known to be none of a cell's doing
    assert said.count("a worker died of SIGSEGV") in (3, 4)
    (crashed,) = (row for row in Store(tmp_path / "ray" / "one").rows() if not row.ok)
    assert crashed.definition["attack"] == "segfaults" and "SIGSEGV" in crashed.why
    expected, found = (outcome(tmp_path / name / "one") for name in ("inline", "ray"))
    rows = {name: row for name, row in expected.items() if name.startswith("rows/")}
    assert differences(rows, {name: row for name, row in found.items() if name in rows}) == []


def run_until_a_cell_is_done(folder: Path, address: str, then: Callable[[], None]) -> str:
    """What the command says, in a process of its own, since Ray reads its environment once. then: done once."""
    path = os.pathsep.join([str(ROOT), str(folder), os.environ.get("PYTHONPATH", "")])
    command = subprocess.Popen(
        [sys.executable, "-m", "experiments.run", "grid=one.yaml", "results=ray", "executor=ray"],
        cwd=folder,
        env={**os.environ, **RAY, "RAY_ADDRESS": address, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stderr is not None
    said = ""
    for line in command.stderr:
        if "robust" in line and "robust" not in said:
            then()
        said += line
    assert command.wait() == 1, said  # a cell failed
    return said


@contextmanager
def nodes(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(the process that holds them, the address of the cluster)."""
    (folder / "ray").mkdir()
    script = ROOT / "tests" / "helpers" / "ray_nodes.py"
    cluster = subprocess.Popen(
        [*blinded(folder / "ray"), sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, CACHE_VARIABLE: str(folder / "another-cache")},
    )
    assert cluster.stdin is not None and cluster.stdout is not None
    try:
        yield cluster, next(line.strip() for line in cluster.stdout if line.startswith("127.0.0.1:"))
    finally:
        cluster.stdin.close()
        assert cluster.wait(timeout=60) == 0
