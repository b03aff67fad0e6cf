"""What `status` prints."""

from __future__ import annotations

import json
import time
from pathlib import Path

from robustbench_local.cli.output import wrapped
from robustbench_local.grids.status import AtWork, Status

_FEW = 10  # cells that are named, of those left


def show(status: Status, folder: Path, *, as_json: bool, every: bool = False) -> None:
    """every: all of the cells that are left by name."""
    print(json.dumps(_plain(status, folder)) if as_json else _text(status, folder, every), flush=True)


def _text(status: Status, folder: Path, every: bool) -> str:
    few = len(status.left) if every else _FEW
    lines = [wrapped(f"{folder}: {status.done} of {status.cells} cells done" + _rest(status))]
    if status.left and not any(not each.gone for each in status.at_work):
        lines.append("nobody is at work: the same command goes on")
    if status.at_work:
        lines.append("running:")
        lines += [wrapped(_at_work(each), "  ") for each in status.at_work]
    if status.failed:
        lines.append("failed:")
        lines += [wrapped(f"{label}: {why}", "  ") for label, why in status.failed]
    if status.left:
        lines.append("left:")
        lines += [wrapped(label, "  ") for label in status.left[:few]]
        lines += [f"  and {len(status.left) - few} more: -v names them"] if len(status.left) > few else []
    return "\n".join(lines)


def _rest(status: Status) -> str:
    parts = [f"{len(status.failed)} failed"] if status.failed else []
    parts += [f"{len(status.left)} left"] if status.left else []
    if status.left and status.seconds_left is not None:
        parts.append(f"about {spelt(status.seconds_left)} to go")
    return "".join(f", {part}" for part in parts)


def _at_work(each: AtWork) -> str:
    if each.gone:
        return f"{each.label}: left by {each.owner}, which is gone; the next worker takes it over"
    share = "" if each.share is None else f", {100 * each.share:.0f} %"
    return f"{each.label}: {each.owner}, for {spelt(max(0.0, time.time() - each.since))}{share}"


def spelt(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plain(status: Status, folder: Path) -> dict[str, object]:
    return {
        "folder": str(folder),
        "cells": status.cells,
        "done": status.done,
        "failed": [{"cell": label, "why": why} for label, why in status.failed],
        "running": [
            {
                "cell": each.label,
                "host": each.owner.host,
                "process": each.owner.process,
                "since": each.since,
                "share": each.share,
                "gone": each.gone,
            }
            for each in status.at_work
        ],
        "left": list(status.left),
        "share": status.share,
        "seconds_left": status.seconds_left,
    }
