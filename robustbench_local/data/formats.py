"""The file formats of MNIST and CIFAR-10, read into uint8 arrays. Nothing in a file is executed."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import pickle
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Bytes

LARGEST = 1 << 26  # bytes of the largest file of either data set, and a third more
_pillow_limit = threading.Lock()


def read_whole(file: IO[bytes], origin: str) -> bytes:
    """The content of a file that may be packed; DataError where it unpacks to more than any of these files."""
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DataError(f"{origin} unpacks to more than {LARGEST} bytes: no file of MNIST or CIFAR-10 does")
    return content


def read_idx(path: Path) -> Bytes:
    """The uint8 array of an IDX file (MNIST's own format), gzipped or not."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = read_whole(file, str(path))  # type: ignore[arg-type]
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{path} is no IDX file of bytes: it starts with {content[:4].hex() or 'nothing'}")
    header = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:header]) if len(content) >= header else ()
    if not shape or len(content) != header + math.prod(shape):
        raise DataError(f"{path} has {len(content)} bytes, not the {shape} it announces: cut short?")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds containers and numpy arrays; any other name in the pickle is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise DataError(f"a pickle of CIFAR-10 asks for {module}.{name}: only numpy arrays are let in")


def read_cifar_batch(content: bytes, origin: str) -> tuple[Bytes, Bytes]:
    """Images (N, 3, 32, 32) and labels (N,) of one pickled batch of CIFAR-10's python version."""
    batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    try:
        pixels, labels = batch[b"data"], batch[b"labels"]
    except (KeyError, TypeError, IndexError):
        raise DataError(f'{origin} is no batch of CIFAR-10: it lacks "data" and "labels"') from None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
        raise DataError(f"{origin} is no batch of CIFAR-10: its data are not uint8 ({len(labels)}, 3072)")
    return pixels.reshape(-1, 3, 32, 32), np.asarray(labels, np.uint8)


def read_sprite(path: Path, size: int) -> Bytes:
    """Images (N, 3, size, size) of a sprite that holds one image in each row of size * size pixels."""
    with no_pixel_limit(), Image.open(path) as image:
        rows = np.asarray(image.convert("RGB"))
    if rows.shape[1] != size * size:
        raise DataError(f"{path} is {rows.shape[1]} pixels wide instead of {size * size}")
    return rows.reshape(-1, size, size, 3).transpose(0, 3, 1, 2)


def read_json_labels(path: Path) -> Bytes:
    return np.asarray(json.loads(path.read_text()), np.uint8).reshape(-1)


@contextlib.contextmanager
def no_pixel_limit() -> Iterator[None]:
    """Lets Pillow open images beyond its guard against decompression bombs: a sprite is one on purpose."""
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
