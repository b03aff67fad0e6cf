"""How long PGD, AutoAttack and training take, beside peers and the bare arithmetic: ratios of times, ours over theirs.

    python -m benchmarks.speed --images 250 --runs 5 --threads 1     everything, an hour or so
    python -m benchmarks.speed --only "training, none"               what is named so

Every ratio comes from pairs of runs in one process, in turn first and second, with the same model, images and
settings. Ours includes all that a verdict needs: pre-flight checks, clean answers, judging, rounding to 8 bits; and of
an epoch of training the held-out images, in their usual share, that are asked about after it. On a CPU it is said
how much of either's time is spent in the network, forward and backward: the rest is what they do with the answers.
Each comparison is written as it ends, to speed.jsonl: the same command leaves out what is there.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import _bare_training
from benchmarks._kept import Row, keep, kept
from benchmarks._network_clock import NetworkClock
from benchmarks._peers import peer
from benchmarks._timing import Job, pairs, surroundings
from robustbench_local.config.plugins import find_defense
from robustbench_local.core.device import has_bfloat16
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.data.images import Images
from robustbench_local.data.load import load_data, open_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.build import build_model
from robustbench_local.models.load import load_model
from robustbench_local.models.zoo import zoo_names
from robustbench_local.report.markdown import markdown_table
from robustbench_local.training.trainer import TrainingLoop

NETWORKS = frozenset({"cifar10/none", "cifar10/adversarial_training"})
STEPS, EPS = 40, 8 / 255
BALL = ThreatModel(Norm.LINF, EPS)
INNER = 7  # steps against which adversarial training lowers the loss
HELD_OUT, WATCHED = 25, 100  # of so many training images one is validated on, and attacked: the usual 2000 and 500
STEP_SIZE = 2.5 * EPS / STEPS
TINY = 1e-5  # a ball in which next to no image is broken


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs, one number per pair of runs: seconds, and of those the ones spent in the network, if known."""

    name: str
    target: float | None
    ours: list[float]
    theirs: list[float]
    ours_in_network: list[float]
    theirs_in_network: list[float]

    @property
    def each(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def median(self) -> float:
        return statistics.median(self.each)

    def cells(self) -> list[str]:
        return [
            self.name,
            f"{self.median:.2f}",
            f"{min(self.each):.2f} to {max(self.each):.2f}",
            str(len(self.each)),
            "" if self.target is None else f"at most {self.target:g}",
            f"{statistics.median(self.ours):.2f}",
            f"{statistics.median(self.theirs):.2f}",
            share(self.ours_in_network, self.ours),
            share(self.theirs_in_network, self.theirs),
        ]


HEADS = (
    "ours / theirs",
    "median",
    "spread",
    "pairs",
    "target",
    "ours, s",
    "theirs, s",
    "of ours in the network",
    "of theirs",
)


def share(part: list[float], whole: list[float]) -> str:
    return f"{100 * sum(part) / sum(whole):.1f} %" if part else ""


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


def autoattack(model: nn.Module, x: Tensor, y: Tensor) -> Job:
    return lambda: evaluate(model, x, y, "autoattack", BALL)


def pyautoattack(model: nn.Module, x: Tensor, y: Tensor) -> Job:
    craft = peer("pyautoattack:AutoAttack", {}, model, BALL, targeted=False, seed=0)
    return lambda: model(craft(x, y))


def trained(net: nn.Module, images: Images, plan: Schedule, recipe: Recipe) -> Job:
    """An epoch by the package's loop, on a copy of the net."""

    def job() -> None:
        loop = TrainingLoop(images, plan, progress=Progress())
        loop.fit(copy.deepcopy(net), recipe, Draws(0, images.ids[:1]))

    return job


def trained_barely(net: nn.Module, images: Images, plan: Schedule, ball: ThreatModel | None) -> Job:
    """An epoch on the same number of the same images."""
    count = (len(images) - plan.validation) // plan.batch * plan.batch
    x, y = images[:count], images.labels[:count]
    return lambda: _bare_training.epoch(copy.deepcopy(net), x, y, plan, ball, INNER)


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


class Comparison(NamedTuple):
    """Two jobs, and the network that both ask: its share is told where it can be timed."""

    name: str
    target: float | None
    ours: Job
    theirs: Job
    network: NetworkClock | None = None


def measure(comparison: Comparison, runs: int, device: torch.device) -> Ratio:
    name, target, first, second, network = comparison

    def clocked(job: Job) -> Job:
        def run() -> float:
            before = network.seconds if network else 0.0
            job()
            return network.seconds - before if network else 0.0

        return run

    taken = list(islice(pairs(clocked(first), clocked(second), device), runs + 1))[1:]  # one to warm up
    seconds = [[pair[side][1] for pair in taken] for side in range(2)]
    known = network is not None and device.type == "cpu"
    inside = [[pair[side][0] for pair in taken] if known else [] for side in range(2)]
    return Ratio(name, target, *seconds, *inside)


def right(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model(x).argmax(1)
    return answer


def comparisons(given: argparse.Namespace, device: torch.device, say: Callable[[str], None]) -> Iterator[Comparison]:
    there = {name for name in ("torchattacks", "foolbox", "pyautoattack") if importlib.util.find_spec(name)}
    for name in sorted({"torchattacks", "foolbox", "pyautoattack"} - there):
        say(f"{name} is not installed: left out")
    zoo = NETWORKS.intersection(zoo_names())
    for name in sorted(NETWORKS - zoo):
        say(f"zoo:{name} is not in this copy: left out (python -m experiments.train zoo={name} makes it)")
    yield from of_pgd(given.images, device, there, zoo, say)
    if "pyautoattack" in there:
        yield from of_autoattack(given.autoattack, device, zoo)
    yield from of_training(given.trained, device)


def of_pgd(
    count: int, device: torch.device, there: set[str], zoo: AbstractSet[str], say: Callable[[str], None]
) -> Iterator[Comparison]:
    x, y = load_data("cifar10", n=count, source="bundled", device=device)
    peers: dict[str, Callable[[nn.Module, Tensor, Tensor], Job]] = {"torchattacks": torchattacks, "foolbox": foolbox}
    if "cifar10/none" in zoo:
        model = clock("cifar10/none", device)
        for name, target in (("torchattacks", 0.25), ("foolbox", None)):
            if name in there:
                pair = ours(model, x, y), peers[name](model, x, y)
                yield Comparison(f"PGD, undefended: {name}", target, *pair, model)
        guess = right(model, x)
        where = guess == y
    else:
        say("where all are robust: measured on an untrained preact_small instead")
        model = NetworkClock(build_model("preact_small").to(device)).eval()
        guess = right(model, x)
        where = torch.ones_like(y, dtype=torch.bool)
    pair = unbroken(model, x[where], guess[where]), bare(model, x[where], guess[where])
    yield Comparison("PGD, all robust: bare forwards, gradients", 1.05, *pair, model)
    if "cifar10/adversarial_training" in zoo and "torchattacks" in there:
        if not has_bfloat16(device):
            say("no native bfloat16 here: precision=fast searches in float32")
        model = clock("cifar10/adversarial_training", device)
        pair = ours(model, x, y, "fast"), torchattacks(model, x, y)
        yield Comparison("PGD, robust, ours fast: torchattacks", 0.5, *pair, model)


def of_autoattack(count: int, device: torch.device, zoo: AbstractSet[str]) -> Iterator[Comparison]:
    """All of its published passes, on both sides."""
    x, y = load_data("cifar10", n=count, source="bundled", device=device)
    for name in sorted(zoo):
        model = clock(name, device)
        pair = autoattack(model, x, y), pyautoattack(model, x, y)
        yield Comparison(f"AutoAttack, {name}: pyautoattack", None, *pair, model)


def of_training(count: int, device: torch.device) -> Iterator[Comparison]:
    """An epoch on so many images beside one of the same batches that validates nothing."""
    images = open_data("cifar10", split="train", source="bundled", n=count, device=device)
    held, watched = (max(1, count // each) for each in (HELD_OUT, WATCHED))
    plan = Schedule(epochs=1, batch=min(128, count // 2), crop=4, flip=True, validation=held, watched=watched)
    recipes = {"none": None, "adversarial_training": BALL}
    net = build_model("preact_small").to(device)
    for name, ball in recipes.items():
        recipe = find_defense(name, {} if ball is None else {"threat": str(ball), "steps": INNER})
        assert isinstance(recipe, Recipe)
        pair = trained(net, images, plan, recipe), trained_barely(net, images, plan, ball)
        yield Comparison(f"training, {name}: a bare loop", 1.05, *pair)


def clock(name: str, device: torch.device) -> NetworkClock:
    return NetworkClock(load_model(f"zoo:{name}", device=device)).eval()


def markdown(rows: list[Row]) -> str:
    lines = ["# Time beside peers and the bare arithmetic", "", "Medians over pairs of runs in one process.", ""]
    for row in rows:
        line = ", ".join(f"{name}: {value}" for name, value in row["where"].items())
        if line not in lines:
            lines += [line, ""]
    return "\n".join([*lines, markdown_table(HEADS, [Ratio(**row["ratio"]).cells() for row in rows])]) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250, help="for PGD: bundled CIFAR-10 test images (1 to 1000)")
    parser.add_argument("--autoattack", type=int, default=20, metavar="N", help="images for AutoAttack")
    parser.add_argument("--trained", type=int, default=1400, metavar="N", help="training images of an epoch, to 2000")
    parser.add_argument("--only", default="", help="what a comparison's name must hold, such as AutoAttack")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs per ratio")
    parser.add_argument("--threads", type=int, help="CPU threads, torch's choice where not given; 1: CPU time")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/speed"))
    given = parser.parse_args(arguments)
    for name, low in (("images", 1), ("runs", 1), ("autoattack", 1), ("trained", 4)):
        if getattr(given, name) < low:
            parser.error(f"--{name} is {getattr(given, name)}: it must be at least {low}")
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    device, console = torch.device(given.device), Console()
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    sizes = {"images for PGD": given.images, "AutoAttack": given.autoattack, "training": given.trained}
    where, file = surroundings(device) | sizes, given.out / "speed.jsonl"
    given.out.mkdir(parents=True, exist_ok=True)
    done = [row["ratio"]["name"] for row in kept(file) if row["where"] == where]
    for comparison in comparisons(given, device, say):
        if given.only in comparison.name and comparison.name not in done:
            ratio = measure(comparison, given.runs, device)
            keep(file, {"where": where, "ratio": asdict(ratio)})
            say("; ".join(f"{head} {cell}" for head, cell in zip(HEADS, ratio.cells(), strict=True) if cell))
    (given.out / "table.md").write_text(markdown(kept(file)), encoding="utf-8")


if __name__ == "__main__":
    main()
