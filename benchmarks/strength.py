"""The robust accuracy under attacks, and how long they take, beside torchattacks, Foolbox, ART and pyautoattack.

Compared in slow tests instead: universal with ART's, spatial with Foolbox's, transfer with torchattacks'. Compared
with nobody: adba, nes and sparse_l1, which none of these has, and patch, for which ART needs torchvision. Nor do they
have sparse_autoattack: it stands beside our own sparse_rs of as many passes.

    python -m benchmarks.strength                        everything, some hours on a CPU: stop and go on at will
    python -m benchmarks.strength --only "apgd* mnist*"  what is named so
    python -m benchmarks.strength --images 300 --only "cw* mnist*"   on more images than a hundred, where it is cheap
    python -m benchmarks.strength --weights trades_cnn=PATH --weights fast_cnn=PATH --autoattack 1000
    python -m benchmarks.strength --full --weights trades_cnn=PATH    AutoAttack on all 10,000 MNIST test images

Same model, images and settings in one process, ours and theirs in turn. Each comparison is written as it ends, to
strength.jsonl; the same command leaves out what is there. AutoAttack on many images is one pair of runs, kept after
every hundred images in parts.jsonl. Ours is the whole verdict, with pre-flight checks, judging
and rounding; theirs is the attack alone, called as its own users would. An image is broken if it was misclassified
before, or if what the attack gave back is, within the ball. A pair of runs has a seed of its own.

We are behind where we leave more images robust by over half a point and by over two standard deviations of luck. That
is the luck of paired samples: the root of the summed squares of differences per image, each the mean over its pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks._comparisons import AUTOATTACK, UNDEFENDED, ZOO, Comparison, entries, others
from benchmarks._kept import Row, keep, kept
from benchmarks._peers import release
from robustbench_local.models.zoo import zoo_names
from robustbench_local.report.markdown import markdown_table

ALLOWED = 0.5  # points of robust accuracy that we may leave above a peer
WHOLE = 10_000  # images of the MNIST test set


def behind(row: Row) -> bool:
    return bool(row["difference"] > max(ALLOWED, 2 * row["luck"]))


def comparisons(given: argparse.Namespace, say: Callable[[str], None]) -> Iterator[Comparison]:
    reference = others(given.weights)
    zoo = [] if given.full else [subject for subject in ZOO if subject.name in zoo_names()]
    packages = {name.partition(":")[0] for entry in [*entries(0.1), AUTOATTACK] for name in entry.theirs}
    for package in sorted(name for name in packages if release(name) is None):
        say(f"{package} is not installed: left out")
        packages.remove(package)
    lines = zip(*(entries(subject.linf) for subject in zoo), strict=True)
    listed = [(subject, entry) for line in lines for subject, entry in zip(zoo, line, strict=True)]
    size = WHOLE if given.full else given.autoattack
    last = AUTOATTACK._replace(images=(size, size))
    undefended = [subject for subject in UNDEFENDED if zoo and subject.name in zoo_names()]
    for subject, entry in listed + [(subject, last) for subject in [*zoo, *undefended, *reference]]:
        images = entry.images[subject.data == "cifar10"]
        if entry.attack != "autoattack":
            images = min(images, given.images)
        for theirs in entry.theirs:
            comparison = Comparison(subject, entry, theirs, images)
            words = [f"*{word}*" for word in given.only.split()]
            if images and theirs.partition(":")[0] in packages and all(fnmatch(comparison.name, w) for w in words):
                yield comparison


HEADS = (
    "attack",
    "model",
    "ball",
    "beside",
    "images",
    "robust, ours",
    "theirs",
    "points",
    "2 sd",
    "time, ours / theirs",
    "spread",
    "",
)


def cells(row: Row) -> list[str]:
    what = row["what"]
    ratios = [ours / theirs for ours, theirs in zip(*row["seconds"], strict=True)]
    settings = ", ".join(f"{name} {spelt(value)}" for name, value in what["settings"].items())
    return [
        what["attack"] + (f" ({settings})" if settings else ""),
        what["subject"],
        what["threat"],
        what["peer"],
        str(what["images"]),
        *(f"{share:.1f}" for share in row["robust_accuracy"]),
        f"{row['difference']:+.1f}",
        f"{2 * row['luck']:.1f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else "one pair",
        "behind" if behind(row) else "",
    ]


def spelt(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def disagreements(row: Row) -> str:
    ours, theirs = (", ".join(map(str, row[key])) or "none" for key in ("more_after_ours", "more_after_theirs"))
    what = row["what"]
    return f"{what['subject']}, {what['images']} images: more often after ours {ours}; more often after theirs {theirs}"


def newest(rows: Sequence[Row]) -> list[Row]:
    """Without the rows that a later version of the same attack has been measured against again."""
    last = {json.dumps(row["what"] | {"version": 0}): row["what"]["version"] for row in rows}
    return [row for row in rows if row["what"]["version"] == last[json.dumps(row["what"] | {"version": 0})]]


def markdown(rows: Sequence[Row]) -> str:
    lines = ["# Strength and time beside peers", "", "Robust accuracy in percent; lower is stronger.", ""]
    for row in rows:
        line = ", ".join(f"{name}: {row[name]}" for name in ("hardware", "threads", "torch", "python"))
        if line not in lines:
            lines.append(line)
    lines += ["", markdown_table(HEADS, map(cells, rows))]
    full = [row for row in rows if row["what"]["attack"] == "autoattack"]
    lines += ["", "Images that AutoAttack and pyautoattack disagree on:", ""]
    lines += [f"- {disagreements(row)}" for row in full]
    if not any(row["what"]["images"] == WHOLE for row in full):
        lines += [
            "",
            "AutoAttack on all 10,000 test images: not run, so unverified. The command is",
            "`python -m benchmarks.strength --full --weights trades_cnn=PATH --weights fast_cnn=PATH`;",
            "published: 92.81 and 82.93 (allowed: 0.2 and 0.3 points).",
        ]
    if not any(row["what"]["attack"] == "one_pixel" and "NVIDIA" in row["hardware"] for row in rows):
        lines += [
            "",
            "One-pixel at 0.02 of torchattacks' time on a GPU: not run, so unverified. The command is",
            "`python -m benchmarks.strength --only one_pixel --autoattack 0 --device cuda --out FOLDER`.",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/strength"))
    parser.add_argument("--only", default="", help='words that "attack model package:Class" must hold; * is any')
    parser.add_argument("--images", type=int, default=100, help="at most so many per comparison (AutoAttack apart)")
    parser.add_argument("--autoattack", type=int, default=100, metavar="N", help="images for AutoAttack; 0: without")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="ARCHITECTURE=PATH",
        help="MNIST weights for AutoAttack at linf:0.3 (a pickle of tensors or safetensors)",
    )
    parser.add_argument("--full", action="store_true", help="AutoAttack of the --weights on all 10,000 images, only")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs, at most")
    parser.add_argument("--seconds", type=float, default=60, help="no further pair once so many are spent")
    parser.add_argument("--threads", type=int, help="CPU threads, torch's choice if not given; 1: CPU time")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args(arguments)
    for name, low in (("images", 1), ("autoattack", 0), ("pairs", 1)):
        if getattr(given, name) < low:
            parser.error(f"--{name} is {getattr(given, name)}: it must be at least {low}")
    if wrong := [text for text in given.weights if not text.partition("=")[2]]:
        parser.error(f"--weights {wrong[0]}: write ARCHITECTURE=PATH, as trades_cnn=weights.pt")
    if given.full and not given.weights:
        parser.error("--full attacks the weights that --weights names: give one")
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    console = Console()
    say = partial(console.print, highlight=False, markup=False)
    file = given.out / "strength.jsonl"
    given.out.mkdir(parents=True, exist_ok=True)
    done, failed = [row["what"] for row in kept(file)], []
    try:
        for comparison in comparisons(given, say):
            if comparison.what in done:
                continue
            say(f"{comparison.name}, {comparison.threat}, {comparison.images} images ...")
            try:
                row = comparison.run(given.pairs, given.seconds, given.device, given.out / "parts.jsonl")
            except Exception as error:  # a peer may fail in any way; the others are still to be compared with
                failed.append(f"{comparison.name}: {type(error).__name__}: {error}")
                say(f"  failed: {failed[-1]}")
                continue
            keep(file, row)
            ours, theirs, points, _, ratio = cells(row)[5:10]
            say(f"  robust {ours} % beside {theirs} ({points} points), time ratio {ratio}")
    except KeyboardInterrupt:
        say("stopped: the same command goes on from here")
    rows = newest(kept(file))
    (given.out / "strength.md").write_text(markdown(rows), encoding="utf-8")
    if not console.is_terminal:
        console.width = 180
    table = Table(*HEADS)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    for line in [*(disagreements(row) for row in rows if row["what"]["attack"] == "autoattack"), *failed]:
        say(line)


if __name__ == "__main__":
    main()
