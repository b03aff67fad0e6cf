"""Weights of people's own, put into a network."""

from __future__ import annotations

from torch import nn

from robustbench_local.core.errors import ModelError
from robustbench_local.models.format import Asked
from robustbench_local.storage.checkpoints import load, restore

FRESH = "random"  # weights=random: of a package, as its constructor makes them


def put_weights(net: nn.Module, asked: Asked) -> None:
    """Put the checkpoint that was asked for into a network, where one was. ModelError where it does not fit."""
    if asked.weights == FRESH:
        raise ModelError(f'weights=random is for models of packages, and "{asked.spec}" is none: give a path')
    if asked.weights is not None:
        restore(net, load(asked.weights, allow_pickle=asked.allow_pickle or asked.trust)[0], asked.weights)
