"""Where tensors live. No other file knows one kind of device from another."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import AbstractContextManager, suppress
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from robustbench_local.core.errors import ConfigError

ACCELERATORS = ("cuda", "xpu", "mps")  # NVIDIA and AMD, Intel, Apple; auto takes the first that there is
BATCHES = {"cuda": 2048, "xpu": 2048}  # images at once, to begin with; memory that the host shares is soon full
FEW = 250


def devices() -> list[str]:
    """What there is on this machine, the best first: cuda:0, cuda:1, cpu."""
    found = [f"{kind}:{place}" for kind in ACCELERATORS for place in range(_module(kind).device_count())]
    return [*found, "cpu"]


def pick_device(name: str | torch.device) -> torch.device:
    """auto: the best there is. ConfigError where the named device is not there."""
    there = devices()
    if name == "auto":
        return torch.device(there[0].partition(":")[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f'unknown device "{name}": auto, cpu, {", ".join(ACCELERATORS)} or one of several, as cuda:1'
        ) from None
    if device.type in ACCELERATORS and f"{device.type}:{device.index or 0}" not in there:
        kinds = {each.partition(":")[0] for each in there}
        cause = "" if device.type in kinds else "; the driver is missing, or it is a build of torch without it"
        raise ConfigError(f"device {name} is not there: torch {torch.__version__} sees {', '.join(there)}{cause}")
    if device.type not in ("cpu", *ACCELERATORS):
        try:
            torch.ones(1, device=device).tolist()
        except Exception as error:  # what a missing backend raises differs
            what = f"{type(error).__name__}; take {', '.join(there)}"
            raise ConfigError(f"device {name} holds no images here: {what}") from error
    return device


def is_accelerator(device: torch.device) -> bool:
    return device.type in ACCELERATORS


def hardware(device: torch.device) -> str:
    """The device's name; of a CPU its architecture and how many threads torch uses."""
    if device.type == "cpu":
        return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    if device.type == "mps":
        return str(torch.backends.mps.get_name())
    return str(_module(device.type).get_device_name(device))


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is native there, and known to be faster than float32."""
    if device.type in ("cuda", "xpu"):
        return bool(_module(device.type).is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AMX")) and _amx()


@cache
def has_float64(device: torch.device) -> bool:
    """Whether float64 arithmetic exists there: not on Apple's GPUs, nor on some of Intel's."""
    try:
        return bool((torch.ones(1, dtype=torch.float64, device=device) + 1 == 2).all())
    except (TypeError, RuntimeError):
        return False


def in_float64(x: Tensor) -> Tensor:
    """x in float64: where it is, or on the host where its device has none."""
    return (x if has_float64(x.device) else x.cpu()).double()


def first_batch(device: torch.device) -> int:
    """How many images to attack at once, to begin with: it is halved when memory runs out."""
    return BATCHES.get(device.type, FEW)


def free_memory(device: torch.device) -> int | None:
    """Bytes that may still be taken; None where nobody can say."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type in ("cuda", "xpu"):
        return int(_module(device.type).mem_get_info(device)[0])
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the host (as torch says it on Windows, then elsewhere) or of the device."""
    said = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def release_memory(device: torch.device) -> None:
    """Give back what torch keeps for later."""
    if device.type != "cpu":
        _module(device.type).empty_cache()


def trim_memory(device: torch.device) -> None:
    """Of a CPU: give back what the C library keeps of freed memory, where it is one that does (glibc).

    Tensors of many sizes leave gaps between them, which otherwise pile up batch by batch.
    """
    if device.type == "cpu" and sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def synchronise(device: torch.device) -> None:
    """Wait until all that was asked of the device is done, as before the clock is read."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        _module(device.type).synchronize(device)


def kept_random_state(device: torch.device) -> AbstractContextManager[None]:
    """The global random state, of the CPU and of this device, is afterwards what it was."""
    own = [] if device.type == "cpu" else [device]
    return torch.random.fork_rng(own, device_type=device.type)


def _module(kind: str) -> ModuleType:
    """torch.cuda and its like."""
    module: ModuleType = torch.get_device_module(kind)
    return module


def _amx() -> bool:
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported())
