"""The wheel, the sdist and the editable install: what pip gives to a machine, with and without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("robustbench_local", "attacks", "defenses", "experiments", "tests")
ALONE = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")  # on a machine that may be offline
DATA = ("config/**/*.yaml", "models/checkpoints/**/*.safetensors", "data/bundled/*", "report/templates/*")


def copied(folder: Path) -> Path:
    """The sources in a folder of their own, because a build leaves files beside them."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(*command: str | Path, cwd: Path | None = None, timeout: float = 300) -> str:
    """Its standard output; a test failure with what it said where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wheel_of(source: Path, folder: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", *ALONE, "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


def sdist_of(source: Path, folder: Path) -> Path:
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run(sys.executable, "-c", code, cwd=source)
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return wheel_of(copied(folder / "source"), folder)


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
    listed = run(sys.executable, "-I", "-c", code, cwd=tmp_path)
    for name in ("pgd  ", "quickstart  ", "zoo:mnist/adversarial_training  "):
        assert f"\n{name}" in "\n" + listed


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python of a fresh environment that has our dependencies, and us only where a test installs us."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    folders = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(folders) + "\n", encoding="utf-8")  # their own .pth do not count
    return tmp_path / "env/bin/python"


def install(python: Path, *what: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--python", python, "install", "--ignore-installed", *ALONE, *what)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_a_fresh_environment_lists_plugins_and_runs_a_grid(tmp_path: Path, python: Path, kind: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    source = copied(tmp_path / "source")
    home = python.parents[1]
    match kind:
        case "wheel":
            install(python, wheel_of(source, tmp_path))
        case "sdist":  # its wheel is built from what the archive holds, without the sources
            with tarfile.open(sdist_of(source, tmp_path)) as archive:
                archive.extractall(tmp_path / "unpacked", filter="data")
            shutil.rmtree(source)
            (unpacked,) = (tmp_path / "unpacked").iterdir()
            install(python, wheel_of(unpacked, tmp_path))
        case "editable":
            install(python, "--editable", source)
            home = source
    where = "import robustbench_local as r, robustbench_local.attacks as a, robustbench_local.defenses as d"
    places = run(python, "-c", f"{where}; print(r.__file__, a.__file__, d.__file__, sep='\\n')", cwd=work).splitlines()
    assert len(places) == 3 and all(Path(place).is_relative_to(home) for place in places), places

    command = python.parent / "robustbench-local"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for group in ("attacks", "defenses"):
        listed = {line.split()[0] for line in run(command, "list", group, cwd=work).splitlines() if line[:1].strip()}
        assert set(project["entry-points"][f"robustbench_local.{group}"]) <= {name.partition(":")[0] for name in listed}
    grid = ["grid=quickstart", "data=mnist", "models=zoo:mnist/none", "defenses=[none,bit_depth]", "n=8"]
    run(command, "run", *grid, "threats=linf:0.2", "attacks=[fgsm,pgd]", cwd=work)
    made = [json.loads(path.read_text(encoding="utf-8")) for path in work.glob("results/quickstart/rows/*.json")]
    assert [row["status"] for row in made] == 4 * ["ok"]


SCRIPT = """
import robustbench_local as rbl

reveal_type(rbl.attacks.PGD(steps=40))
reveal_type(rbl.evaluate("zoo:mnist/none", "mnist", attack=rbl.attacks.PGD(steps=40)))
reveal_type(rbl.evaluate("zoo:mnist/none", "mnist", attacks=["pgd"], threats=["linf:0.1", ("l2", 1.0)]))
rbl.attacks.PGD(stpes=40)
"""
STATIC = 'package-dir = { "" = "." }'


def type_checked(python: Path, folder: Path) -> str:
    """What mypy says of a script of a user's, in a folder of its own."""
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "script.py"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run(mypy, cwd=folder, env=environment, capture_output=True, text=True, timeout=600).stdout


@pytest.mark.slow
def test_a_type_checker_finds_an_editable_install(tmp_path: Path, python: Path) -> None:
    source = copied(tmp_path / "source")
    install(python, "--editable", source)
    said = type_checked(python, tmp_path / "work")
    for found in ("attacks.pgd.PGD", "core.verdict.Verdict", "evaluation.verdicts.Verdicts"):
        assert f'Revealed type is "robustbench_local.{found}"' in said, said
    assert 'did you mean "steps"?' in said and "Found 1 error" in said


@pytest.mark.slow
def test_a_type_checker_finds_no_editable_install_that_is_found_by_code(tmp_path: Path, python: Path) -> None:
    source = copied(tmp_path / "source")
    settings = (source / "pyproject.toml").read_text(encoding="utf-8")
    assert STATIC in settings
    (source / "pyproject.toml").write_text(settings.replace(STATIC, ""), encoding="utf-8")
    install(python, "--editable", source)
    assert "robustbench_local" in type_checked(python, tmp_path / "work").partition("error: ")[2].splitlines()[0]


@pytest.mark.slow
def test_a_fresh_environment_has_nothing_of_ours(python: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="No module named 'robustbench_local'"):
        run(python, "-c", "import torch, robustbench_local", cwd=tmp_path)


def test_the_pins_meet_what_the_package_asks_for() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))

    asked = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]

    names = [(need, need.name.lower()) for need in asked]
    loose = [str(need) for need, name in names if name not in pins or pins[name] not in need.specifier]
    assert not loose, f"not pinned, or pinned outside their range, in constraints.txt: {loose}"
