"""The state a model is attacked in, and the state it is given back in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def evaluating(model: nn.Module) -> nn.Module:
    """model in evaluation mode. An exported program has the mode it was exported in, whatever its flags say."""
    try:
        model.eval()
    except NotImplementedError:  # such a part refuses, before those that come after it were reached
        for module in model.modules():
            if hasattr(module, "training"):
                module.training = False
    return model


@contextmanager
def as_deployed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and parameters without gradients, so that only input gradients are computed.

    Both are restored module by module and parameter by parameter; parameters' .grad is never touched.
    """
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]  # not if frozen
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        evaluating(model)
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


@contextmanager
def full_float32() -> Iterator[None]:
    """TF32 and bfloat16 off, on GPU and CPU: a verdict is taken in float32."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generator of the CPU seeded, as for fresh weights, and afterwards what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # that of no other device
        yield
