"""What opening a folder of photographs takes: seconds to decode it, by one worker and by two, and memory.

    python -m benchmarks.photographs --count 2000 --json photographs.json

Made-up pictures of 240 to 800 pixels a side in five formats are opened at 224 pixels in a fresh process, with an empty
cache and with a full one, and read once in batches of 64. Memory is the peak above what the imports took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks._photographs import make_photographs
from benchmarks._timing import surroundings
from robustbench_local.data.load import open_data
from robustbench_local.storage.cache_folder import CACHE_VARIABLE

BATCH = 64


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    # what a fresh process is told
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(opened(options.one, options.workers)))
        return
    found = measured(options.count)
    table = Table("workers", "cache", "seconds to open", "seconds to read", "peak MB above import")
    for each in found:
        table.add_row(*(str(each[name]) for name in ("workers", "cache", "open", "read", "peak_mb")))
    Console().print(table)
    if options.json:
        options.json.write_text(
            json.dumps({"count": options.count, "runs": found, **surroundings(torch.device("cpu"))}, indent=1) + "\n"
        )


def measured(count: int) -> list[dict[str, Any]]:
    """One dict for each number of workers, with an empty cache and with a full one."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        make_photographs(photographs, count, classes=10, smallest=240, largest=800)
        for workers in (1, 2):
            environment = os.environ | {CACHE_VARIABLE: f"{folder}/cache{workers}"}
            command = [sys.executable, "-m", "benchmarks.photographs", "--one", str(photographs)]
            for cache in ("empty", "full"):
                done = subprocess.run(
                    [*command, "--workers", str(workers)], env=environment, stdout=subprocess.PIPE, check=True
                )
                found.append({"workers": workers, "cache": cache, **json.loads(done.stdout)})
    return found


def opened(photographs: Path, workers: int) -> dict[str, Any]:
    """Open and read the folder in this process, on so many of its CPUs."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    before = _peak()
    started = time.perf_counter()
    images = open_data(f"folder:{photographs}", resize=256, crop=224)
    middle = time.perf_counter()
    brightness = sum(float(images[start : start + BATCH].sum()) for start in range(0, len(images), BATCH))
    ended = time.perf_counter()
    return {
        "open": round(middle - started, 1),
        "read": round(ended - middle, 1),
        "peak_mb": round((_peak() - before) / 1e6),
        "images": len(images),
        "digest": images.digest,
        "brightness": round(brightness / len(images) / images[:1].numel(), 3),
    }


def _peak() -> int:
    """Bytes: the most that this process had in memory so far (getrusage would count its parent's as well)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
