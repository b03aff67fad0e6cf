"""Where tensors live."""

from __future__ import annotations

import platform

import torch

from robustbench_local.core.errors import ConfigError


def pick_device(name: str | torch.device) -> torch.device:
    """auto: CUDA where there is one. ConfigError where the named device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f'unknown device "{name}": auto, cpu, cuda or cuda:1') from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"device {name} is not there: torch {torch.__version__} sees {count} GPUs")
    if device.type not in ("cpu", "cuda"):
        try:
            torch.ones(1, device=device).tolist()
        except Exception as error:  # what a missing backend raises differs
            raise ConfigError(f"device {name} holds no images here: {type(error).__name__}; take cpu, cuda") from error
    return device


def hardware(device: torch.device) -> str:
    """The device's name; of a CPU its architecture and how many threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
