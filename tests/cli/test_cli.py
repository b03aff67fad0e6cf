"""The command line: exit codes, messages without tracebacks, listings."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from robustbench_local.cli.main import main
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from tests.helpers.rows import a_row, stored

MODELS = """
from torch import nn

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

class Broken(nn.Module):
    def forward(self, x):
        raise OSError("out of order")
"""
ROOT = Path(__file__).parents[2]
RUN = [
    "run",
    "grid=quickstart",
    "data=mnist",
    "n=8",
    "models=[clitoys:linear]",
    "defenses=none",
    "threats=[linf:0.1]",
    "attacks=[fgsm]",
    "device=cpu",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "clitoys.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "clitoys", raising=False)
    return tmp_path


def test_run_prints_the_table_and_where_it_is(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(RUN) == 0
    shown = capsys.readouterr()
    assert "fgsm" in shown.out and "clean" in shown.out
    assert str(Path("results/quickstart/index.html")) in shown.out
    assert (folder / "results/quickstart/index.html").exists()
    assert "robust" in shown.err  # a line per cell, where there is no terminal


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "grid=quickstrat"], 'did you mean "quickstart"?'),
        (["run"], "which grid?"),
        ([*RUN, "attcks=[fgsm]"], 'did you mean "attacks"?'),
        ([*RUN, "attacks=fgsm,pgd"], "write a list"),
        ([*RUN, "attacks=[{pgd:{stpes:3}}]"], 'did you mean "steps"?'),
        ([*RUN, "device=gpu"], "unknown device"),
        (["train", "zoo=mnist/nnoe"], 'did you mean "mnist/none"?'),
        (["data", "fetch", "mnits"], 'did you mean "mnist"?'),
    ],
)
def test_a_mistake_ends_with_2_and_a_suggestion(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert words in shown.err and "Traceback" not in shown.err
    assert not (folder / "results").exists()


def test_a_failed_cell_ends_with_1_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "models=[clitoys:Broken,clitoys:linear]"]) == 1
    shown = capsys.readouterr()
    assert "1 of 2 cells failed" in shown.err and "clitoys:Broken" in shown.err and "out of order" in shown.err


def test_a_failed_cell_is_named_where_others_were_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "models=[clitoys:linear,clitoys:Broken]", "adaptive=[false,true]"]) == 1
    said, _, failed = capsys.readouterr().err.partition("1 of 2 cells failed")  # neither has a naive cell
    assert "clitoys:linear" in said and "clitoys:Broken" in failed and "clitoys:linear" not in failed


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustbench_local.core.progress import Terminal

    def interrupt(self: Terminal, what: str, share: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "advance", interrupt)
    assert main(RUN) == 130
    assert "robustbench-local run grid=quickstart" in capsys.readouterr().err


def test_a_dry_run_lists_cells_and_cost(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main([*RUN, "dry_run=true"]) == 0
    shown = capsys.readouterr().out
    assert ": about " in shown and "to do" in shown and "1 of 1 cells to do" in shown
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("attacks", ["pgd", "access: gradients", "norms: l1, l2, linf", "steps=40", "1706.06083"]),
        ("defenses", ["adversarial_training", "method=pgd", "2001.03994"]),
        ("grids", ["quickstart", "cifar10_pgd", "mnist_pgd", "reference_trades"]),
        ("models", ["preact_small", "zoo:cifar10/none", "unverified"]),
        ("data", ["mnist", "cifar10", "bundled", "CC BY-SA", CACHE_VARIABLE]),
    ],
)
def test_listings(what: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in words:
        assert word in shown


def test_the_checkouts_entry_points_are_the_same_main() -> None:
    for module, words in (("experiments.run", "which grid?"), ("experiments.train", "which zoo?")):
        done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and words in done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = "import sys; from robustbench_local.cli.main import main; sys.exit(main(['list', 'attacks']))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, cwd=ROOT) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


HERE = [sys.executable, "-c", "import sys; from robustbench_local.cli.main import main; sys.exit(main(sys.argv[1:]))"]


def redirected(arguments: list[str], where: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as a shell runs it, with its streams turned as `where` says."""
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = f"{shlex.join([*HERE, *arguments])} {where}"
    return subprocess.run(["sh", "-c", command], cwd=folder, env=known, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(folder: Path) -> None:
    done = redirected(["list", "grids"], "> /dev/full", folder)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: [Errno 28] No space left on device; what is finished is kept"]


@pytest.mark.parametrize("where", ["2> /dev/full", "2>&- >&-"])
def test_without_standard_error_all_goes_on(where: str, folder: Path) -> None:
    if "full" in where and not os.path.exists("/dev/full"):
        pytest.skip("has no /dev/full")
    done = redirected(RUN, where, folder)
    assert done.returncode == 0 and ("leaderboard in" in done.stdout) == ("full" in where)
    assert len(list((folder / "results/quickstart/rows").glob("*.json"))) == 1


def test_a_mistake_that_nobody_hears_of_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    for stream in (Full(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["run", "grid=quickstrat"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("loading", ["robustbench_local.grids.run", "torch"])
def test_ctrl_c_while_anything_loads_is_no_traceback(loading: str, folder: Path) -> None:
    """As if the key were pressed at the moment in which this module begins to load."""
    script = (
        "import builtins, os, signal, sys; real = builtins.__import__\n"
        "def load(name, *rest, **more):\n"
        f"    if name == {loading!r}: builtins.__import__ = real; os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest, **more)\n"
        "from robustbench_local.cli.main import main\n"
        "assert 'torch' not in sys.modules and 'rich' not in sys.modules\n"
        "builtins.__import__ = load; sys.exit(main(sys.argv[1:]))"
    )
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", script, *RUN]
    done = subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr and "interrupted; what is finished is kept" in done.stderr


def test_a_warning_is_one_line_and_a_name_cannot_turn_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, a_row([1, 0, 0, 1]))
    (tmp_path / "rows" / "\x1b[31mred.json").write_text("{}")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr(
            warnings, "showwarning", lambda *about: print(warnings.formatwarning(*about[:4]), file=sys.stderr)
        )
        assert main(["report", str(tmp_path)]) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("warning: ") and "\\x1b[31mred.json counts as missing" in lines[0]


@pytest.mark.parametrize(
    ("before", "after"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_threads_wait_without_spinning_for_long_unless_told_otherwise(before: dict[str, str], after: str) -> None:
    """OpenMP reads it when torch is loaded, so it must stand there before."""
    script = (
        "import os, sys; from robustbench_local.cli.main import main; main(['completion', 'bash']);"
        "sys.exit('torch' in sys.modules or str(os.environ.get('GOMP_SPINCOUNT')))"
    )
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = plain | {"PYTHONPATH": os.pathsep.join(sys.path)} | before
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == after
