"""An ONNX file, checked before it is read: what it takes and gives, and where it keeps its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_local.core.errors import ModelError
from robustbench_local.models.format import file_identity

_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
TYPES = {**_FLOATS, "tensor(uint8)": "uint8"}


@dataclass(frozen=True)
class OnnxFile:
    """path of the file; external: files beside it that hold weights."""

    path: Path
    external: tuple[Path, ...]
    softmax: frozenset[str]  # outputs that are probabilities

    @property
    def identity(self) -> str:
        """A digest of all files."""
        digests = [file_identity(path) for path in (self.path, *self.external)]
        return digests[0] if len(digests) == 1 else f"files {hashlib.sha256(' '.join(digests).encode()).hexdigest()}"


def open_onnx(path: Path) -> OnnxFile:
    """ModelError where it is no ONNX file, or keeps weights outside its folder."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors are of many kinds
        raise ModelError(f"{path} is no readable ONNX file: {type(error).__name__}: {error}") from error
    if not model.graph.node:
        raise ModelError(f"{path} is no ONNX model: its graph is empty")
    external = tuple(sorted({_inside(path, location) for location in _locations(model.graph)}))
    softmax = {name for node in model.graph.node if node.op_type == "Softmax" for name in node.output}
    return OnnxFile(path, external, frozenset(softmax))


def _inside(path: Path, location: str) -> Path:
    """The file of external data at that location; ModelError where it is not in the folder of the model."""
    folder = path.parent.resolve()
    found = (folder / location).resolve()
    if Path(location).is_absolute() or not found.is_relative_to(folder):
        raise ModelError(f"{path} keeps weights at {location!r}, outside its own folder: that is refused")
    if not found.is_file():
        raise ModelError(f"{path} keeps weights in {location!r}, which is not beside it")
    return found


def _locations(graph: Any) -> Iterator[str]:
    """Where a graph and those within it keep weights outside the file."""
    tensors = [*graph.initializer, *(attribute.t for node in graph.node for attribute in node.attribute)]
    tensors += [tensor for node in graph.node for attribute in node.attribute for tensor in attribute.tensors]
    for tensor in tensors:
        for entry in tensor.external_data:
            if entry.key == "location":
                yield entry.value
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _locations(inner)
