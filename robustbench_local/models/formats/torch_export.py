"""torch.export programs, .pt2: gradients and all."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustbench_local.core.errors import ModelError
from robustbench_local.models.archives import check_archive
from robustbench_local.models.description import Description
from robustbench_local.models.fixed_batch import FixedBatch
from robustbench_local.models.format import Asked, Format, Loaded
from robustbench_local.storage.checkpoints import program_in

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load then never falls back to a pickle that runs code


class TorchExport(Format):
    prefixes = ("pt2",)
    suffixes = (".pt2",)
    summary = "a torch.export program: net.pt2"

    def load(self, asked: Asked) -> Loaded:
        asked.refuse_weights("has its own weights")
        return exported(asked.file, asked.trust)


def exported(path: Path, trust: bool) -> Loaded:
    """The program of a .pt2 archive. ModelError where it is no such, or holds pickles and there is no trust."""
    if program_in(path) != "torch.export":
        raise ModelError(f"{path} is no archive of torch.export: torch.export.save writes one")
    check_archive(path)
    if not trust:
        _check_pickles(path)
    with _no_code(trust):
        program = torch.export.load(path)
    images = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(images) != 1 or not isinstance(images[0].meta.get("val"), torch.Tensor):
        raise ModelError(f"{path} takes {len(images)} inputs: a classifier takes one, the images")
    shape = images[0].meta["val"].shape
    if len(shape) != 4:
        raise ModelError(f"{path} takes {len(shape)} axes: images are (N, C, H, W)")
    batch, channels, height, width = (side if isinstance(side, int) else 0 for side in shape)
    net: nn.Module = program.module()
    return Loaded(FixedBatch(net, batch) if batch else net, Description(shape=(channels, height, width)))


def _check_pickles(path: Path) -> None:
    """ModelError where reading it would run what a pickle says."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            base = name.rsplit("/", 1)[-1]
            if base.endswith(".json") and _pickled(json.loads(archive.read(name))):
                raise ModelError(_PICKLED.format(path=path, what=name))
            if base.startswith(("custom_obj", "opaque_obj")) or "serialized_exported_program" in base:
                raise ModelError(_PICKLED.format(path=path, what=name))


_PICKLED = "{path} holds pickles ({what}), which can run code when it is read. If you trust who made it: trust=true"


def _pickled(value: Any) -> bool:
    """Whether a part of some JSON says use_pickle."""
    if isinstance(value, dict):
        return value.get("use_pickle") is True or any(map(_pickled, value.values()))
    return isinstance(value, list) and any(map(_pickled, value))


@contextmanager
def _no_code(trust: bool) -> Iterator[None]:
    before = os.environ.get(_FORCE)
    if not trust:
        os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if not trust:
            del os.environ[_FORCE]
            if before is not None:
                os.environ[_FORCE] = before
