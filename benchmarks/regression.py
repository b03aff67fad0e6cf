"""Whether a regression check errs as seldom as it says: on unchanged models, on worse ones, and where it must be shown.

    python -m benchmarks.regression                  everything, about an hour on one CPU core: stop and go on at will
    python -m benchmarks.regression --only reruns    unchanged models, checked again and again
    python -m benchmarks.regression --only draws     worse models, checked on images drawn again and again
    python -m benchmarks.regression --only table     the tables alone

Every re-run and every draw goes through the functions that pytest's fixture goes through; they are kept in reruns.jsonl
(packed in the end) and draws.jsonl, of which table.md and table.json are made.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks._kept import keep, kept, pack
from benchmarks._regression_draws import PAIRS, Pair, attacked, enough, shares_of, simulated
from benchmarks._regression_reruns import BEFORE, CASES, Case, reruns
from benchmarks._regression_table import figures, markdown
from benchmarks._timing import surroundings
from robustbench_local.storage.files import whole_file

TIMES = 1000
LARGE = 500  # images


def rerun(case: Case, file: Path, times: int) -> None:
    """Its re-runs, but those that are kept."""
    key = case.key
    done = [row for row in kept(file) if row["case"] == key and "seed" in row]
    if len(done) < times:
        keep(file, {"case": key, "what": case.what} | surroundings(torch.device("cpu")))
        for row in reruns(case, BEFORE + len(done), BEFORE + times):
            keep(file, row)


def draw(pair: Pair, file: Path, times: int) -> None:
    """Its draws, of many images and of as many as are enough, but those that are kept."""
    own = {"pair": pair.key}
    rows = [row for row in kept(file) if row["pair"] == own["pair"]]
    bits = next((row for row in rows if "first" in row), None)
    if bits is None:
        bits = own | attacked(pair)
        keep(file, own | {"what": pair.what} | surroundings(torch.device("cpu")))
        keep(file, bits)
    first, second = shares_of(pair, bits)
    done = {(row["n"], row["times"]) for row in rows if "caught" in row}
    for n in sorted({enough(first, second), LARGE}):
        if (n, times) not in done:
            keep(file, own | simulated(pair, first, second, n, times))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/regression"))
    parser.add_argument("--only", choices=("reruns", "draws", "table"))
    parser.add_argument("--times", type=int, default=TIMES, help="how often each is checked")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only in (None, "reruns"):
        for case in CASES:
            rerun(case, given.out / "reruns.jsonl", given.times)
        pack(given.out / "reruns.jsonl")
    if given.only in (None, "draws"):
        for pair in PAIRS:
            draw(pair, given.out / "draws.jsonl", given.times)
    found = figures(kept(given.out / "reruns.jsonl"), kept(given.out / "draws.jsonl"))
    text = json.dumps(found, indent=1) + "\n"
    for name, content in (("table.json", text), ("table.md", markdown(found))):
        with whole_file(given.out / name) as out:
            out.write(content.encode())


if __name__ == "__main__":
    main()
