"""The wheel: what `pip install .` gives to a machine that has no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("robustbench_local", "attacks", "defenses", "experiments", "tests")
DATA = ("config/**/*.yaml", "models/checkpoints/**/*.safetensors", "data/bundled/*", "report/templates/*")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because a build leaves files beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *command, str(source)], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_grid_checkpoint_and_image(wheel: Path) -> None:
    places = (ROOT / "robustbench_local", *(ROOT / "robustbench_local" / name for name in ("attacks", "defenses")))
    modules = {path for place in places for path in place.rglob("*.py")}
    data = [path for pattern in DATA for path in (ROOT / "robustbench_local").glob(pattern)]
    assert {path.suffix for path in data} >= {".yaml", ".safetensors", ".webp", ".npy"}
    wanted = {path.relative_to(ROOT).as_posix() for path in [*modules, *data, ROOT / "robustbench_local/py.typed"]}

    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert held == wanted, "missing or superfluous: see package-data in pyproject.toml"


def test_the_installed_copy_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    # -I leaves out PYTHONPATH and the current folder, so the copy is put first by hand
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import robustbench_local\nfrom robustbench_local import attacks, defenses\n"
        f"assert all(m.__file__.startswith({str(site)!r}) for m in (robustbench_local, attacks, defenses))\n"
        "from importlib.metadata import distribution\n"
        "points = distribution('robustbench_local').entry_points\n"
        "main = points.select(group='console_scripts')['robustbench-local'].load()\n"
        "assert all(main(['list', what]) == 0 for what in ('attacks', 'grids', 'models'))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in ("pgd  ", "quickstart  ", "zoo:mnist/adversarial_training  "):
        assert f"\n{name}" in "\n" + done.stdout


def test_the_pins_meet_what_the_package_asks_for() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))

    asked = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]

    names = [(need, need.name.lower()) for need in asked]
    loose = [str(need) for need, name in names if name not in pins or pins[name] not in need.specifier]
    assert not loose, f"not pinned, or pinned outside their range, in constraints.txt: {loose}"
