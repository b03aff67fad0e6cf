"""All that only a GPU can show, in twelve minutes on a machine without a network.

    python -m benchmarks.gpu --out $OUT --weights trades_cnn=PATH --weights fast_cnn=PATH --mnist cache
    python -m benchmarks.gpu --small --device cpu --out FOLDER       the rehearsal: tiny sizes, seconds

Tests marked gpu; PGD, AutoAttack, `best` and one-pixel beside torchattacks and the floor (as many passes of the model,
and nothing else); which of MNIST's test images are robust, of the two reference weights; a PreActResNet-18 trained by
fgsm_rs. Every part is a line of gpu.jsonl as soon as it ends, with the card's name; gpu.md is the table of all lines.
A stage that takes longer than its share is cut off, and loses the part in flight. The same command goes on from there.

On a bare machine `python -m pip install --no-index --no-deps --no-build-isolation -e .` comes first, for plug-ins are
found by what is installed. It needs torch, numpy, scipy, pillow, safetensors, rich and pytest there, and torchattacks
with tqdm as wheels; without those two the comparison is with the floor alone. Without folders the bundled images serve.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks._gpu_stages import STAGES, Given, Stage
from benchmarks._kept import Row, keep, kept
from benchmarks._timing import surroundings
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.device import pick_device, release_memory
from robustbench_local.core.errors import RobustBenchError
from robustbench_local.report.markdown import markdown_table

LEAST = 5.0  # seconds under which no stage is begun


class OutOfTime(BaseException):
    """No Exception, so that nobody takes it for a fault of a model or an attack."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """OutOfTime is raised inside when they are over."""

    def end(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(stage: Stage, given: Given, file: Path, seconds: float) -> str:
    """Its parts that are not kept yet -> what became of it, in words."""
    where = surroundings(given.device) | {"small": given.small}
    done = {row["part"] for row in kept(file) if row["stage"] == stage.name and row["where"] == where}
    started, made = time.monotonic(), 0
    try:
        with within(seconds):
            for part, job in stage.parts(given):
                if part in done:
                    continue
                row = {"stage": stage.name, "part": part, "where": where} | job()
                keep(file, row)
                made += 1
    except BaseException as error:  # one stage's end, whatever it is, is not another's
        if isinstance(error, KeyboardInterrupt):
            raise
        if time.monotonic() - started >= seconds:
            return f"cut off after {seconds:.0f} s, {made} parts made"
        return f"failed: {type(error).__name__}: {error}"
    return f"{made} parts made, {len(done)} were there, {time.monotonic() - started:.1f} s"


HEADS = ("stage", "part", "robust", "passes", "seconds", "card")


def line(row: Row) -> list[str]:
    passes = " + ".join(f"{count:,}" for count in row.get("passes", ()))
    seconds = ", ".join(f"{name} {spent:.2f}" for name, spent in row.get("seconds", {}).items())
    return [row["stage"], row["part"], row["said"], passes, seconds, row["where"]["hardware"]]


def markdown(rows: Sequence[Row]) -> str:
    about = "`python -m benchmarks.gpu`: robust images; passes are forwards + backwards; floor: those passes alone."
    return "\n".join(["# On a GPU", "", about, "", markdown_table(HEADS, map(line, rows))]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gpu"))
    parser.add_argument(
        "--weights", action="append", default=[], metavar="ARCHITECTURE=PATH", help="trades_cnn, fast_cnn"
    )
    parser.add_argument("--mnist", default="bundled", metavar="FOLDER", help="with the 10,000 test images, or cache")
    parser.add_argument("--cifar10", default="bundled", metavar="FOLDER", help="with the training images, or cache")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "benchmarks-gpu", help="for drafts of training"
    )
    parser.add_argument("--seconds", type=float, default=700, help="for all stages together")
    parser.add_argument(
        "--only", nargs="+", choices=[stage.name for stage in STAGES], metavar="STAGE", help="these stages"
    )
    parser.add_argument("--device", default="cuda", help="where it runs; cpu for a rehearsal")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    given = parser.parse_args(arguments)
    if wrong := [text for text in given.weights if not text.partition("=")[2]]:
        parser.error(f"--weights {wrong[0]}: write ARCHITECTURE=PATH, as trades_cnn=weights.pt")
    weights = {name: Path(path) for name, _, path in (text.partition("=") for text in given.weights)}
    try:
        device = pick_device(given.device)
        find_attack("pgd")  # or an error that says how to install the plug-ins
    except RobustBenchError as error:
        parser.error(str(error))
    given.out.mkdir(parents=True, exist_ok=True)
    given.work.mkdir(parents=True, exist_ok=True)
    mnist, cifar10 = (None if place == "cache" else place for place in (given.mnist, given.cifar10))
    own = Given(device, weights, mnist, cifar10, given.work, given.small)
    file, end = given.out / "gpu.jsonl", time.monotonic() + given.seconds
    for stage in STAGES:
        left = end - time.monotonic()
        if given.only and stage.name not in given.only:
            continue
        said = "not begun: no time is left" if left < LEAST else run(stage, own, file, min(stage.seconds, left))
        print(f"{stage.name}: {said}", flush=True)
        (given.out / "gpu.md").write_text(markdown(kept(file)), encoding="utf-8")
        release_memory(device)


if __name__ == "__main__":
    main()
