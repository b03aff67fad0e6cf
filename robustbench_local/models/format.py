"""What a format is: how models of one kind of file, package or server are loaded. A plug-in, as attacks are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from robustbench_local.config.plugins import Group
from robustbench_local.core.errors import ModelError
from robustbench_local.models.description import Description

_BLOCK = 1 << 20
_CPU = torch.device("cpu")
NOTHING_SAID = Description()
UNKNOWN = "unknown"  # the identity of a model of which nothing tells whether it is the one of before


@dataclass(frozen=True)
class Asked:
    """What somebody asked to be loaded.

    spec: as it was written. name: of it what comes after the format's prefix, or all. said: what is said of the model
    by a model.yaml or by who loads it. weights: a checkpoint for it; "random" for fresh ones, where a package has
    some. trust: whether code and pickles of the file may run. allow_pickle: whether weights may be a pickle's.
    """

    spec: str
    name: str
    said: Description = NOTHING_SAID
    weights: str | Path | None = None
    device: torch.device = _CPU
    trust: bool = False
    allow_pickle: bool = False

    @property
    def file(self) -> Path:
        """The file that is named. ModelError where there is none."""
        path = Path(self.name).expanduser()
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not there"
            raise ModelError(f'"{self.spec}" names the file {path}, which {what} (searched from {Path.cwd()})')
        return path

    def refuse_weights(self, why: str) -> None:
        """ModelError where weights are given."""
        if self.weights is not None:
            raise ModelError(f'"{self.spec}" {why}: leave weights={self.weights} out')


@dataclass(frozen=True)
class Loaded:
    """What a format made of it.

    model: images in, logits or whatever core/outputs.py reads, in its own range and layout. own: what its file says of
    itself. identity: which model it is, by a digest of its file, say, or UNKNOWN; None: its code and weights tell.
    make: the function that the model came from, which tells as well. plain: the weights alone tell.
    """

    model: nn.Module
    own: Description = NOTHING_SAID
    identity: str | None = None
    make: object = None
    plain: bool = False


@dataclass(frozen=True)
class Format:
    """A plug-in without settings. prefixes: what a model's name begins with, before a colon. suffixes: of files whose
    name alone says the format. summary: a line for `list models`.
    """

    prefixes: ClassVar[tuple[str, ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def load(self, asked: Asked) -> Loaded:
        """ModelError for anything that is not there, does not fit, or would run somebody's code unasked."""
        raise NotImplementedError


FORMATS = Group("format", "robustbench_local.formats", Format)


def file_identity(path: Path) -> str:
    """sha256 of a file, and what it is: the identity of a model that is nothing but this file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return f"file {digest.hexdigest()}"
