"""What is certain beside what attacks find: certified and robust shares, and what they cost, of the first test images.

    python -m benchmarks.bounds --threads 1 --weights fast_cnn=PATH    the zoo's networks, and those weights

The true robust accuracy lies between the last method's share and "robust at most", which is what `best` leaves. Beside
the shares that auto_LiRPA 0.7.1 certifies of the same weights and images, where these were measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks._comparisons import Subject, images_of, model_of
from benchmarks._timing import surroundings, timed
from robustbench_local.bounds.certify import certify
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.report.markdown import markdown_table

# percent of 100 by auto_LiRPA of fast_mnist_fgsm.pth: (IBP, CROWN); in L2 without the box
AUTO_LIRPA = {
    "linf:0.02": ("2", "100"),
    "linf:0.05": ("0", "97"),
    "linf:0.1": ("0", "92"),
    "linf:0.3": ("0", "0"),
    "l2:0.3": ("-", "64"),
}
Method = Literal["ibp", "crown"]
METHODS: tuple[Method, ...] = ("ibp", "crown")
WEIGHTS = ("linf:0.02", "linf:0.05", "linf:0.1", "linf:0.3", "l2:0.3")
# of the zoo: in which balls, how many images, by what; more of a network that intervals certify, which are fast
ZOO: dict[str, tuple[tuple[str, ...], int, tuple[Method, ...]]] = {
    "mnist/none": (("linf:0.02", "linf:0.1"), 100, METHODS),
    "mnist/adversarial_training": (("linf:0.02", "linf:0.1"), 100, METHODS),
    "mnist/trades": (("linf:0.02", "linf:0.1"), 100, METHODS),
    "mnist/ibp": (("linf:0.1", "linf:0.3"), 1000, ("ibp",)),
    "cifar10/ibp": (("linf:2/255",), 100, METHODS),
}
HEADS = (
    "model",
    "ball",
    "images",
    "clean",
    "ibp",
    "crown",
    "robust at most",
    "s ibp",
    "s crown",
    "auto_LiRPA ibp",
    "crown",
)


def line(subject: Subject, threat: str, count: int, methods: tuple[Method, ...] = METHODS) -> list[str]:
    """One line of the table; shares in percent, seconds an image. A method is asked about what the one before left."""
    model, (x, y) = model_of(subject, "cpu"), images_of(subject.data, count, "cpu")
    verdict = evaluate(model, x, y, "best", threat, keep_images=False)
    certain = torch.zeros(count, dtype=torch.bool)
    shares, seconds = dict.fromkeys(METHODS, "-"), dict.fromkeys(METHODS, "-")
    for method in methods:
        left = (~certain).nonzero()[:, 0]
        found, spent = timed(partial(certify, model, x[left], y[left], threat, method=method), x.device)
        certain[left] = found.certified
        if bool((certain & ~verdict.robust).any()):
            raise AssertionError(f"{subject.name}, {threat}: an image that {method} certifies was broken")
        shares[method], seconds[method] = percent(certain), f"{spent / len(left):.4f}"
        if bool(certain.all()):
            break
    theirs = AUTO_LIRPA[threat] if subject.weights is not None and subject.name.startswith("fast_cnn") else ("-", "-")
    clean, robust = percent(verdict.clean), percent(verdict.robust)
    return [subject.name, threat, str(count), clean, *shares.values(), robust, *seconds.values(), *theirs]


def percent(bits: Tensor) -> str:
    """With the decimals that so many images tell apart."""
    return f"{100 * float(bits.double().mean()):.{max(0, math.ceil(math.log10(len(bits))) - 2)}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/bounds"))
    parser.add_argument("--weights", action="append", default=[], metavar="ARCHITECTURE=PATH", help="MNIST weights")
    parser.add_argument("--images", type=int, help="the first so many test images; by default 100 of most, see ZOO")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="of the zoo's networks these")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice where not given")
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    named = (text.partition("=") for text in given.weights)
    files = [Subject(f"{name}={Path(path).name}", "mnist", 0.3, 2.0, Path(path)) for name, _, path in named]
    plan = [(subject, threat, 100, METHODS) for subject in files for threat in WEIGHTS]
    for name in given.only or ZOO:
        threats, count, methods = ZOO[name]
        plan += [(Subject(name, name.partition("/")[0], 0.1, 1.5), threat, count, methods) for threat in threats]
    lines = []
    for subject, threat, count, methods in plan:
        lines.append(line(subject, threat, given.images or count, methods))
        print(*lines[-1], flush=True)
    where = ", ".join(f"{key} {value}" for key, value in surroundings(torch.device("cpu")).items())
    text = "\n".join(
        ["# What is certified", "", f"Shares in percent, seconds an image. {where}.", "", markdown_table(HEADS, lines)]
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "bounds.md").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
