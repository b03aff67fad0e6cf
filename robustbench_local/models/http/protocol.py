"""The v2 inference protocol of KServe and Triton: images in, an answer out, as JSON or with binary data.

https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustbench_local.core.errors import ModelError
from robustbench_local.models.http.client import Reply
from robustbench_local.models.http.datatypes import NUMBERS, TEXT, Array, texts
from robustbench_local.models.http.patience import LostError

LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Protocol:
    """How a model is asked: its input by name and datatype, one output by name.

    binary: whether images are sent as bytes, and the answer is wanted so; both are read, however they were asked for.
    batched: whether the first axis counts images; otherwise a request is one image. version: the one that must answer.
    """

    input: str
    datatype: str
    output: str
    binary: bool
    batched: bool = True
    version: str | None = None

    def request(self, images: Array, name: str) -> tuple[bytes, dict[str, str]]:
        """(body, headers) for images as they are sent; name: of the request, which a server repeats."""
        shape = images.shape if self.batched else images.shape[1:]
        tensor: dict[str, Any] = {"name": self.input, "shape": list(shape), "datatype": self.datatype}
        wanted: dict[str, Any] = {"name": self.output}
        raw = b""
        if self.binary:
            raw = np.ascontiguousarray(images).tobytes()
            tensor["parameters"] = {"binary_data_size": len(raw)}
            wanted["parameters"] = {"binary_data": True}
        else:
            tensor["data"] = images.reshape(-1).tolist()  # of float32 the same number in float64, so nothing is lost
        head = json.dumps({"id": name, "inputs": [tensor], "outputs": [wanted]}).encode()
        if not self.binary:
            return head, {"Content-Type": "application/json"}
        return head + raw, {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}

    def answer(self, reply: Reply, count: int, name: str) -> Array | list[str]:
        """What a reply says of so many images: an array (count, ...), or the names of their classes.

        LostError where it is not whole, which another try may mend; ModelError where it is whole and wrong.
        """
        head, raw = _parts(reply)
        told = head.get("id")
        if told not in (None, "", name):
            raise LostError(f"the answer is to another request ({told!r:.40})")
        version = head.get("model_version")
        if self.version is not None and version not in (None, "", self.version):
            raise ModelError(
                f"version {version!r:.40} of the model answered, and version {self.version} was asked: it was replaced"
                " meanwhile. Rows of two models must not be mixed; run again"
            )
        tensor, data = _output(head, raw, self.output)
        shape = tensor.get("shape")
        if not (isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape)):
            raise ModelError(f"the answer has shape {shape!r:.80}: it must be a list of whole numbers")
        full = shape if self.batched else [1, *shape]
        if not full or full[0] != count:
            raise ModelError(f"the answer has shape {shape} for {count} images")
        values = _values(tensor, data)
        if len(values) != math.prod(shape):
            raise LostError(f"the answer holds {len(values)} values for the shape {shape}")
        return values if isinstance(values, list) else values.reshape(full)


def _parts(reply: Reply) -> tuple[dict[str, Any], bytes]:
    """(the JSON of an answer, the bytes after it)."""
    body, length = reply.body, reply.headers.get(LENGTH.lower())
    if length is not None:
        if not (length.isascii() and length.isdecimal() and len(length) < 20 and int(length) <= len(body)):
            raise LostError(f"the answer's JSON is {length!r:.30} bytes long, of {len(body)} in all")
        body = body[: int(length)]
    try:
        head = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise LostError(f"the answer is no JSON ({type(error).__name__}, {len(body)} bytes)") from None
    if not isinstance(head, dict):
        raise LostError(f"the answer is a {type(head).__name__}, no object of JSON")
    if "error" in head:
        raise ModelError(f"the answer is an error: {head['error']!r:.300}")
    return head, reply.body[len(body) :]


def _output(head: dict[str, Any], raw: bytes, wanted: str) -> tuple[dict[str, Any], bytes | None]:
    """(the wanted output, its bytes; None where its data are in the JSON)."""
    outputs = head.get("outputs")
    if not (isinstance(outputs, list) and all(isinstance(each, dict) for each in outputs)):
        raise ModelError(f"the answer has outputs {outputs!r:.80}: it must be a list of tensors")
    first = 0
    for each in outputs:
        parameters = each.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is not None and not (type(size) is int and 0 <= size <= len(raw) - first):
            raise LostError(f"an output of {size!r:.30} bytes, of {len(raw)} that came")
        if each.get("name") == wanted:
            return each, None if size is None else raw[first : first + size]
        first += size or 0
    names = ", ".join(f"{each.get('name')!r:.40}" for each in outputs[:8]) or "none"
    raise ModelError(f'the answer has no output "{wanted}", but {names}')


def _values(tensor: dict[str, Any], raw: bytes | None) -> Array | list[str]:
    """All values of a tensor, in a row."""
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in (*NUMBERS, TEXT):
        raise ModelError(f"the answer is of datatype {datatype!r:.40}: expected {', '.join(NUMBERS)} or {TEXT}")
    if raw is not None:
        return _of_bytes(raw, datatype)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise ModelError(f"the answer's data is {data!r:.80}: it must be a list")
    return _of_texts(data) if datatype == TEXT else _of_numbers(data, datatype)


def _of_bytes(raw: bytes, datatype: str) -> Array | list[str]:
    try:
        return texts(raw) if datatype == TEXT else np.frombuffer(raw, NUMBERS[datatype])
    except ValueError as error:
        raise LostError(f"the answer's {len(raw)} bytes are no {datatype} ({error})") from None


def _of_texts(data: Sequence[Any]) -> list[str]:
    if not all(isinstance(each, str) for each in data):
        raise ModelError("the answer's data are not the texts that its datatype says")
    return list(data)


def _of_numbers(data: Sequence[Any], datatype: str) -> Array:
    """The protocol has them in a row, and some servers in lists of lists."""
    try:
        found = np.asarray(data)
    except ValueError:
        raise ModelError("the answer's data are lists of different lengths") from None
    if found.dtype.kind not in "fiu" and len(data):
        raise ModelError(f"the answer's data are {found.dtype}, and no numbers")
    with np.errstate(over="ignore"):  # infinities are refused where scores are
        return found.astype(NUMBERS[datatype]).reshape(-1)
