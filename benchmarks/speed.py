"""How long PGD takes, beside torchattacks, Foolbox and the bare arithmetic: ratios of times, ours over theirs.

    python -m benchmarks.speed --images 250 --runs 5 --json speed.json

Every ratio comes from pairs of runs in one process, in turn first and second, with the same model, images and
settings. Ours includes all that a verdict needs: pre-flight checks, clean answers, judging, rounding to 8 bits.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._timing import Job, pairs, surroundings
from robustbench_local.core.device import has_bfloat16
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.build import build_model
from robustbench_local.models.load import load_model
from robustbench_local.models.zoo import zoo_names

STEPS, EPS = 40, 8 / 255
STEP_SIZE = 2.5 * EPS / STEPS
TINY = 1e-5  # a ball in which next to no image is broken


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs, one number per pair of runs."""

    name: str
    target: float | None
    ours: list[float]
    theirs: list[float]

    @property
    def each(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def median(self) -> float:
        return statistics.median(self.each)


def ours(model: nn.Module, x: Tensor, y: Tensor, precision: str = "float32") -> Job:
    return lambda: evaluate(model, x, y, "pgd", f"linf:{EPS}", steps=STEPS, step_size=STEP_SIZE, precision=precision)


def torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Job:
    attack = importlib.import_module("torchattacks").PGD(model, eps=EPS, alpha=STEP_SIZE, steps=STEPS)
    return lambda: model(attack(x, y))


def foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Job:
    package = importlib.import_module("foolbox")
    attack = package.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS)
    wrapped = package.PyTorchModel(model, bounds=(0, 1))
    return lambda: attack(wrapped, x, y, epsilons=EPS)


def unbroken(model: nn.Module, x: Tensor, y: Tensor) -> Job:
    """Ours in a ball where no image is broken; steps so small that no image settles in a corner before the last one."""

    def job() -> None:
        verdict = evaluate(model, x, y, "pgd", f"linf:{TINY}", steps=STEPS, step_size=TINY / STEPS)
        if verdict.forwards.double().mean() < 0.98 * STEPS:
            raise RuntimeError(f"{verdict.forwards.tolist()} steps instead of {STEPS} each: nothing to compare")

    return job


def bare(model: nn.Module, x: Tensor, y: Tensor) -> Job:
    """The input gradients alone, and a forward pass before and after; in the same layout, precision and batches."""

    def job() -> None:
        with as_deployed(model), full_float32():
            for images, labels in zip(x.split(250), y.split(250), strict=True):
                leaf = images.contiguous(memory_format=torch.channels_last)
                right(model, leaf)
                leaf.requires_grad_()
                for _ in range(STEPS):
                    torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)
                right(model, leaf)

    return job


def measure(name: str, target: float | None, first: Job, second: Job, runs: int, device: torch.device) -> Ratio:
    taken = list(islice(pairs(first, second, device), runs + 1))[1:]  # one to warm up
    return Ratio(name, target, [ours for (_, ours), _ in taken], [theirs for _, (_, theirs) in taken])


def right(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model(x).argmax(1)
    return answer


def comparisons(count: int, runs: int, device: torch.device, say: Callable[[str], None]) -> Iterator[Ratio]:
    x, y = load_data("cifar10", n=count, source="bundled", device=device)
    peers: dict[str, Callable[[nn.Module, Tensor, Tensor], Job]] = {"torchattacks": torchattacks, "foolbox": foolbox}
    for name in list(peers):
        if importlib.util.find_spec(name) is None:
            say(f"{name} is not installed: left out")
            del peers[name]
    plain, robust = "cifar10/none", "cifar10/adversarial_training"
    missing = {plain, robust} - set(zoo_names())
    for name in sorted(missing):
        say(f"zoo:{name} is not in this copy: left out (python -m experiments.train zoo={name} makes it)")

    if plain not in missing:
        model = load_model(f"zoo:{plain}", device=device)
        for name, target in (("torchattacks", 0.25), ("foolbox", None)):
            if name in peers:
                pair = ours(model, x, y), peers[name](model, x, y)
                yield measure(f"undefended: {name}", target, *pair, runs, device)
    else:
        say("where all are robust: measured on an untrained preact_small instead")
        model = build_model("preact_small").to(device).eval()
    guess = right(model, x)
    where = torch.ones_like(y, dtype=torch.bool) if plain in missing else guess == y
    pair = unbroken(model, x[where], guess[where]), bare(model, x[where], guess[where])
    yield measure("all robust: bare forwards, gradients", 1.1, *pair, runs, device)
    if robust not in missing and "torchattacks" in peers:
        if not has_bfloat16(device):
            say("no native bfloat16 here: precision=fast searches in float32")
        model = load_model(f"zoo:{robust}", device=device)
        pair = ours(model, x, y, "fast"), torchattacks(model, x, y)
        yield measure("robust, ours fast: torchattacks", 0.5, *pair, runs, device)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250, help="how many bundled CIFAR-10 test images (1 to 1000)")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs per ratio")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice where not given")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="write all times to this file")
    given = parser.parse_args(arguments)
    if given.images < 1 or given.runs < 1:
        parser.error(f"--images is {given.images}, --runs {given.runs}: both must be at least 1")
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    device, console = torch.device(given.device), Console()
    about: dict[str, Any] = surroundings(device) | {
        "images": given.images,
        "runs": given.runs,
        "attack": f"PGD-{STEPS}",
    }
    console.print(", ".join(f"{name}: {value}" for name, value in about.items()), highlight=False)
    table = Table("ours / theirs", "median", "spread", "target", "ours, s", "theirs, s")
    ratios = []
    for ratio in comparisons(given.images, given.runs, device, lambda text: console.print(text, highlight=False)):
        ratios.append(ratio)
        table.add_row(
            ratio.name,
            f"{ratio.median:.2f}",
            f"{min(ratio.each):.2f} to {max(ratio.each):.2f}",
            "" if ratio.target is None else f"at most {ratio.target:g}",
            f"{statistics.median(ratio.ours):.2f}",
            f"{statistics.median(ratio.theirs):.2f}",
        )
    console.print(table)
    if given.json is not None:
        rows = [asdict(ratio) | {"median": ratio.median} for ratio in ratios]
        given.json.write_text(json.dumps(about | {"ratios": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
