"""CIFAR-10-C's fifteen beside imagecorruptions: microseconds per image, and the ratio of throughputs.

    python -m benchmarks.corruption_speed --images 10000 --theirs 100 --runs 3
    python -m benchmarks.corruption_speed --clock cpu --threads 1        # where other work shares the cores

Ours take all images at once, theirs one after another, as that package works; times are per image, medians over
runs in turn in one process, on --threads threads. The clock is the wall's, or the time that the process had a CPU: that
ratio is of throughputs where both packages may use every core. imagecorruptions has ImageNet-C's constants, which are
stronger: its time is compared, not its images. It is of 2020 and asks for things that NumPy, SciPy and scikit-image
have dropped since, which are put back for it here; glass_blur could use numba there, and does not here.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks._timing import surroundings
from robustbench_local.attacks.corruptions._papers import CIFAR_10_C
from robustbench_local.config.plugins import ATTACKS, find_attack, listing
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws
from robustbench_local.data.load import load_data

CPU = torch.device("cpu")
TARGET = 20  # times the peer's throughput, for the median corruption


def fifteen(severity: int) -> dict[str, Corruption]:
    """CIFAR-10-C's, by name."""
    names = [row.name for row in listing(ATTACKS) if row.norms == ("none",) and "severity" in row.settings]
    found = {name: find_attack(name, {"severity": severity}) for name in names}
    return {
        name: attack
        for name, attack in found.items()
        if isinstance(attack, Corruption) and attack.benchmark == CIFAR_10_C
    }


def peer() -> Any:
    """imagecorruptions.corrupt, or None where it is not installed."""
    import scipy.ndimage
    import skimage.filters

    blur = skimage.filters.gaussian

    def gaussian(image: Any, *arguments: Any, multichannel: bool = False, **settings: Any) -> Any:
        return blur(image, *arguments, channel_axis=-1 if multichannel else None, **settings)

    resources: Any = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda package, name: str(Path(sys.modules[package].__file__ or "").parent / name)
    sys.modules.setdefault("pkg_resources", resources)
    sys.modules.setdefault("scipy.ndimage.interpolation", scipy.ndimage)
    np.float_ = np.float64  # type: ignore[attr-defined]
    skimage.filters.gaussian = gaussian
    try:
        return importlib.import_module("imagecorruptions").corrupt
    except ModuleNotFoundError:
        return None
    finally:
        skimage.filters.gaussian = blur


def main() -> None:
    parser = argparse.ArgumentParser(description="Time CIFAR-10-C's fifteen beside imagecorruptions.")
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--theirs", type=int, default=100, help="how many of them the peer is given")
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only", nargs="+", help="some of the fifteen")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    some, _ = load_data("cifar10", n=min(1000, arguments.images), source="bundled")
    x = some.repeat(-(-arguments.images // len(some)), 1, 1, 1)[: arguments.images]
    draws = Draws(0, torch.arange(len(x)))
    levels = (some[: arguments.theirs] * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    corrupt = peer()
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    table = Table("corruption", "ours, µs per image", "imagecorruptions", "times its throughput")
    ratios = []

    def timed(job: Callable[[], object]) -> float:
        started = clock()
        job()
        return clock() - started

    for name, corruption in fifteen(arguments.severity).items():
        if arguments.only and name not in arguments.only:
            continue

        def ours(corruption: Corruption = corruption) -> object:
            return corruption.apply(x, draws)

        def theirs(name: str = name) -> None:
            for image in levels:
                if corrupt:
                    corrupt(image, severity=arguments.severity, corruption_name=name)

        ours()  # the first run pays for what is set up once
        times = [(timed(ours) / len(x), timed(theirs) / len(levels)) for _ in range(arguments.runs)]
        mine, other = (statistics.median(column) * 1e6 for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        ratios.append(ratio)
        table.add_row(name, f"{mine:.1f}", *([f"{other:.0f}", f"{ratio:.1f}"] if corrupt else ["-", "-"]))
        print(f"{name}: {mine:.1f} µs per image, theirs {other:.0f}", file=sys.stderr, flush=True)
    about = ", ".join(f"{key} {value}" for key, value in surroundings(CPU).items())
    console = Console(width=120)
    console.print(table)
    console.print(f"{len(x)} images, severity {arguments.severity}, {arguments.clock} clock; {about}")
    if corrupt:
        console.print(f"median: {statistics.median(ratios):.1f} times its throughput (wanted: {TARGET})")


if __name__ == "__main__":
    main()
