"""examples/scale: each file is what its scheduler reads, and its workers together do the grid."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustbench_local.core.progress import Progress
from robustbench_local.grids.grid import Grid
from tests.helpers.outcomes import differences, outcome

FOLDER = Path(__file__).parents[2] / "examples" / "scale"


@dataclass(frozen=True)
class Worker:
    """What a scheduler starts: a shell's code, and the variables that it adds."""

    code: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> str:
        text = self.code
        for name, value in self.environment.items():
            text = text.replace(f"${name}", value)
        (found,) = re.findall(r'worker="?(\d+/\d+)"?', text)
        return str(found)


def of_terminals() -> list[Worker]:
    code = (FOLDER / "terminals.sh").read_text()
    return [Worker(code.replace("$1", f"{place}/2")) for place in range(2)]


def of_slurm() -> list[Worker]:
    code = (FOLDER / "slurm_array.sbatch").read_text()
    first, last = re.findall(r"^#SBATCH --array=(\d+)-(\d+)$", code, re.MULTILINE)[0]
    return [Worker(code, {"SLURM_ARRAY_TASK_ID": str(place)}) for place in range(int(first), int(last) + 1)]


def of_kubernetes() -> list[Worker]:
    job = yaml.safe_load((FOLDER / "kubernetes_job.yaml").read_text())
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # backoffLimitPerIndex asks for it
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    command = " ".join(container["command"])
    return [Worker(command.replace("$(JOB_COMPLETION_INDEX)", str(place))) for place in range(spec["completions"])]


def of_skypilot() -> list[Worker]:
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    (mounted,) = task["file_mounts"]
    code = task["run"].replace(f"cd {mounted}\n", "").replace("$HOME/cache", "$ROBUSTBENCH_LOCAL_CACHE")
    nodes = task["num_nodes"]
    return [
        Worker(code, {"SKYPILOT_NODE_RANK": str(place), "SKYPILOT_NUM_NODES": str(nodes)}) for place in range(nodes)
    ]


def of_cron() -> list[Worker]:
    (line,) = (line for line in (FOLDER / "crontab").read_text().splitlines() if line and line[0] != "#")
    *times, code = line.split(maxsplit=5)
    assert len(times) == 5 and "%" not in code  # which ends a command there
    code = code.replace("$HOME/robustness", ".").replace(">>cron-0.log 2>&1", "")
    return [Worker(code.replace("0/2", f"{place}/2")) for place in range(2)]


WORKERS: dict[str, Callable[[], list[Worker]]] = {
    "terminals": of_terminals,
    "Slurm": of_slurm,
    "Kubernetes": of_kubernetes,
    "SkyPilot": of_skypilot,
    "cron": of_cron,
}


@pytest.mark.parametrize("name", WORKERS)
def test_the_workers_do_every_share_once(name: str) -> None:
    workers = WORKERS[name]()
    assert [worker.share for worker in workers] == [f"{place}/{len(workers)}" for place in range(len(workers))]


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.iterdir()))
def test_every_file_is_named_on_the_page_and_is_what_its_name_says(file: str) -> None:
    assert f"`{file}`" in (FOLDER.parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    if file.endswith((".sh", ".sbatch")):
        subprocess.run(["sh", "-n", str(FOLDER / file)], check=True)
    if file.endswith(".yaml"):
        assert yaml.safe_load((FOLDER / file).read_text())


@pytest.mark.parametrize("file", ["grid.yaml", "slurm.yaml"])
def test_a_grid_is_one(file: str, tmp_path: Path) -> None:
    grid = Grid.open(str(FOLDER / file), {"results": str(tmp_path)}, Progress())
    assert len(grid.cells) == 4


def ran(workers: list[Worker], folder: Path) -> dict[str, Any]:
    """What the workers, one after the other, leave in a copy of the examples."""
    shutil.copytree(FOLDER, folder)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]),
        "ROBUSTBENCH_LOCAL_CACHE": str(folder / "cache"),
    }
    for worker in workers:
        done = subprocess.run(
            ["sh", "-c", worker.code],
            cwd=folder,
            env={**environment, **worker.environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return outcome(folder / "results" / "grid")


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = ran([Worker("robustbench-local run grid=grid.yaml")], tmp_path_factory.mktemp("inline") / "scale")
    assert sum(name.startswith("rows/") for name in found) == 4
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKERS)
def test_together_the_workers_do_the_grid(name: str, inline: dict[str, Any], tmp_path: Path) -> None:
    assert differences(inline, ran(WORKERS[name](), tmp_path / "scale")) == []


@pytest.mark.slow
def test_one_machine_does_the_grid(inline: dict[str, Any], tmp_path: Path) -> None:
    assert differences(inline, ran([Worker("./one_machine.sh workers=2")], tmp_path / "scale")) == []
