"""What `python -m benchmarks.gpu` measures: stages, each of parts that are kept as they end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._comparisons import Comparison, Entry, Subject, images_of, model_of
from benchmarks._kept import Row
from benchmarks._peers import release
from benchmarks._timing import Job, timed
from robustbench_local.config.plugins import find_attack, find_defense
from robustbench_local.core.device import first_batch
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.training import Schedule
from robustbench_local.data.load import load_data, open_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.build import build_model
from robustbench_local.models.load import load_model
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.training.trainer import TrainingLoop

Parts = Iterator[tuple[str, Callable[[], Row]]]
ROOT = Path(__file__).resolve().parents[1]
STEPS = 40


@dataclass(frozen=True)
class Given:
    """weights: {architecture: file}, of MNIST at linf:0.3.

    mnist, cifar10: a folder with their images, "bundled", or None: the cache.
    work: a folder for drafts of training. small: the rehearsal, in seconds on a CPU.
    """

    device: torch.device
    weights: dict[str, Path]
    mnist: str | None
    cifar10: str | None
    work: Path
    small: bool


class Stage(NamedTuple):
    """seconds: how long it may take, of the twelve minutes."""

    name: str
    seconds: float
    parts: Callable[[Given], Parts]


def tests(given: Given) -> Parts:
    """Those marked gpu, in a process of their own."""

    def job() -> Row:
        command = [sys.executable, "-m", "pytest", "-o", "addopts=", "--import-mode=importlib", "-q", "-m", "gpu"]
        files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text("utf-8")]
        files = files[:1] if given.small else files
        done = subprocess.run([*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True, check=False)
        log = done.stdout + done.stderr
        return {"said": log.strip().splitlines()[-1], "exit": done.returncode, "log": log[-2000:]}

    yield "marked gpu", job


def beside_peers(attack: str) -> Callable[[Given], Parts]:
    """Seconds of ours, of torchattacks' and of as many passes alone, on the same images.

    `best` has no counterpart: it is to be read beside the two AutoAttacks, of as many images.
    """

    def parts(given: Given) -> Parts:
        subject = Subject("mnist/none", "mnist", 0.3, 2.0)
        if not given.small:
            subject = Subject("cifar10/adversarial_training", "cifar10", 8 / 255, 0.5)
        entry, images = _entry(attack, subject, small=given.small)
        yield f"{subject.name}, {images} images", lambda: _timed_beside(subject, entry, images, given.device)

    return parts


def _entry(attack: str, subject: Subject, *, small: bool) -> tuple[Entry, int]:
    """The same settings for both, and on how many images."""
    step = 2.5 * subject.linf / STEPS
    pixels = (6, 2) if small else (90, 20)  # population and generations
    of: dict[str, tuple[Norm, dict[str, Any], str, dict[str, Any], int]] = {
        "pgd": (Norm.LINF, {"steps": STEPS, "step_size": step}, "PGD", {"steps": STEPS, "alpha": step}, 1000),
        "autoattack": (Norm.LINF, {}, "AutoAttack", {}, 128),
        "best": (Norm.LINF, {}, "", {}, 128),
        "one_pixel": (
            Norm.L0,
            {"preset": "best1bin", "population": pixels[0], "generations": pixels[1]},
            "OnePixel",
            {"popsize": pixels[0], "steps": pixels[1], "inf_batch": 1024},
            32,  # theirs goes image by image
        ),
    }
    norm, ours, peer, theirs, images = of[attack]
    eps = 1 if norm is Norm.L0 else None
    return Entry(attack, norm, ours, {f"torchattacks:{peer}": theirs}, (0, 0), eps=eps), 2 if small else images


def _timed_beside(subject: Subject, entry: Entry, images: int, device: torch.device) -> Row:
    (theirs,) = entry.theirs
    comparison = Comparison(subject, entry, theirs, images)
    model = model_of(subject, str(device))
    x, y = images_of(subject.data, images, str(device))

    def ours() -> Any:
        return evaluate(model, x, y, entry.attack, comparison.threat, allow_chance=True, **entry.ours)

    verdict, seconds = timed(ours, device) if device.type == "cpu" else _after_warming_up(ours, device)
    forwards, backwards = int(verdict.forwards.sum()), int(verdict.backwards.sum())
    robust = {"ours": int(verdict.robust.sum())}
    spent = {"ours": seconds, "floor": timed(passes(model, x, y, forwards, backwards), device)[1]}
    if not theirs.endswith(":") and release("torchattacks") is not None:
        left, spent[theirs] = timed(lambda: comparison.after_theirs(model, x, y, 0), device)
        robust[theirs] = int(left.sum())
    return {
        "said": ", ".join(f"{name} {count}" for name, count in robust.items()) + f" of {images}",
        "attack": entry.attack,
        "version": find_attack(entry.attack, entry.ours).version_in(entry.norm),
        "settings": entry.ours,
        "threat": str(comparison.threat),
        "robust": robust,
        "passes": [forwards, backwards],
        "seconds": spent,
    }


def _after_warming_up(job: Job, device: torch.device) -> tuple[Any, float]:
    """The second run of two: the first pays for what a GPU sets up once."""
    job()
    return timed(job, device)


def passes(model: nn.Module, x: Tensor, y: Tensor, forwards: int, backwards: int) -> Job:
    """The floor: so many passes of images like x, in full batches and in float32, and nothing else."""

    def job() -> None:
        with as_deployed(model), full_float32():
            leaf = x[: first_batch(x.device)].contiguous(memory_format=torch.channels_last)
            labels = y[: len(leaf)]
            for _ in range(-(-(forwards - backwards) // len(leaf))):
                with torch.no_grad():
                    model(leaf)
            leaf.requires_grad_()
            for _ in range(-(-backwards // len(leaf))):
                torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)

    return job


def verdicts(architecture: str, attack: str) -> Callable[[Given], Parts]:
    """Which of all test images are robust, of weights that others published."""

    def parts(given: Given) -> Parts:
        if architecture not in given.weights:
            return
        file = given.weights[architecture]
        model = load_model(architecture, weights=file, allow_pickle=True, device=given.device)
        data = open_data("mnist", source=given.mnist, n=4 if given.small else None, device=given.device)
        size = 2 if given.small else 2000
        for first in range(0, len(data), size):
            rows = slice(first, first + size)
            yield f"{file.name} from {first}", partial(_verdict, model, data[rows], data.labels[rows], attack)

    return parts


def _verdict(model: nn.Module, x: Tensor, y: Tensor, attack: str) -> Row:
    threat = ThreatModel(Norm.LINF, 0.3)
    verdict = evaluate(model, x, y, attack, threat, allow_chance=True)
    robust = int(verdict.robust.sum())
    return {
        "said": f"{robust} of {len(x)}",
        "attack": attack,
        "version": find_attack(attack).version_in(threat.norm),
        "threat": str(threat),
        "weights": weights_digest(model),
        "clean": int(verdict.clean.sum()),
        "robust": verdict.robust.int().tolist(),
        "passes": [int(verdict.forwards.sum()), int(verdict.backwards.sum())],
        "seconds": {"ours": verdict.seconds},
    }


def training(given: Given) -> Parts:
    """PreActResNet-18 by FGSM from a random start (Wong et al. 2020), then PGD on test images."""
    name = "preact_small" if given.small else "preact_resnet18"
    plan = Schedule(epochs=15, crop=4, flip=True)
    if len(open_data("cifar10", split="train", source=given.cifar10)) < 10_000:
        plan = Schedule(epochs=15, crop=4, flip=True, validation=200, watched=200)
    if given.small:
        plan = Schedule(epochs=1, batch=8, validation=8, watched=4)

    def job() -> Row:
        n = 24 if given.small else None
        images = open_data("cifar10", split="train", source=given.cifar10, n=n, device=given.device)
        loop = TrainingLoop(images, plan, folder=given.work, progress=Progress())
        defense = find_defense("adversarial_training", {"method": "fgsm_rs", "threat": "linf:8/255"})
        draws = Draws(0, images.ids[:1]).stream("train")
        net, seconds = timed(
            lambda: defense.build(build_model(name).to(given.device), loop, draws).eval(), given.device
        )
        x, y = load_data("cifar10", n=4 if given.small else 1000, source="bundled", device=given.device)
        verdict = evaluate(net, x, y, "pgd", "linf:8/255", steps=4 if given.small else 50, allow_chance=True)
        return {
            "said": f"{100 * verdict.robust_accuracy:.1f} % of {len(x)}, clean {100 * verdict.clean_accuracy:.1f} %",
            "model": name,
            "images": len(images),
            "epochs": loop.history,
            "clean": verdict.clean_accuracy,
            "robust": verdict.robust_accuracy,
            "seconds": {"ours": seconds},
        }

    yield f"{name}, fgsm_rs, {plan.epochs} epochs", job


STAGES = (
    Stage("tests", 90, tests),
    Stage("pgd", 30, beside_peers("pgd")),
    Stage("autoattack of trades_cnn", 170, verdicts("trades_cnn", "autoattack")),
    Stage("autoattack of fast_cnn", 100, verdicts("fast_cnn", "autoattack")),
    Stage("best of trades_cnn", 40, verdicts("trades_cnn", "best")),
    Stage("best of fast_cnn", 30, verdicts("fast_cnn", "best")),
    Stage("best", 30, beside_peers("best")),
    Stage("one_pixel", 30, beside_peers("one_pixel")),
    Stage("training", 130, training),
    Stage("autoattack", 70, beside_peers("autoattack")),
)
