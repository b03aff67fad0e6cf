"""What is certain beside what attacks find: certified and robust shares, and what they cost, of the first MNIST images.

    python -m benchmarks.bounds --threads 1 --weights fast_cnn=PATH    the zoo's networks, and those weights

Beside the shares that auto_LiRPA 0.7.1 certifies of the same weights and images, where these were measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from benchmarks._comparisons import Subject, images_of, model_of
from benchmarks._timing import surroundings, timed
from robustbench_local.bounds.certify import certify
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.report.markdown import markdown_table

ZOO = ("mnist/none", "mnist/adversarial_training", "mnist/trades")
THREATS = {"fast_cnn": ("linf:0.02", "linf:0.05", "linf:0.1", "linf:0.3", "l2:0.3"), "zoo": ("linf:0.02", "linf:0.1")}
# percent of 100 by auto_LiRPA of fast_mnist_fgsm.pth: (IBP, CROWN); in L2 without the box
AUTO_LIRPA = {
    "linf:0.02": ("2", "100"),
    "linf:0.05": ("0", "97"),
    "linf:0.1": ("0", "92"),
    "linf:0.3": ("0", "0"),
    "l2:0.3": ("-", "64"),
}
METHODS: tuple[Literal["ibp", "crown"], ...] = ("ibp", "crown")
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


def line(subject: Subject, threat: str, count: int) -> list[str]:
    """One line of the table; shares in percent, seconds an image."""
    model, (x, y) = model_of(subject, "cpu"), images_of(subject.data, count, "cpu")
    verdict = evaluate(model, x, y, "best", threat, keep_images=False)
    shares, seconds = [], []
    for method in METHODS:
        found, spent = timed(partial(certify, model, x, y, threat, method=method), x.device)
        if bool((found.certified & ~verdict.robust).any()):
            raise AssertionError(f"{subject.name}, {threat}: an image that {method} certifies was broken")
        shares.append(f"{100 * float(found.certified.double().mean()):.0f}")
        seconds.append(f"{spent / count:.4f}")
    theirs = AUTO_LIRPA[threat] if subject.weights is not None and subject.name.startswith("fast_cnn") else ("-", "-")
    clean, robust = (100 * float(bits.double().mean()) for bits in (verdict.clean, verdict.robust))
    return [subject.name, threat, str(count), f"{clean:.0f}", *shares, f"{robust:.0f}", *seconds, *theirs]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/bounds"))
    parser.add_argument("--weights", action="append", default=[], metavar="ARCHITECTURE=PATH", help="MNIST weights")
    parser.add_argument("--images", type=int, default=100, help="the first so many test images")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice where not given")
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    named = (text.partition("=") for text in given.weights)
    files = [Subject(f"{name}={Path(path).name}", "mnist", 0.3, 2.0, Path(path)) for name, _, path in named]
    lines = []
    for subject in [*files, *(Subject(name, "mnist", 0.1, 1.5) for name in ZOO)]:
        for threat in THREATS["fast_cnn" if subject.weights is not None else "zoo"]:
            lines.append(line(subject, threat, given.images))
            print(*lines[-1], flush=True)
    where = ", ".join(f"{key} {value}" for key, value in surroundings(torch.device("cpu")).items())
    text = "\n".join(
        ["# What is certified", "", f"Shares in percent, seconds an image. {where}.", "", markdown_table(HEADS, lines)]
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "bounds.md").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
