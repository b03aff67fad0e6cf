"""The preflight of the set-up, on machines that lack something."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "preflight"
TOOLS = ("sh", "df", "awk", "dirname")
FITS = "#!/bin/sh\nexit 0\n"
NO_VENV = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n'
TOO_OLD = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 || exit 1\n'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout without .venv, and beside it a bin folder that is all there is on the path."""
    (tmp_path / "checkout" / ".ci").mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "checkout" / ".ci")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def install(machine: Path, name: str, script: str = FITS) -> None:
    (machine / "bin" / name).write_text(script)
    (machine / "bin" / name).chmod(0o755)


def preflight(machine: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(machine / "bin" / "sh"), str(machine / "checkout" / ".ci" / "preflight")]
    environment = {"PATH": str(machine / "bin"), "NEED_MB": "1"} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_machine_that_has_everything_is_told_which_python(machine: Path) -> None:
    for name in ("git", "make", "python3.12"):
        install(machine, name)
    install(machine, "python3", TOO_OLD)
    done = preflight(machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "python3.12\n", "")


def test_a_bare_machine_is_told_everything_at_once(machine: Path) -> None:
    done = preflight(machine)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "apt-get install git make python3 python3-venv" in done.stderr


def test_a_python_without_venv_is_told_the_package(machine: Path) -> None:
    for name, script in (("git", FITS), ("make", FITS), ("python3", NO_VENV)):
        install(machine, name, script)
    done = preflight(machine)
    assert done.returncode == 1
    assert "venv for python3" in done.stderr
    assert "apt-get install python3-venv (" in done.stderr


def test_an_unsuitable_python_is_named_with_its_version(machine: Path) -> None:
    for name, script in (("git", FITS), ("make", FITS), ("python3", TOO_OLD)):
        install(machine, name, script)
    assert "found: Python 3.9.2" in preflight(machine).stderr
    own = preflight(machine, PYTHON=str(machine / "bin" / "python3"))
    assert own.returncode == 1
    assert "PYTHON names another" in own.stderr
    assert "apt-get" not in own.stderr


def test_a_full_disk_is_told_what_is_free(machine: Path) -> None:
    for name in ("git", "make", "python3"):
        install(machine, name)
    done = preflight(machine, NEED_MB="999999999999")
    assert done.returncode == 1
    assert "MB free in" in done.stderr
