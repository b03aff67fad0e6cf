"""The one door to torchvision: everything else imports it through here, and only where it needs it."""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType

import torch

# Lives as long as the process: dropping it would take the declared operators away again.
_declared: list[torch.library.Library] = []


@functools.cache
def import_torchvision() -> ModuleType:
    """The torchvision module, usable for datasets, models and transforms beside a torch of another build.

    A torchvision built for CUDA cannot load its compiled operators beside a CPU torch, and its import stops
    at the first operator it then misses. Only in that case the missing schemas are declared and the import
    is done again; where the operators load, nothing is touched.

    Raises ImportError where torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module("torchvision")
