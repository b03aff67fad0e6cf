"""sys.exit, os._exit and KeyboardInterrupt in a stranger's code: one failed cell, and never the end of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.cli.main import main
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.containment import contained, guarded
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError, PluginError, RobustBenchError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from tests.helpers.packages import installed

ENDS = ("sys.exit(0)", "sys.exit('enough')", "os._exit(0)", "raise KeyboardInterrupt", "raise BaseException('odd')")
CODE = """
import os, sys
from dataclasses import dataclass
from typing import ClassVar
import torch
from torch import nn
from robustbench_local import Access, Attack, Defense
from robustbench_local.attacks.fgsm import FGSM

def end(how):
    exec(how)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(784, 10)
        with torch.no_grad():
            self.net.weight.mul_(0.01)
            self.net.bias[7] += 9  # what is to be attacked must be right: the first digit is a seven
    def forward(self, x):
        return self.net(x.flatten(1))

def good():
    return Net()

class Leaver(Net):
    def forward(self, x):
        end(os.environ["ENDS"])

class Late(Net):
    def forward(self, x):
        if x.requires_grad:
            end(os.environ["ENDS"])
        return super().forward(x)

def maker():
    end(os.environ["ENDS"])

@dataclass(frozen=True)
class Leaves(Attack):
    access: ClassVar[Access] = Access.GRADIENTS
    def __call__(self, oracle, x, y, threat, draws):
        end(os.environ["ENDS"])

@dataclass(frozen=True)
class Refuses(Attack):
    def __post_init__(self):
        end(os.environ["ENDS"])

@dataclass(frozen=True)
class Builds(Defense):
    def build(self, base, trainer, draws):
        end(os.environ["ENDS"])
"""
POINTS = """[robustbench_local.attacks]
leaves = leavers:Leaves
refuses = leavers:Refuses
gone = gone:Attack
[robustbench_local.defenses]
builds = leavers:Builds
"""
RUN = [
    "run",
    "grid=quickstart",
    "data=mnist",
    "n=8",
    "models=[leavers:good]",
    "defenses=none",
    "threats=[linf:0.1]",
    "attacks=[fgsm]",
    "device=cpu",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "leavers.py").write_text(CODE)
    (tmp_path / "gone.py").write_text("import os, sys\nexec(os.environ['ENDS'])\n")
    installed(tmp_path, "leavers", POINTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    yield tmp_path
    for name in ("leavers", "gone"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("ends", ENDS)
def test_a_cell_that_would_end_the_run_is_a_failed_cell_and_the_others_go_on(
    ends: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An attack, a model, a model under attack, and a defense."""
    monkeypatch.setenv("ENDS", ends)
    monkeypatch.setattr("robustbench_local.grids.run.write_report", lambda *_: None)
    models = "models=[leavers:Leaver,leavers:Late,leavers:good]"
    grid = [models, "defenses=[builds,none]", "attacks=[leaves,noise,fgsm]"]
    assert main([*RUN, *grid]) == 1
    said = capsys.readouterr().err
    assert "15 of 18 cells failed" in said
    assert sum("tried to end the whole process (" in line and line.startswith("  ") for line in said.splitlines()) == 15
    for who in ("attack Leaves", "the model", "builds"):
        assert f"{who} tried to end the whole process (" in said
    for cell in ("Late none | noise", "good none | noise", "good none | fgsm"):
        assert f"leavers:{cell} linf:0.1 seed 0: clean" in said
    assert ends.removeprefix("raise ").partition("(")[0].replace("sys.exit", "SystemExit") in said
    assert os._exit.__module__ == "posix" and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("override", ["attacks=[gone]", "attacks=[refuses]", "models=[leavers:maker]"])
def test_what_ends_before_anything_runs_is_a_mistake(
    override: str, ends: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENDS", ends)
    assert main([*RUN, override]) == 2
    assert "tried to end the whole process" in capsys.readouterr().err


def test_a_script_that_runs_then_publishes_does_not_publish(folder: Path) -> None:
    """In a process of its own, where os._exit(0) would be the end with exit code 0."""
    start = "import sys; from robustbench_local.cli.main import main; sys.exit(main())"
    command = f"{sys.executable} -c '{start}' {' '.join(RUN)} attacks=[fgsm,leaves] && echo published"
    environment = {**os.environ, "ENDS": "os._exit(0)", "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "published" not in done.stdout
    assert "os._exit(0)" in done.stderr and "1 of 2 cells failed" in done.stderr


class Leaver(nn.Module):
    def __init__(self, ends: Callable[[], object]) -> None:
        super().__init__()
        self.ends = ends

    def forward(self, x: Tensor) -> Tensor:
        self.ends()
        return 2 * x.flatten(1)


@dataclass(frozen=True)
class Leaves(Attack):
    access: ClassVar[Access] = Access.NONE

    ends: Callable[[], object] = lambda: None

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        self.ends()
        return x


def interrupts() -> None:
    raise KeyboardInterrupt


X, Y = torch.eye(4).view(4, 1, 2, 2), torch.arange(4)


@pytest.mark.parametrize("ends", [sys.exit, lambda: os._exit(0), interrupts, lambda: sys.exit("enough")])
def test_evaluate_never_ends_the_callers_process(ends: Callable[[], object]) -> None:
    with pytest.raises(ModelError, match="the model tried to end the whole process"):
        rbl.evaluate(Leaver(ends), X, Y, "noise", "linf:0.1")
    with pytest.raises(PluginError, match="attack Leaves tried to end the whole process"):
        rbl.evaluate(Leaver(list), X, Y, Leaves(ends), "linf:0.1")


def test_ctrl_c_is_the_users_whoever_is_running() -> None:
    """The signal really comes, inside an attack and inside a model, and there only it passes."""

    def pressed() -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    for model, attack in ((Leaver(pressed), "noise"), (Leaver(list), Leaves(pressed))):
        with pytest.raises(KeyboardInterrupt):
            rbl.evaluate(model, X, Y, attack, "linf:0.1")
        assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ModelError):  # the next time nobody pressed anything
        rbl.evaluate(Leaver(interrupts), X, Y, "noise", "linf:0.1")


def test_in_a_thread_too() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            rbl.evaluate(Leaver(interrupts), X, Y, "noise", "linf:0.1")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(caught[0], ModelError)


def test_a_child_may_end_as_it_likes() -> None:
    with guarded():
        child = os.fork()
        if not child:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ValueError, match="plain"), contained(RobustBenchError, "who"):
        raise ValueError("plain")
