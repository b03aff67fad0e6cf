"""What is certain beside what attacks find: certified and robust shares, and what they cost, of the first test images.

    python -m benchmarks.bounds --threads 1 --weights fast_cnn=PATH    the zoo's networks, and those weights
    python -m benchmarks.bounds --threads 1 --only mnist/ibp --images 10000 --parts FOLDER    all test images

Lines of the table that a call does not measure stay as they are. With --parts what is found of every 500 images is kept
there, and a later call goes on from it. The true robust accuracy lies between the last method's share and "robust at
most", which is what `best` leaves. Beside the shares that auto_LiRPA 0.7.1 certifies of the same weights and images,
where these were measured.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks._comparisons import Subject, images_of, model_of
from benchmarks._timing import surroundings
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
    "cifar10/none": (("linf:1/1020",), 2, METHODS),
    "cifar10/adversarial_training": (("linf:1/255",), 2, METHODS),
    "cifar10/trades": (("linf:1/255",), 2, METHODS),
}
TOGETHER = 500  # images, of which what is found is kept
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


def line(
    subject: Subject, threat: str, count: int, methods: tuple[Method, ...] = METHODS, parts: Path | None = None
) -> list[str]:
    """One line of the table; shares in percent, seconds of processor time an image. parts: a folder, see above."""
    found: dict[str, list[float]] = {}
    for start in range(0, count, TOGETHER):
        images = slice(start, min(count, start + TOGETHER))
        name = f"{subject.name}-{threat}-{images.start}-{images.stop}.json".replace("/", "_").replace(":", "_")
        file = None if parts is None else parts / name
        if file is not None and file.exists():
            new = json.loads(file.read_text(encoding="utf-8"))
        else:
            new = part(subject, threat, images, methods)
            if file is not None:
                file.write_text(json.dumps(new), encoding="utf-8")
        for key, values in new.items():
            found[key] = found.get(key, []) + values
    bits = {key: torch.tensor(found[key]).bool() for key in found if not key.startswith("s ")}
    shares = [percent(bits[method]) if method in bits else "-" for method in METHODS]
    spent = [torch.tensor(found.get(f"s {method}", [])) for method in METHODS]
    seconds = [f"{float(each.mean()):.4f}" if len(each) else "-" for each in spent]
    theirs = AUTO_LIRPA[threat] if subject.weights is not None and subject.name.startswith("fast_cnn") else ("-", "-")
    clean, robust = percent(bits["clean"]), percent(bits["robust"])
    return [subject.name, threat, str(count), clean, *shares, robust, *seconds, *theirs]


def part(subject: Subject, threat: str, images: slice, methods: tuple[Method, ...]) -> dict[str, list[float]]:
    """Of these images: bits, and the seconds of every image that a method is asked about: what the one before left."""
    model, (x, y) = model_of(subject, "cpu"), images_of(subject.data, images.stop, "cpu")
    x, y = x[images], y[images]
    verdict = evaluate(model, x, y, "best", threat, keep_images=False)
    certain = torch.zeros(len(x), dtype=torch.bool)
    found = {"clean": verdict.clean.tolist(), "robust": verdict.robust.tolist()}
    for method in methods:
        left = (~certain).nonzero()[:, 0]
        if len(left):
            start = time.process_time()
            certain[left] = certify(model, x[left], y[left], threat, method=method).certified
            found[f"s {method}"] = [(time.process_time() - start) / len(left)] * len(left)
        if bool((certain & ~verdict.robust).any()):
            raise AssertionError(f"{subject.name}, {threat}: an image that {method} certifies was broken")
        found[method] = certain.tolist()
    return found


def percent(bits: Tensor) -> str:
    """With the decimals that so many images tell apart."""
    return f"{100 * float(bits.double().mean()):.{max(0, math.ceil(math.log10(len(bits))) - 2)}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/bounds"))
    parser.add_argument("--weights", action="append", default=[], metavar="ARCHITECTURE=PATH", help="MNIST weights")
    parser.add_argument("--images", type=int, help="the first so many test images; by default 100 of most, see ZOO")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="of the zoo's networks these")
    parser.add_argument("--parts", type=Path, help="a folder that is made, for what is done so far")
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
    if given.parts is not None:
        given.parts.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    where = ", ".join(f"{key} {value}" for key, value in surroundings(torch.device("cpu")).items())
    said = f"Shares in percent, seconds of processor time an image. {where}."
    table = given.out / "bounds.md"
    lines = measured(table)
    for subject, threat, count, methods in plan:
        new = line(subject, threat, given.images or count, methods, given.parts)
        print(*new, flush=True)
        lines[tuple(new[:3])] = new
        text = "\n".join(["# What is certified", "", said, "", markdown_table(HEADS, list(lines.values()))])
        table.write_text(f"{text}\n", encoding="utf-8")


def measured(table: Path) -> dict[tuple[str, ...], list[str]]:
    """The lines that stand there, by model, ball and number of images."""
    rows = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    return {tuple(each[:3]): each for each in cells[2:]}


if __name__ == "__main__":
    main()
