"""What each method of bounds certifies beyond the one before it, and what that costs: the first MNIST test images.

    python -m benchmarks.bound_methods --threads 1 --weights fast_cnn=PATH    the table of docs/bounds.md

A dearer method is given the images that no cheaper one certified; its seconds hold theirs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks._comparisons import Subject, images_of, model_of
from benchmarks._timing import surroundings
from robustbench_local.bounds.certify import certify
from robustbench_local.core.bound_methods import METHODS
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.report.markdown import markdown_table

THREATS = ("linf:0.1", "linf:0.15", "linf:0.2")
HEADS = ("ball", "images", *METHODS, "robust at most", *(f"s {method}" for method in METHODS))


def line(subject: Subject, threat: str, count: int, seconds: float) -> list[str]:
    """One line of the table; shares in percent, seconds of processor time an image."""
    model, (x, y) = model_of(subject, "cpu"), images_of(subject.data, count, "cpu")
    robust = evaluate(model, x, y, "best", threat, keep_images=False).robust
    certified = torch.zeros(count, dtype=torch.bool)
    shares, costs, start = [], [], time.process_time()
    for method in METHODS:
        left = (~certified).nonzero()[:, 0]
        if len(left):
            certified[left] = certify(model, x[left], y[left], threat, method=method, seconds=seconds).certified
        costs.append(f"{(time.process_time() - start) / count:.3f}")
        shares.append(f"{100 * float(certified.double().mean()):.0f}")
    if bool((certified & ~robust).any()):
        raise AssertionError(f"{subject.name}, {threat}: an image that is certified was broken")
    return [threat, str(count), *shares, f"{100 * float(robust.double().mean()):.0f}", *costs]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/bounds"))
    parser.add_argument("--weights", required=True, metavar="ARCHITECTURE=PATH", help="MNIST weights")
    parser.add_argument("--images", type=int, default=100, help="the first so many test images")
    parser.add_argument("--seconds", type=float, default=10.0, help="of branch and bound for an image")
    parser.add_argument("--threats", nargs="+", default=THREATS, help="balls")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice where not given")
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    name, _, path = given.weights.partition("=")
    subject = Subject(f"{name}={Path(path).name}", "mnist", 0.3, 2.0, Path(path))
    lines: list[list[str]] = []
    where = ", ".join(f"{key} {value}" for key, value in surroundings(torch.device("cpu")).items())
    said = (
        f"{subject.name}. Shares in percent, seconds of processor time an image; branch and bound {given.seconds:g} s."
    )
    given.out.mkdir(parents=True, exist_ok=True)
    for threat in given.threats:
        lines.append(line(subject, threat, given.images, given.seconds))
        print(*lines[-1], flush=True)
        text = "\n".join(["# What each method certifies", "", f"{said} {where}.", "", markdown_table(HEADS, lines)])
        (given.out / "methods.md").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
