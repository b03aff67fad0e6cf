"""Models by name: every format in which people have them, by one function."""

from __future__ import annotations

import functools
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.config.arguments import Device, checked
from robustbench_local.config.plugins import every
from robustbench_local.config.ranges import Location
from robustbench_local.core.containment import contained
from robustbench_local.core.device import pick_device
from robustbench_local.core.errors import ModelError, RobustBenchError
from robustbench_local.core.model_state import evaluating
from robustbench_local.models.behaviour import behaviour
from robustbench_local.models.classifier import Classifier, weights_dtype
from robustbench_local.models.description import Description, described, read_description, sidecar
from robustbench_local.models.format import FORMATS, NOTHING_SAID, UNKNOWN, Asked, Format, Loaded
from robustbench_local.models.priced import priced
from robustbench_local.models.variants import make_variant


@checked(ModelError)
def load_model(
    spec: str,
    *,
    device: Device = "cpu",
    weights: Location | None = None,
    allow_pickle: bool = False,
    trust: bool = False,
    normalise: str | dict[str, Any] | None = None,
    expects: Any = None,
    about: Location | dict[str, Any] | None = None,
    variant: str | None = None,
    calibration: Tensor | None = None,
) -> nn.Module:
    """A trained model in evaluation mode: pixels in [0, 1], (N, C, H, W), in; logits (N, K) out.

    Args:
        spec: "zoo:cifar10/adversarial_training", a bundled checkpoint; "preact_small", an architecture, with weights;
            "module:function" or "my_models.py:Net", a function, class or model of your own; the file of a TorchScript,
            torch.export or ONNX model; "https://...", a server; "torchvision:", "timm:", "hf:", "sklearn:" and so on:
            `robustbench-local list models` names every format. A model.yaml that names one by `model` will do too.
        device: where the model goes.
        weights: a safetensors file, or with allow_pickle a pickled state dict; "random" for fresh ones of a package.
        allow_pickle: read .pt and .pth files too, of weights alone.
        trust: load what runs code of its own when it is read, such as a pickled module.
        normalise: "imagenet", "cifar10", "mnist" or {"mean": ..., "std": ...}: what its input is normalised by.
        expects: the range of its pixels, where that is not [0, 1]: "0-255".
        about: a model.yaml, or what it would say (see Description); by default the one beside the model's file.
        variant: "int8", "int8_dynamic" or "pruned:0.5" instead of the float model, see `make_variant`.
        calibration: images float32 (N, C, H, W) in [0, 1] for the ranges of "int8", best of the training split.

    Raises:
        ModelError: for anything that is not there or does not fit.
    """
    said = said_of(normalise, expects, about)
    model = open_model(spec, device, weights=weights, allow_pickle=allow_pickle, trust=trust, said=said)[0]
    return model if variant is None else make_variant(model, variant, calibration)


def said_of(
    normalise: Any = None, expects: Any = None, about: Location | Mapping[str, Any] | None = None
) -> Description:
    """What is said of a model where it is named; ConfigError on any mistake."""
    if about is not None and not isinstance(about, Mapping):
        beside = read_description(Path(about).expanduser())[0].said()
    else:
        beside = dict(about or {})
    more = {key: value for key, value in (("normalise", normalise), ("expects", expects)) if value is not None}
    return described(beside | more, "what is said of the model")


def open_model(
    spec: str,
    device: str | torch.device = "cpu",
    *,
    weights: Location | None = None,
    allow_pickle: bool = False,
    trust: bool = False,
    said: Description = NOTHING_SAID,
) -> tuple[nn.Module, str | None]:
    """(the model as load_model gives it, a digest of what it does besides its weights; None where weights tell)."""
    device = pick_device(device)
    spec, said = _with_file(spec, said)
    kind, name = _format(spec)
    asked = Asked(spec, name, said, weights, device, trust, allow_pickle)
    try:
        with contained(ModelError, f'"{spec}"'):
            loaded = kind.load(asked)
    except RobustBenchError:
        raise
    except Exception as error:  # a file, a package or a server may die of anything
        raise ModelError(f'"{spec}" cannot be loaded as {kind.summary}: {type(error).__name__}: {error}') from error
    description = said.over(loaded.own, f'"{spec}"')
    model = loaded.model
    if description.endpoint is not None and priced(model) is None:
        raise ModelError(f'endpoint is said of "{spec}", which is no server: leave it out')
    other_numbers = weights_dtype(model) is not torch.float32
    if loaded.identity is not None or description.said() or other_numbers:
        model = Classifier(model, description, _identity(spec, loaded, description))
    model = evaluating(model.to(device))
    return model, None if loaded.plain and model is loaded.model else behaviour(model, loaded.make)


def _identity(spec: str, loaded: Loaded, description: Description) -> str | None:
    """Which model a name means, in words; None where its code and weights tell."""
    if loaded.identity != UNKNOWN:
        return loaded.identity
    if description.version is not None:
        return spec
    warnings.warn(
        f'nothing tells whether "{spec}" is the model of earlier rows, so everything is computed anew: give a version'
        " (in a model.yaml, or where you name the model) that you change whenever it changes",
        stacklevel=3,
    )
    return f"unknown {uuid.uuid4().hex}"


def _with_file(spec: str, said: Description) -> tuple[str, Description]:
    """The model that is meant, and what is said of it here and in a file: one that is named, or the one beside it."""
    if Path(spec).suffix in (".yaml", ".yml"):
        file = Path(spec).expanduser()
        beside, model = read_description(file)
        if model is None:
            raise ModelError(f"{file} names no model: write model: net.onnx, or whatever it describes")
        return _placed(model, file.parent), said.over(beside, str(file))
    prefix, colon, name = spec.partition(":")
    path = Path(name if colon and prefix.isalpha() else spec).expanduser()
    alone = not path.exists()  # a function or a server has no file to itself: a description must name it
    near = sidecar(path) if not alone else Path("model.yaml") if colon and prefix != "zoo" else None
    if near is not None and near.is_file():
        beside, model = read_description(near)
        about_it = not alone if model is None else _same(_placed(model, near.parent), spec)
        if about_it:
            return spec, replace(beside, **said.said())
    return spec, said


def _placed(model: str, folder: Path) -> str:
    """The name of a model as it is from here, where a file in that folder calls it so."""
    head, colon, tail = model.partition(":")
    if (folder / head).exists():
        return f"{folder / head}{colon}{tail}"
    return f"{head}:{folder / tail}" if colon and (folder / tail).exists() else model


def _same(one: str, other: str) -> bool:
    """Whether two names mean the same file, or the same in it."""
    here = Path.cwd()
    return _placed(one, here) == _placed(other, here)


@functools.cache
def formats() -> tuple[Format, ...]:
    """Every format that is installed."""
    return tuple(kind() for kind in every(FORMATS, Format).values())


def _format(spec: str) -> tuple[Format, str]:
    """The format of a spec, and what that is to load."""
    prefix, colon, name = spec.partition(":")
    for kind in formats():
        if colon and prefix in kind.prefixes:
            return kind, name
    own = ".py" if colon and prefix.endswith(".py") else Path(spec).suffix.lower()
    for kind in formats():
        if own in kind.suffixes and (own == ".py" or not colon):
            return kind, spec
    wanted = "python" if colon else "architecture"
    return every(FORMATS, Format)[wanted](), spec
