"""TorchScript, .pt and .ts; a .pt or .pth that is something else is told what it is."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from robustbench_local.core.errors import ModelError
from robustbench_local.models.archives import check_archive
from robustbench_local.models.format import Asked, Format, Loaded, file_identity
from robustbench_local.models.formats.torch_export import exported
from robustbench_local.storage.checkpoints import program_in


class TorchScript(Format):
    prefixes = ("torchscript",)
    suffixes = (".pt", ".pth", ".ts")
    summary = "a TorchScript model: net.pt; with trust=true a pickled module too"

    def load(self, asked: Asked) -> Loaded:
        asked.refuse_weights("has its own weights")
        path = asked.file
        kind = program_in(path)
        if kind == "torch.export":
            return exported(path, asked.trust)
        if kind == "TorchScript":
            check_archive(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # which its user knows
                return Loaded(torch.jit.load(path, map_location="cpu"), identity=file_identity(path))
        if not asked.trust:
            raise ModelError(
                f"{path} is a pickle. If it holds weights, it goes with an architecture or a function of yours:"
                f" models=NAME weights={path} allow_pickle=true. If it holds a whole module, reading it runs code: say"
                " trust=true if you trust who made it"
            )
        found = torch.load(path, map_location="cpu", weights_only=False)
        if not isinstance(found, nn.Module):
            raise ModelError(
                f"{path} holds a {type(found).__name__} and no module: weights go with an architecture or a function of"
                f" yours, models=NAME weights={path}"
            )
        return Loaded(found)
