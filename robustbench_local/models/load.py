"""Models by name: an architecture, a checkpoint of the zoo, or a function of the user's own."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from robustbench_local.config.arguments import Device, checked
from robustbench_local.config.plugins import find_defense
from robustbench_local.config.ranges import Location, Seed
from robustbench_local.core.containment import contained
from robustbench_local.core.defense import Defense
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.core.model_state import evaluating, seeded
from robustbench_local.core.training import NoTraining
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.models.behaviour import behaviour
from robustbench_local.models.zoo import ZooEntry, zoo_entry, zoo_names
from robustbench_local.storage.checkpoints import load, restore

_FILE = (
    ". A file of weights goes with an architecture: weights=PATH. A file that holds a whole program is loaded by a"
    " function of yours: torch.export.load(PATH).module() of a .pt2, torch.jit.load(PATH) of TorchScript"
)


@checked(ModelError)
def build_model(architecture: str, *, seed: Seed = 0) -> nn.Module:
    """A fresh network, on the CPU and in training mode, whose weights depend on seed and nothing else.

    The global random state is left as it was. ModelError for an unknown architecture.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f'unknown architecture "{architecture}"{did_you_mean(architecture, ARCHITECTURES)}: {known}')
    with seeded(seed):
        return ARCHITECTURES[architecture]()


def rebuild(architecture: str, defense: Defense) -> nn.Module:
    """What that defense deploys of a network of that architecture, with fresh weights: a checkpoint's go there."""
    draws = Draws(0, torch.zeros(1, dtype=torch.int64)).stream("train")
    return defense.build(build_model(architecture), NoTraining(), draws)


@checked(ModelError)
def load_model(
    spec: str, *, device: Device = "cpu", weights: Location | None = None, allow_pickle: bool = False
) -> nn.Module:
    """A trained model in evaluation mode: pixels in [0, 1], (N, C, H, W), in; logits (N, K) out.

    Args:
        spec: "zoo:cifar10/adversarial_training", a bundled checkpoint; or "preact_small", an architecture, with the
            weights of a checkpoint file; or "module:function", called without arguments, found from the current folder
            or among what is installed. It returns the model, or is it, whose weights a checkpoint may replace.
        device: where the model goes.
        weights: a safetensors file, or a pickle of a state dict with allow_pickle.
        allow_pickle: read .pt and .pth files too, of weights alone.

    Raises:
        ModelError: for anything that is not there or does not fit.
    """
    kind, colon, name = spec.partition(":")
    if spec.startswith("zoo:"):
        if weights is not None:
            raise ModelError(f'"{spec}" has its own weights: give weights={weights} with an architecture instead')
        entry = zoo_entry(name)
        model = _of_the_zoo(entry)
        restore(model, entry.state, entry.path)
    elif colon:
        model = _own(kind, name)
    else:
        if spec not in ARCHITECTURES:
            known = [*ARCHITECTURES, *(f"zoo:{name}" for name in zoo_names())]
            raise ModelError(
                f'unknown model "{spec}"{did_you_mean(spec, known)}: one of {", ".join(known)}, or module:function'
                + (_FILE if Path(spec).suffix in (".pt", ".pt2", ".pth", ".onnx", ".safetensors") else "")
            )
        if weights is None:
            raise ModelError(f'"{spec}" is an architecture and has no weights yet: give weights=PATH of a checkpoint')
        model = build_model(spec)
    if weights is not None:
        restore(model, load(weights, allow_pickle=allow_pickle)[0], weights)
    return evaluating(model.to(device))


def behaviour_digest(spec: str, model: nn.Module) -> str | None:
    """What a model that load_model gave does besides its weights; None where its name says that already."""
    module, colon, name = spec.partition(":")
    if not colon or spec.startswith("zoo:"):
        return None
    return behaviour(model, getattr(sys.modules.get(module), name, None))


def _of_the_zoo(entry: ZooEntry) -> nn.Module:
    """The module that the entry's recipe deploys, without its weights; a bare network where it has no recipe."""
    recorded = entry.recipe.get("defense")
    if recorded is None:
        return build_model(entry.architecture)
    ((name, settings),) = recorded.items()
    return rebuild(entry.architecture, find_defense(name, settings))


def _own(module: str, function: str) -> nn.Module:
    """What the user's module.function() returns; the current folder is searched first while it is imported."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        with contained(ModelError, "it"):
            make: Callable[[], object] | None = getattr(importlib.import_module(module), function, None)
            model = make if isinstance(make, nn.Module) else make() if callable(make) else None
    except Exception as error:  # the user's code: whatever it dies of, say where
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f'"{module}:{function}" failed (searched from {here}). {reason}') from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if not callable(make):
        raise ModelError(f'"{module}" has no function "{function}"{did_you_mean(function, dir(sys.modules[module]))}')
    if not isinstance(model, nn.Module):
        raise ModelError(f'"{module}:{function}" returned a {type(model).__name__}, not a torch.nn.Module')
    return model
