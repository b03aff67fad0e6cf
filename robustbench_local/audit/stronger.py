"""The attacks that are tried where others may have been too weak, on how many images, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustbench_local.core.threat import Norm

STRONGER = "best"  # margin climbs, then random search by scores: what weak or masked gradients miss
BLIND: tuple[str, Mapping[str, Any]] = "square", {"steps": 1000}  # where that one cannot run, without gradients
LABELS: tuple[str, Mapping[str, Any]] = "hopskipjump", {"steps": 20}  # where there are no scores either
EFFORT = 0.35  # from here on it walks beside its climbs in L1 and L2, without which masked gradients stop it
# images looked at, and tried in all, of a fixed and of a random model, whose queries are averaged
LOOK = {False: 20, True: 10}
WHOLE = {False: 100, True: 20}
MANY = 0.1  # of those looked at: good attacks leave some that a better one breaks

SHARE = 0.08  # of the passes of the rows that are audited: a fifth of their time, for small batches are slower
FEW = 12  # images at once take as long as fewer would
NEAR = 0.5  # of the budget for the images, of all, that were nearest to a success
LEAST = 4  # of a random model, where the budget is not enough for more; as long as some fall it goes on
DRAWN = 3  # draws per query of it, at least: with two or one many fewer fall where there is much noise
WORTH = 0.25  # of a few of these have to fall for the next to be tried
# queries of an image are allowed at least: two climbs of the stronger attack; in L1 and L2 all, and a walk after them,
# without which masked gradients stop it
SHORTEST = {Norm.LINF: 50, Norm.L2: 350, Norm.L1: 350}


def in_words(name: str, settings: Mapping[str, Any]) -> str:
    if name == STRONGER:
        return name
    return f"{name} with {settings['steps']:,} {'queries' if name == BLIND[0] else 'steps'}"
