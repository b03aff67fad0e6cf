"""Replay: what other attacks once made of the same images is tried again, on this model, within this threat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store


@dataclass(frozen=True)
class Replay(Attack):
    """Every adversarial image that rows kept (`save=x_adv`) of an image is projected into the threat and asked about.

    rows: a results folder, as results/cifar10_pgd, or one that holds several; whatever model, defense, attack and
    threat its rows are of, they serve, but for rows of replays. An image is known by its pixels, so that any selection
    of the same data serves. All images kept are in host memory at once. It asks for labels only; but what it replays
    may have been made with gradients, of this very model if its rows are there: so its access says gradients.

    Costs at most a forward per row, and no backward; note replayed: how many images there were to try.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    summary: ClassVar[str] = "adversarial images that earlier rows kept, tried again"

    rows: str = ""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ConfigError("rows is empty: name a results folder whose grids ran with save=x_adv")

    def keeping(self) -> Iterator[tuple[Store, Row]]:
        """The rows that kept images, the lowest robust accuracy first."""
        stores = (Store(folder.parent) for folder in sorted(Path(self.rows).expanduser().rglob("rows")))
        kept = [
            (store, row)
            for store in stores
            for row in store.rows()
            if {"x_adv", "fingerprint"} <= row["arrays"].keys() and row.attack != "replay"
        ]
        yield from sorted(kept, key=lambda each: (each[1]["results"]["robust_accuracy"], each[1]["key"]))

    def sources(self) -> dict[str, str]:
        """Which images there are: once there are more, replaying them is another cell."""
        kept = [(row.key, row["arrays"]["x_adv"]) for _, row in self.keeping()]
        return {"rows": hashlib.sha256(json.dumps(kept).encode()).hexdigest()}

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        kept = []
        for store, row in self.keeping():
            known = torch.from_numpy(store.arrays(row.key, "fingerprint")["fingerprint"])
            kept.append((known, partial(store.array_rows, row.key, "x_adv")))
        if not kept:
            raise ConfigError(f"no row under {Path(self.rows).absolute()} kept its images: run a grid with save=x_adv")
        return Kept(tuple(kept))

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return len(list(self.keeping())), 0


@dataclass(frozen=True, eq=False)
class Kept(Attack):
    """rows: of each what its clean images are known by, (M,) int64, and what reads what became of those at some places,
    (n, C, H, W): all would not fit memory.
    """

    access: ClassVar[Access] = Access.GRADIENTS

    rows: tuple[tuple[Tensor, Callable[[Sequence[int]], Array]], ...]

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        mine, x_adv, count = fingerprint(x).cpu(), x.clone(), torch.zeros_like(y)
        for known, read in self.rows:
            same = mine[:, None] == known
            there = same.any(1).to(x.device)
            rows = (there & ~oracle.done).nonzero()[:, 0]
            made = torch.from_numpy(read(same.int().argmax(1)[rows.cpu()].tolist())).to(x)
            x_adv[rows] = threat.project(made, x[rows])
            oracle[rows].submit(x_adv[rows])
            count += there
        oracle.note("replayed", count)
        return oracle.best(x_adv)
