"""The datatypes of the v2 inference protocol, as arrays and as the bytes that travel."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import ModelError

Array = npt.NDArray[Any]

NUMBERS = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
}
TEXT = "BYTES"


def as_sent(images: npt.NDArray[np.float32], datatype: str) -> Array:
    """Images as numbers of that datatype; of whole numbers the nearest. ModelError where a pixel is outside of them."""
    kind = np.dtype(NUMBERS[datatype])
    if kind.kind == "f":
        return images.astype(kind)
    limits, whole = np.iinfo(kind), np.rint(images)
    if len(images) and not (limits.min <= whole.min() and whole.max() <= limits.max):
        raise ModelError(
            f"the endpoint takes {datatype}, and these pixels are {whole.min():g} .. {whole.max():g}: say what it"
            ' expects, "0-255" most likely, and no normalise'
        )
    return whole.astype(kind)


def texts(data: bytes) -> list[str]:
    """What BYTES hold: each text behind its length in 4 bytes. ValueError where that is not so."""
    found, first = [], 0
    while first < len(data):
        if first + 4 > len(data):
            raise ValueError("a text without its length")
        (length,) = struct.unpack_from("<I", data, first)
        first += 4 + length
        if first > len(data):
            raise ValueError("a text that is cut short")
        found.append(data[first - length : first].decode())
    return found
