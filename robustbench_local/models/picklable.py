"""Quantised networks that can be pickled, as other modules can: torch's own cannot be read back."""

from __future__ import annotations

import copyreg
from typing import Any

from torch import nn


def picklable(net: nn.Module) -> nn.Module:
    """The same network, which torch.save, pickle and copies in other processes now take."""
    net._load_state_dict_pre_hooks.clear()  # they hold the network itself, which pickle cannot untangle
    for kind in {type(layer) for layer in net.modules() if hasattr(layer, "_packed_params")}:
        if "__setstate__" in dir(kind) and kind.__setstate__ is not nn.Module.__setstate__:
            copyreg.pickle(kind, _reduced)
    return net


def _reduced(layer: Any) -> tuple[Any, ...]:
    return _restored, (type(layer), layer.__getstate__())


def _restored(kind: type[Any], state: Any) -> Any:
    """A layer with its packed weights. torch restores these of a convolution before it is a module, and fails."""
    layer = object.__new__(kind)
    nn.Module.__init__(layer)
    layer.__setstate__(state)
    copyreg.pickle(kind, _reduced)
    return layer
