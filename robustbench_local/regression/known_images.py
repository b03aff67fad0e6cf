"""Adversarial images that broke an earlier model: kept in one compressed file, and tried again on the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import StoreError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.storage.files import whole_file

_STEPS = 32767  # of the largest change of an image: finer than any attack's own steps
_NAMES = ("known", "change", "scale")


@dataclass(frozen=True, eq=False)
class KnownImages:
    """known (M,) int64: fingerprints of the clean images. change (M, C, H, W) int16: what was added to each, in units
    of scale (M,) float32.
    """

    known: npt.NDArray[np.int64]
    change: npt.NDArray[np.int16]
    scale: npt.NDArray[np.float32]

    @classmethod
    def of(cls, x: Tensor, x_adv: Tensor) -> KnownImages:
        """Of clean images (M, C, H, W) and what an attack made of them."""
        added = (x_adv.float() - x.float()).cpu()
        scale = added.flatten(1).abs().amax(1) / _STEPS if len(added) else torch.zeros(0)
        steps = added / scale.clamp(min=1e-12)[:, None, None, None]
        return cls(
            np.asarray(fingerprint(x).cpu()), steps.round().to(torch.int16).numpy(), np.asarray(scale, np.float32)
        )

    def __len__(self) -> int:
        return len(self.known)

    @property
    def digest(self) -> str:
        """sha256 over all of it, 16 hex digits."""
        text = hashlib.sha256(json.dumps([self.change.shape, str(self.change.dtype)]).encode())
        for array in (self.known, self.change, self.scale):
            text.update(np.ascontiguousarray(array).tobytes())
        return text.hexdigest()[:16]

    def attack(self) -> Attack:
        """The attack that answers with these images."""
        return Known(
            torch.from_numpy(self.known),
            torch.from_numpy(self.change.astype(np.float32) * self.scale[:, None, None, None]),
        )


@dataclass(frozen=True, eq=False)
class Known(Attack):
    """known (M,): fingerprints of clean images; added (M, C, H, W): what once broke a model there. It asks nothing."""

    access: ClassVar[Access] = Access.NONE

    known: Tensor
    added: Tensor

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        same = fingerprint(x).cpu()[:, None] == self.known
        there = same.any(1)
        x_adv, rows = x.clone(), there.to(x.device)
        added = self.added[same.int().argmax(1)[there]].to(x)
        x_adv[rows] = threat.project(x[rows] + added, x[rows])
        return x_adv


def write(path: Path, images: Mapping[str, KnownImages]) -> None:
    """All images of all checks, by the names of the checks; the file is whole or not there."""
    names = sorted(images)
    arrays = {f"{place}.{part}": getattr(images[name], part) for place, name in enumerate(names) for part in _NAMES}
    with whole_file(path) as file:
        np.savez_compressed(file, names=np.array(json.dumps(names)), **arrays)


def read(path: Path, name: str) -> KnownImages | None:
    """The images of one check; None where there are none. StoreError where the file is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            names = json.loads(str(file["names"]))
            if name not in names:
                return None
            return KnownImages(*(file[f"{names.index(name)}.{part}"] for part in _NAMES))
    except Exception as error:  # numpy and zipfile die of many things that a damaged file may hold
        raise StoreError(
            f"{path} cannot be read ({type(error).__name__}: {error}): take it from version control, or write it anew"
            " with --robustness-update"
        ) from error


def every(path: Path) -> dict[str, KnownImages]:
    """The images of all checks in a file; none where there is no file."""
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as file:
        names = json.loads(str(file["names"]))
    return {name: found for name in names if (found := read(path, name)) is not None}
