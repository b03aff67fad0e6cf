"""End or stop commands at random instants, and see that the same command then ends as if nothing had happened.

    python tests/helpers/killing.py FOLDER KILLS SEED

Everything is imported once; each command runs in a fork of its own. Nothing is asked of torch before: its threads do
not survive a fork. Data sets are fetched only where ROBUSTBENCH_LOCAL_CACHE had MNIST when the script began.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_local.cli.main import main
from robustbench_local.data.cache import cached
from robustbench_local.data.catalogue import known
from robustbench_local.regression.lock import NAME
from robustbench_local.report.render import markdown
from robustbench_local.report.results import Results
from robustbench_local.storage import checkpoints
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from robustbench_local.storage.store import Store
from tests.helpers.checked import asking
from tests.helpers.checked import folder as with_checks

FIRST = (
    "robustbench_local.attacks.best",
    "robustbench_local.attacks.fgsm",
    "robustbench_local.attacks.pgd",
    "robustbench_local.defenses.none",
    "robustbench_local.cli.auditing",
    "robustbench_local.regression.session",
    "robustbench_local.grids.run",
    "robustbench_local.training.zoo_builder",
    "robustbench_local.report.corruption_text",
    "robustbench_local.report.write",
)
TOYS = """
import torch
from torch import nn

def linear(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def other():
    return linear(1)
"""
GRID = """
data: mnist
source: bundled
n: 12
models: ["toys:linear", "toys:other"]
attacks: [fgsm, {pgd: {steps: 2}}]
threats: ["linf:0.1"]
device: cpu
"""


@dataclass
class Command:
    """words: of the command line; before: makes what it starts from; outcome: what must be the same in the end."""

    words: list[str]
    before: Callable[[], object]
    outcome: Callable[[], object]


def removed(*places: str) -> None:
    for place in map(Path, places):
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


def table(folder: str) -> str:
    return markdown(Results.read([folder]).tables())


def rows(folder: str) -> list[list[Any]]:
    found = Store(folder).rows()
    return [[row["key"], row["results"] | {"seconds": 0}] for row in found] + [sorted(Store(folder).audits())]


def trained() -> object:
    state, notes = checkpoints.load("out/mnist/none.safetensors")
    return notes["figures"], {name: value.tolist() for name, value in state.items()}


def checked() -> object:
    return json.loads(Path(NAME).read_text())


def card() -> object:
    found = json.loads(Path("card.json").read_text())
    findings = [each | {"seconds": 0, "cpu": 0} for each in found["findings"] if each["check"] != "time"]
    return found | {"seconds": 0, "findings": findings}


def fetched() -> object:
    arrays = cached(known("mnist"))
    return None if arrays is None else {name: int(array[:50].sum()) for name, array in arrays.items()}


def copied() -> None:
    """The whole results once more, to pack."""
    removed("results/packed")
    shutil.copytree("results/whole", "results/packed")


COMMANDS = {
    "run": Command(
        ["run", "grid=toy.yaml"],
        lambda: removed("results/toy") if random.random() < 0.7 else None,
        lambda: [Path("results/toy/table.md").read_text(), rows("results/toy")],
    ),
    "train": Command(
        [
            "train",
            "zoo=mnist/none",
            "source=bundled",
            "folder=out",
            "n=16",
            "device=cpu",
            "attack=fgsm",
            "schedule.epochs=2",
            "schedule.batch=25",
            "schedule.validation=1950",
            "schedule.watched=4",
        ],
        lambda: removed("out", *(["cache/training"] if random.random() < 0.7 else [])),
        trained,
    ),
    "report": Command(
        ["report", "results/whole"],
        lambda: removed("results/whole/table.md", "results/whole/index.html"),
        lambda: [Path("results/whole/table.md").read_text(), len(Path("results/whole/index.html").read_text())],
    ),
    "pack": Command(
        ["pack", "results/packed"],
        copied,
        lambda: [table("results/packed"), rows("results/packed"), sorted(os.listdir("results/packed/rows"))],
    ),
    "audit": Command(
        [
            "audit",
            "toys:linear",
            "data=mnist",
            "source=bundled",
            "threat=linf:0.1",
            "n=6",
            "effort=0.1",
            "surrogates=toys:other",
            "device=cpu",
            "out=card.json",
        ],
        lambda: removed("card.json"),
        card,
    ),
    "check": Command(["check", "--update"], lambda: removed(NAME), checked),
    "fetch": Command(["data", "fetch", "mnist", "--folder", "raw"], lambda: removed("cache/data/mnist"), fetched),
}


def begun(words: list[str]) -> int:
    """The process that runs the command; what it says goes to said.txt."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def raw_mnist() -> bool:
    """MNIST as its authors give it, out of the cache; False where that has none."""
    arrays = cached(known("mnist"))
    if arrays is None:
        return False
    Path("raw/MNIST/raw").mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for what, kind in (("images", "idx3"), ("labels", "idx1")):
            array = np.asarray(arrays[f"{split}_{what}"])
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            Path(f"raw/MNIST/raw/{prefix}-{what}-{kind}-ubyte").write_bytes(content)
    return True


def kill_them(folder: Path, kills: int, seed: int) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    Path("toys.py").write_text(TOYS)
    with_checks(Path())
    Path("robustness.yaml").write_text(json.dumps({"checks": [asking(n=20), asking(n=20, name="again")]}))
    for name in ("toy", "whole"):
        Path(f"{name}.yaml").write_text(GRID)
    names = [name for name in COMMANDS if name != "fetch" or raw_mnist()]
    os.environ[CACHE_VARIABLE] = str(folder / "cache")
    random.seed(seed)
    for module in FIRST:
        importlib.import_module(module)
    assert ended(begun(["run", "grid=whole.yaml"])) == 0, Path("said.txt").read_text()
    lasts, expected = {}, {}
    for name in names:
        command = COMMANDS[name]
        command.before()
        started = time.monotonic()
        code = ended(begun(command.words))
        lasts[name] = time.monotonic() - started
        assert code in (0, 3, 4), Path("said.txt").read_text()
        expected[name] = code, command.outcome()
    counts: Counter[str] = Counter()
    for turn in range(kills):
        name = names[turn % len(names)]
        command = COMMANDS[name]
        command.before()
        child = begun(command.words)
        time.sleep(random.uniform(0, lasts[name]))
        how = random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
        os.kill(child, how)
        if how is signal.SIGSTOP:  # and goes on later, or is killed as it stands
            time.sleep(random.uniform(0, 0.5))
            os.kill(child, random.choice((signal.SIGCONT, signal.SIGKILL)))
        counts[f"{name}, {how.name}: {'was ended' if ended(child) < 0 else 'came through'}"] += 1
        code = ended(begun(command.words))
        said = Path("said.txt").read_text()
        assert "Traceback" not in said and "counts as missing" not in said, f"{name} after kill {turn}:\n{said}"
        outcome = code, command.outcome()
        assert outcome == expected[name], f"{name} after kill {turn}: {outcome}, not {expected[name]}\n{said}"
    print(f"{kills} strikes at {len(names)} commands:", dict(sorted(counts.items())))
    print("seconds undisturbed:", {name: round(last, 1) for name, last in lasts.items()})


if __name__ == "__main__":
    kill_them(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
