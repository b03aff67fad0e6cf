"""Networks that compute in whole numbers of 8 bits, and what an attacker differentiates in their place.

Static: weights and activations are int8; the range of each activation is that of calibration images (Jacob et al. 2018,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference"). Dynamic: only Linear
layers are int8, and the range of what goes into them is taken anew at every question.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from robustbench_local.core.defense import Defended, Preprocess, call, draws_for
from robustbench_local.core.errors import ModelError
from robustbench_local.models.picklable import picklable
from robustbench_local.storage.plain_state import plain_state

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_FLOAT = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)  # torch 2.13's x86 kernels of them are wrong
ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")  # kernels of a processor, in the order of preference
BATCH = 64  # images that calibrate at once

Change = Callable[[nn.Module], nn.Module | None]


class Int8(nn.Module):
    """Answers are the int8 network's, gradients those of the float network that it was made of.

    Rounding has no useful gradient: this is the straight-through estimator, or BPDA (Athalye et al. 2018). It says so
    by `surrogate_gradients`. alone: each image is asked by itself, where the ranges of a batch would depend on all of
    its images.
    """

    surrogate_gradients = True

    def __init__(self, net: nn.Module, twin: nn.Module, *, alone: bool = False) -> None:
        super().__init__()
        self.net, self.twin, self.alone = net, twin, alone

    def forward(self, *args: Any, **named: Any) -> Any:
        with torch.no_grad():
            hard = self._one_by_one(*args) if self.alone else self.net(*args, **named)
        given = [*args, *named.values()]
        if not (torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in given)):
            return hard
        return _straight_through(hard, self.twin(*args, **named))

    def _one_by_one(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or len(x) < 2:
            return self.net(x)  # type: ignore[no-any-return]
        return torch.cat([self.net(x[place : place + 1]) for place in range(len(x))])


def _straight_through(hard: Any, soft: Any) -> Any:
    """hard in value, to the last bit, and soft in gradient: of a tensor, or of each in a tuple, a list or a dict."""
    if isinstance(hard, Tensor):
        return hard + (soft - soft.detach())
    if isinstance(hard, dict):
        return {key: _straight_through(hard[key], soft[key]) for key in hard}
    if isinstance(hard, tuple | list):
        return type(hard)(_straight_through(*pair) for pair in zip(hard, soft, strict=True))
    return hard


def static(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy that computes in int8, wherever torch.fx can trace it, calibrated on images (N, C, H, W).

    Traced are parts as large as can be, so that convolution, normalisation and ReLU become one operation, as when a
    network is deployed; where that does not give the answers of its code, each layer by itself. Steps of a defense stay
    as they are. ModelError where the layers by themselves answer otherwise too, as in code that draws random numbers.
    """
    before = answers(model, images)
    with _engine() as engine, _quietly():
        for single in (False, True):
            calibrating = _changed(copy.deepcopy(model), partial(_calibrating, engine=engine, single=single))
            observed = answers(calibrating, images)
            if torch.allclose(before, observed, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
                return _changed(calibrating, _converted)
    raise ModelError(
        "asked again it answers otherwise: it draws random numbers without saying so, or counts its questions"
    )


def dynamic(model: nn.Module) -> nn.Module:
    """A copy whose Linear layers compute in int8, by ranges that each image has by itself, as if asked alone."""
    with _engine(), _quietly():
        return _changed(copy.deepcopy(model), _dynamic)


def answers(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, K); of a random model by the draws of seed 0."""
    draws = draws_for(images, None)
    rows = torch.arange(len(images)).split(BATCH)
    with torch.no_grad(), _quietly():
        return torch.cat([call(model, images[each], draws[each]) for each in rows])


def deployed_state(model: nn.Module) -> dict[str, Tensor]:
    """The state that is shipped, in plain tensors: without the float networks that give int8 ones their gradients."""
    twins = tuple(
        f"{name}.twin." if name else "twin." for name, part in model.named_modules() if isinstance(part, Int8)
    )
    state = plain_state(model.state_dict())
    return {name: tensor for name, tensor in state.items() if not name.startswith(twins)}


def int8_share(model: nn.Module) -> float:
    """Of all weights that are shipped, biases and constants of channels left out, the share that is int8."""
    weights = [tensor for tensor in deployed_state(model).values() if tensor.ndim > 1 and tensor.numel() > len(tensor)]
    whole = sum(tensor.numel() for tensor in weights if tensor.dtype is torch.int8)
    return whole / max(1, sum(tensor.numel() for tensor in weights))


def _changed(module: nn.Module, change: Change, met: dict[int, nn.Module] | None = None) -> nn.Module:
    """module, with every largest part that `change` makes something of replaced by that; one that is shared, once."""
    met = {} if met is None else met
    if id(module) not in met:
        made = change(module)
        met[id(module)] = module if made is None else made
        if made is None and not _closed(module):
            for name, child in module._modules.items():
                if child is not None:
                    module._modules[name] = _changed(child, change, met)
    return met[id(module)]


def _closed(module: nn.Module) -> bool:
    """Whether its parts must stay what they are: torch's own attention reads the weights of its layers itself."""
    containers = nn.Sequential | nn.ModuleList | nn.ModuleDict
    return type(module).__module__.startswith("torch.nn.") and not isinstance(module, containers)


class _Calibrating(nn.Module):
    """A traced network whose observers note the range of every activation."""

    def __init__(self, net: GraphModule, twin: nn.Module) -> None:
        super().__init__()
        self.net, self.twin = net, twin

    def forward(self, *args: Any, **named: Any) -> Any:
        return self.net(*args, **named)


def _calibrating(part: nn.Module, engine: str, single: bool) -> nn.Module | None:
    """The part ready to be calibrated; None where it has no layer to quantise, or cannot be traced as a whole, or is
    more than a single layer and is to be one.
    """
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    if isinstance(part, Defended | Preprocess) or not any(isinstance(each, LAYERS) for each in part.modules()):
        return None  # what a defense does depends on its draws, which a trace would freeze
    if single and not isinstance(part, LAYERS):
        return None

    def prepared() -> GraphModule:
        whole = nn.Sequential(part) if isinstance(part, LAYERS) else part
        mapping = get_default_qconfig_mapping(engine)
        for kind in _FLOAT:
            mapping.set_object_type(kind, None)
        return prepare_fx(copy.deepcopy(whole), mapping, (torch.zeros(1),))

    try:
        possible = int8_share(convert_fx(prepared())) > 0
    except Exception:  # tracing and lowering may die of anything in somebody's code: its parts are tried
        return None
    return _Calibrating(prepared(), part) if possible else None


def _converted(part: nn.Module) -> nn.Module | None:
    from torch.ao.quantization.quantize_fx import convert_fx

    if not isinstance(part, _Calibrating):
        return None
    return Int8(picklable(convert_fx(part.net)), part.twin)


def _dynamic(part: nn.Module) -> nn.Module | None:
    from torch.ao.quantization import quantize_dynamic

    if type(part) is not nn.Linear:  # of another class it may be more than a layer
        return None
    net = quantize_dynamic(nn.Sequential(copy.deepcopy(part)), {nn.Linear}, dtype=torch.qint8)
    return Int8(picklable(net), part, alone=True)


@contextmanager
def _engine() -> Iterator[str]:
    """The kernels that this processor has, chosen meanwhile. ModelError where torch was built without any."""
    before, there = torch.backends.quantized.engine, torch.backends.quantized.supported_engines
    chosen = before if before in ENGINES else next((name for name in ENGINES if name in there), None)
    if chosen is None:
        raise ModelError(f"this build of torch has no int8 kernels: it has {', '.join(there)}")
    torch.backends.quantized.engine = chosen
    try:
        yield chosen
    finally:
        torch.backends.quantized.engine = before


@contextmanager
def _quietly() -> Iterator[None]:
    """torch calls its own quantisation deprecated at every step, which says nothing to who measures a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
