"""Completion: what is offered, and bash, zsh and fish themselves, where they are installed."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from robustbench_local.cli.candidates import attacks, candidates, defenses, grids, models
from robustbench_local.cli.completion import SCRIPTS
from robustbench_local.cli.main import main, parser
from robustbench_local.config import reading
from robustbench_local.config.plugins import ATTACKS, DEFENSES, listing
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.models.zoo import zoo_names

ROOT = Path(__file__).parents[2]
COMMAND = "robustbench-local"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("com", ["compare", "completion"]),
        ("-q sta", ["status"]),
        ("run grid=quick", ["grid=quickstart"]),
        ("run quicks", ["quickstart"]),
        ("run quickstart cifar10_", []),
        ("evaluate net.onnx --threat li", ["linf:"]),
        ("evaluate net.onnx norm", ["normalise="]),
        ("run -q attack_", ["attack_under="]),
        ("run attacks=pg", ["attacks=pgd"]),
        ("run attacks=[fgsm,apg", ["attacks=[fgsm,apgd"]),
        ("run 'attacks=[fgsm,apg", ["'attacks=[fgsm,apgd"]),
        ("run attacks=[{apg", ["attacks=[{apgd"]),
        ("run trust=", ["trust=false", "trust=true"]),
        ("run log=m", ["log=mlflow"]),
        ("run --deb", ["--debug"]),
        ("audit zoo:mnist/none thr", ["threat="]),
        ("audit zoo:mnist/tra", ["zoo:mnist/trades"]),
        ("train zoo=mnist/none_", []),
        ("list attacks apg", ["apgd"]),
        ("list def", ["defenses"]),
        ("data fetch mn", ["mnist"]),
        ("report results/mine --format ass", ["assessment"]),
        ("completion z", ["zsh"]),
        ("completion zsh --wo", []),
        ("compare some/fol", []),  # the shell offers files
    ],
)
def test_what_is_offered(line: str, offered: list[str]) -> None:
    assert candidates(f"{COMMAND} {line}", parser()) == offered


def test_names_that_load_no_torch_are_those_there_are() -> None:
    assert {*attacks()} == {row.name for row in listing(ATTACKS)}
    assert {*defenses()} == {row.name for row in listing(DEFENSES)}
    assert grids() == reading.names("grid")
    zoo = {name for name in models() if name.startswith("zoo:")}
    assert zoo >= {f"zoo:{name}" for name in zoo_names()}
    assert {*models()} - zoo <= {*ARCHITECTURES} and "mnist_small" in models()


def test_nobody_waits_for_it() -> None:
    """Processor seconds of a press of the key; torch alone takes more."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    script = "import sys; from robustbench_local.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = f"--words={COMMAND} run attacks=["
    subprocess.run([sys.executable, "-c", script, "completion", "bash", words], cwd=ROOT, check=True, stdout=-1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 0.5


def test_every_shell_has_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in SCRIPTS:
        assert main(["completion", shell]) == 0 and COMMAND in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["completion", "tcsh"])
    assert ended.value.code == 2


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the command on its path, and nothing of the user's shells."""
    command = tmp_path / "bin" / COMMAND
    command.parent.mkdir()
    code = "import sys; from robustbench_local.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -c '{code}' \"$@\"\n")
    command.chmod(0o755)
    (tmp_path / "notes.txt").touch()
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    for shell, script in SCRIPTS.items():
        (tmp_path / f"complete.{shell}").write_text(script)
    return tmp_path


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


def typed(shell: pexpect.spawn, text: str, becomes: str) -> bool:
    """Whether the Tab key after the text makes it that."""
    shell.send(f"{text}\t")
    found = shell.expect_exact([becomes, pexpect.TIMEOUT], timeout=20)
    shell.send("\x15")  # takes the line back
    return bool(found == 0)


LINES = [
    (f"{COMMAND} run grid=quicks", "grid=quickstart"),
    (f"{COMMAND} run models=zoo:mnist/trad", "models=zoo:mnist/trades"),
    (f"{COMMAND} run 'attacks=[fgsm,apg", "attacks=[fgsm,apgd"),  # zsh and fish want quotes around brackets
    (f"{COMMAND} stat", f"{COMMAND} status"),
    (f"{COMMAND} metrics not", "notes.txt"),
]


@pytest.mark.parametrize(("shell", "flags"), [("bash", ["--norc", "--noprofile", "-i"]), ("zsh", ["-f", "-i"])])
def test_the_tab_key(shell: str, flags: list[str], home: Path) -> None:
    started = pexpect.spawn(needs(shell), flags, cwd=str(home), encoding="utf-8", dimensions=(24, 120))
    try:
        started.sendline(f"PS1='> '; source {home}/complete.{shell}; echo rea''dy")
        started.expect_exact("ready", timeout=20)
        for text, becomes in LINES:
            assert typed(started, text, becomes), started.before
    finally:
        started.close(force=True)


def test_fish_completes(home: Path) -> None:
    for text, becomes in LINES:
        asked = f'source {home}/complete.fish; complete -C "{text}"'
        done = subprocess.run([needs("fish"), "-c", asked], cwd=home, capture_output=True, text=True, check=True)
        assert becomes.split(" ")[-1] in done.stdout.replace("'", "").split(), (text, done)
