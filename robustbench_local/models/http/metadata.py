"""What a server says of itself and of one of its models, before it is asked anything that costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.models.http.client import Reply
from robustbench_local.models.http.datatypes import NUMBERS, TEXT
from robustbench_local.models.http.patience import LostError

Get = Callable[[str], Reply]
_BINARY = "binary_tensor_data"  # among the extensions that a server announces
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model; -1 in its shape is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelInfo:
    """server: its name and version, "" where it does not say. digest: of all that it says of the model."""

    server: str
    binary: bool
    versions: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    digest: str


def read_server(get: Get, url: str) -> tuple[str, bool]:
    """(name and version of a server, whether it takes binary data); ("", False) of one that says nothing."""
    try:
        about = _object(get(url), url)
    except ModelError:  # many have no such page
        return "", False
    named = [about[key] for key in ("name", "version") if isinstance(about.get(key), str)]
    extensions = about.get("extensions")
    return " ".join(named), isinstance(extensions, list) and _BINARY in extensions


def read_model(get: Get, server: str, url: str) -> ModelInfo:
    """Of the server at `server` and its model at `url`. ModelError where there is none, or it says what it may not."""
    about = _object(get(url), url)
    versions = about.get("versions") or []
    if not (isinstance(versions, list) and all(isinstance(each, str) for each in versions)):
        raise ModelError(f"{url} has versions {versions!r:.80}: it must be a list of texts")
    name, binary = read_server(get, server)
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    inputs, outputs = _tensors(about, "inputs", url), _tensors(about, "outputs", url)
    return ModelInfo(name, binary, tuple(versions), inputs, outputs, digest)


def newest(versions: Sequence[str]) -> str | None:
    """The one with the largest number."""
    return max(versions, key=lambda each: (each.isdecimal(), len(each) if each.isdecimal() else 0, each), default=None)


def choose(tensors: Sequence[TensorInfo], wanted: str | None, what: str) -> TensorInfo | None:
    """The input or output that is meant; None where the model does not say what it has. ModelError where none is."""
    names = [each.name for each in tensors]
    if not tensors:
        return None
    if wanted is not None and wanted not in names:
        raise ModelError(f'the model has no {what} "{wanted}"{did_you_mean(wanted, names)}: it has {", ".join(names)}')
    if wanted is None and len(names) > 1:
        raise ModelError(f"the model has {len(names)} {what}s, {', '.join(names)}: say which, {what}: {names[0]}")
    return tensors[names.index(wanted)] if wanted is not None else tensors[0]


def image_shape(info: TensorInfo | None) -> tuple[tuple[int, int, int], str] | None:
    """((channels, height, width), layout) of an input of images, 0 for any size; None where it does not tell."""
    if info is None or len(info.shape) not in (3, 4):
        return None
    sides = tuple(max(side, 0) for side in info.shape[-3:])
    if sides[0] in _CHANNELS:
        return (sides[0], sides[1], sides[2]), "NCHW"
    if sides[2] in _CHANNELS:
        return (sides[2], sides[0], sides[1]), "NHWC"
    return None


def class_count(info: TensorInfo | None) -> int | None:
    """Of an output of scores, one logit being of two classes; None where it does not tell."""
    if info is None or not info.shape or info.shape[-1] < 1:
        return None
    return max(info.shape[-1], 2)


def _tensors(about: dict[str, Any], key: str, url: str) -> tuple[TensorInfo, ...]:
    found = about.get(key) or []
    if not isinstance(found, list):
        raise ModelError(f"{url} has {key} {found!r:.80}: it must be a list of tensors")
    return tuple(_tensor(each, f"{url}: {key}") for each in found)


def _tensor(about: Any, where: str) -> TensorInfo:
    match about:
        case {"name": str(name), "datatype": str(datatype), "shape": [*shape]} if all(type(s) is int for s in shape):
            if datatype in (*NUMBERS, TEXT):
                return TensorInfo(name, datatype, tuple(shape))
            raise ModelError(f"{where} has {name} of datatype {datatype:.40}: expected {', '.join(NUMBERS)} or {TEXT}")
        case _:
            raise ModelError(f"{where} holds {about!r:.120}: expected name, datatype and a shape of whole numbers")


def _object(reply: Reply, url: str) -> dict[str, Any]:
    try:
        about = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise LostError(f"{url} is no JSON") from None
    if not isinstance(about, dict):
        raise LostError(f"{url} is a {type(about).__name__}, no object of JSON")
    return about
