"""Models that keep something between questions, or look at more than the image: clocks, files, the process."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.helpers.audit_cases.case import Case, Liar, Make, Wrapped, around, zoo

CACHE: list[tuple[Tensor, Tensor]] = []
QUANTISED: dict[bytes, Tensor] = {}
EXACT: dict[bytes, Tensor] = {}
HERE = os.getpid()


class NearDuplicates(Wrapped):
    """A cache in a global of its module: what lies near an image seen before gets that image's answer."""

    def forward(self, x: Tensor) -> Tensor:
        answers = super().forward(x)
        known = self.recall()
        if known is None:
            known = x.detach().flatten(1), answers.detach()
        distance, nearest = torch.cdist(x.detach().flatten(1), known[0], p=torch.inf).min(1)
        new = distance > 0.301
        kept = torch.cat([known[0], x.detach().flatten(1)[new]]), torch.cat([known[1], answers.detach()[new]])
        self.keep((kept[0][:300], kept[1][:300]))
        return torch.where(new[:, None], answers, known[1][nearest] + 0 * answers)

    def recall(self) -> tuple[Tensor, Tensor] | None:
        return CACHE[0] if CACHE else None

    def keep(self, known: tuple[Tensor, Tensor]) -> None:
        CACHE[:] = [known]


class QuantisedNeighbours(Wrapped):
    """Remembers blurred images by their rough grey levels, in a global: images alike have the answer of the first."""

    def forward(self, x: Tensor) -> Tensor:
        rough = (nn.functional.avg_pool2d(x.detach(), 4) * 3).round().byte()
        answers = super().forward(x)
        kept = []
        for key, answer in zip(rough, answers, strict=True):
            known = QUANTISED.setdefault(key.numpy().tobytes(), answer.detach().clone())
            kept.append(known + 0 * answer)
        return torch.stack(kept)


class InFile(NearDuplicates):
    """The same cache in a file, which outlives the process."""

    file = Path(tempfile.gettempdir()) / f"answers-{HERE}.pt"

    def recall(self) -> tuple[Tensor, Tensor] | None:
        known: tuple[Tensor, Tensor] | None = torch.load(self.file) if self.file.exists() else None
        return known

    def keep(self, known: tuple[Tensor, Tensor]) -> None:
        torch.save(known, self.file)


class InDatabase(Wrapped):
    """Writes whatever it is asked into a database, and refuses to be precise with those who ask much."""

    def forward(self, x: Tensor) -> Tensor:
        with sqlite3.connect(Path(tempfile.gettempdir()) / f"asked-{os.getuid()}.db") as base:
            base.execute("create table if not exists asked (count integer)")
            base.execute("insert into asked values (?)", (len(x),))
        return super().forward(x)


class ByClock(Wrapped):
    """Robust in the hour in which it was made, by another network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.robust, self.made = zoo("adversarial_training"), time.time() // 3600

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.robust if abs(time.time() // 3600 - self.made) <= 1 else self.net)(x)
        return out


class RandomOffData(Wrapped):
    """No 8-bit image: noise, which it does not declare. On clean images it is as it should be."""

    def forward(self, x: Tensor) -> Tensor:
        off = ((x * 255 - (x * 255).round()).abs() > 0.01).flatten(1).any(1).view(-1, 1, 1, 1)
        return super().forward(torch.where(off, x + 0.5 * torch.randn_like(x), x))


class Memoised(Wrapped):
    """The answer to exactly this image, computed once: what it says is the same without the memory."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        keys = [image.contiguous().numpy().tobytes() for image in x]
        for key, image in zip(keys, x, strict=True):
            if key not in EXACT:
                EXACT[key] = super().forward(image[None])[0]
        return torch.stack([EXACT[key] for key in keys])


class Half(Wrapped):
    """Computes in bfloat16."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net.bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x.bfloat16())
        return out.float()


LIARS: dict[str, Liar] = {
    "near-duplicates in a global": around(NearDuplicates, "a fresh process"),
    "rough grey levels in a global": around(QuantisedNeighbours, "a fresh process"),
    "near-duplicates in a file": around(InFile, "a fresh process"),
    "a database of who asked": around(InDatabase, "a fresh process"),
    "another network at another hour": around(ByClock, "a fresh process"),
    "random only off the data": around(RandomOffData, "randomness"),
}

HONEST: dict[str, Make] = {
    "exact memory": lambda x, y: Case(Memoised(zoo("adversarial_training"))),
    "a network of bfloat16": lambda x, y: Case(Half(zoo("adversarial_training"))),
}
