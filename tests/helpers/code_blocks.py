"""The code of the documentation, and a folder in which what a reader has beside it is there."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

import robustbench_local
from robustbench_local.cli.main import main
from robustbench_local.data.load import load_data
from robustbench_local.models.description import read_description
from robustbench_local.models.load import load_model
from robustbench_local.regression import checks_file
from robustbench_local.regression.settings import check_of

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<why>.+?) -->\n\n?)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
SHORT = {r"\bn=\d+": "n=8", r"\bsteps=\d+": "steps=2", r"\bepochs=\d+": "epochs=1"}
MODELS = """
import robustbench_local as rbl

def Net():
    return rbl.load_model("zoo:cifar10/none")

def net():
    return rbl.load_model("zoo:cifar10/none")

def make():
    return rbl.load_model("zoo:cifar10/none")
"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page. why: the reason that is stated there for not running it."""

    page: str
    number: int
    language: str
    text: str
    why: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.number}:{self.language}"


def pages() -> list[str]:
    """README and all that the site holds, by their paths."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks(page: str) -> list[Block]:
    """What is to be run; blocks of text are what something prints."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = enumerate(BLOCK.finditer(text), 1)
    return [
        Block(page, number, each["language"], each["text"], each["why"])
        for number, each in found
        if each["language"] != "text"
    ]


def furnish(folder: Path) -> None:
    """What pages take for granted: models, pictures in folders, arrays, and the results of a grid."""
    for name in ("my_models.py", "mymodule.py", "models.py"):
        (folder / name).write_text(MODELS, encoding="utf-8")
    x, y = load_data("cifar10", n=12, source="bundled")
    pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    np.savez(folder / "my.npz", x=pixels, y=y.numpy())
    for place in ("imgs", "validation", "photos"):
        for number, label in enumerate(y.tolist()):
            path = folder / place / f"{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[number]).save(path)
    shutil.copy(ROOT / "examples/scale/grid.yaml", folder)
    (mine,) = [block.text for block in blocks("docs/first-grid.md") if block.language == "yaml"]
    (folder / "mine.yaml").write_text(mine, encoding="utf-8")
    with chdir(folder):
        small = ["data=mnist", "source=bundled", "models=zoo:mnist/none", "defenses=none", "threats=linf:0.2", "n=6"]
        assert main(["run", "grid=quickstart", *small, "attacks=[fgsm,{pgd:{steps:2}}]", "save=x_adv"]) == 0
    made = folder / "results/quickstart"
    for copy in ("results/mine", "results/last", "results/cifar10_pgd", "before", "after"):
        shutil.copytree(made, folder / copy)


def names() -> dict[str, Any]:
    """What pages in Python take for granted."""
    x, y = load_data("cifar10", n=8, source="bundled")
    net = load_model("zoo:cifar10/none")

    def f(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            scores: np.ndarray = net(torch.from_numpy(pixels)).numpy()
        return scores

    return {"rbl": robustbench_local, "net": net, "f": f, "x": x, "y": y, "model": net}


class Recorder:
    """In place of the fixture `robustness`: what is asked must be a check, and is not measured."""

    def check(self, model: str, data: str, threat: str | None = None, **settings: Any) -> None:
        check_of({"model": model, "data": data, "threat": threat, **settings})

    def compare(self, *models: str, data: str, threat: str, variant: str = "", margin: float | None = None) -> None:
        assert len(models) + bool(variant) == 2
        check_of({"model": models[-1], "data": data, "threat": threat, "margin": margin})


def run_python(text: str, space: dict[str, Any]) -> None:
    """On fewer images, in fewer steps; a test that it defines is called."""
    for long, short in SHORT.items():
        text = re.sub(long, short, text)
    before = set(space)
    exec(text, space)
    for name in space.keys() - before:
        if name.startswith("test_"):
            space[name](Recorder())


def run_shell(text: str, page: str) -> None:
    """Line by line, in the current folder. AssertionError for a command that nothing here knows how to try."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        match words:
            case []:
                pass
            case ["robustbench-local" | "robustbench_local/.venv/bin/robustbench-local", *rest]:
                assert main(small(rest)) in tolerated(rest), line
            case ["make", target] | ["make", "-C", _, target]:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), line
            case ["pip", "install", *what] | ["python", "-m", "pip", "install", *what]:
                assert [each for each in what if not installable(each)] == [], line
            case ["pytest" | "python", *rest] if words[0] == "pytest" or rest[:2] == ["-m", "pytest"]:
                collect(rest if words[0] == "pytest" else rest[2:], line)
            case ["." | "source", ".venv/bin/activate"] | ["git", "clone", *_] | ["cd", _]:
                pass
            case ["python", script] if (ROOT / script).is_file():
                runpy.run_path(str(ROOT / script), run_name="__main__")
            case ["cp", "-r", source, target]:
                shutil.copytree(ROOT / source, target)
            case ["cp", source, _]:
                assert any(Path(base, source).exists() for base in (".", ROOT, ROOT / "examples/digits")), line
            case _:
                raise AssertionError(f"{page}: nothing here tries {line!r}")


def small(words: list[str]) -> list[str]:
    """A command with what makes it short: few bundled images, and of a run the plan."""
    words = [re.sub(r"\bsteps=\d+", "steps=2", word) for word in words]
    if words[0] == "run":
        kept = [word for word in words if word.partition("=")[0] not in ("n", "dry_run", "source")]
        own = any(":" in word for word in kept if word.startswith("data="))
        weights = ["weights=random"] if "torchvision:" in " ".join(kept) else []  # nothing is fetched
        return [*kept, "n=4", "dry_run=true", *weights, *([] if own else ["source=bundled"])]
    if words[0] == "evaluate":
        return [*words, "--suite", "quick", "--n", "4", "dry_run=true"]
    if words[0] == "audit":
        own = any(word.startswith("data=arrays") for word in words)
        return [*(word for word in words if not word.startswith("n=")), "n=8", *([] if own else ["source=bundled"])]
    return words


def tolerated(words: list[str]) -> tuple[int, ...]:
    """Exit codes: what compares, judges or audits may find something."""
    found: dict[str, tuple[int, ...]] = {"compare": (1,), "check": (1,), "audit": (3, 4)}
    return 0, *found.get(words[0], ())


def installable(what: str) -> bool:
    """An extra of ours, a folder that is there, or a package that pages name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = re.fullmatch(r"robustbench_local(?:\[(\w+)\])?", what)
    if named:
        return named[1] is None or named[1] in extras
    return what in ("-e", ".", "-r") or Path(what).exists() or re.fullmatch(r"[a-z]\w+", what) is not None


def collect(words: list[str], line: str) -> None:
    """Whether pytest takes these options."""
    Path("tests").mkdir(exist_ok=True)
    Path("tests/test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", *words, "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, line + done.stdout + done.stderr


def run_yaml(text: str, folder: Path) -> None:
    """A grid, models of one, checks of robustness, or what a model says of itself."""
    said = yaml.safe_load(text)
    file = folder / "block.yaml"
    if "checks" in said:
        file.write_text(text, encoding="utf-8")
        found = checks_file.read(file)
        assert [check_of({**found.common, **each}) for each in found.checks]
    elif said.keys() & {"models", "model_info"}:
        usual = {"data": "cifar10", "models": "zoo:cifar10/none", "attacks": ["fgsm"], "threats": ["linf:8/255"]}
        grid = usual | said
        file.write_text(yaml.safe_dump(grid), encoding="utf-8")
        assert main(small(["run", f"grid={file}"])) == 0
    else:
        file.write_text(text, encoding="utf-8")
        read_description(file)


RUN: Mapping[str, Callable[[Block, dict[str, Any]], None]] = {
    "python": lambda block, space: run_python(block.text, space),
    "sh": lambda block, space: run_shell(block.text, block.page),
    "yaml": lambda block, space: run_yaml(block.text, Path()),
    "toml": lambda block, space: exec("tomllib.loads(text)", {"tomllib": tomllib, "text": block.text}),
}


def run_page(page: str, seen: Sequence[Block]) -> None:
    """One after the other, as a reader would; Python's names are kept from block to block."""
    space = names()
    for block in seen:
        named = re.match(r"# ([\w.]+\.yaml)\n", block.text)
        if block.language == "yaml" and named:
            Path(named[1]).write_text(re.sub(r"\bn: \d+", "n: 8", block.text), encoding="utf-8")
    for block in seen:
        if block.why is None:
            RUN[block.language](block, space)
