"""Per-image figures as text: short, and such that an image that changes changes one line of a lock file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import StoreError

Shares = npt.NDArray[np.float64]

IMAGES = 64  # on a line
STEP = 1 / 16  # of a margin
MOST = 255


def written(values: npt.ArrayLike, levels: int) -> list[str]:
    """Values (N,) in [0, 1], each a multiple of 1 / levels, as lines of hexadecimal digits: bits where levels is 1."""
    counts = np.rint(np.asarray(values, dtype=np.float64) * levels).astype(np.int64)
    return [_line(counts[start : start + IMAGES], levels) for start in range(0, len(counts), IMAGES)]


def read(lines: Sequence[str], levels: int, count: int) -> Shares:
    """The values (N,) that lines hold. StoreError where they hold another number, or none that could be."""
    try:
        sizes = [min(IMAGES, count - start) for start in range(0, count, IMAGES)]
        found = [_counts(line, levels, size) for line, size in zip(lines, sizes, strict=True)]
    except ValueError as error:
        raise StoreError(f"its lines do not hold {count} images: {error}") from None
    counts = np.concatenate([*found, np.zeros(0, np.int64)])
    if (counts > levels).any():
        raise StoreError(f"an image has {counts.max()} of {levels}")
    shares: Shares = counts / levels
    return shares


def coarse(margins: npt.ArrayLike) -> Shares:
    """Margins (N,), in nats, as shares of what a lock holds: from -8 to 8 in steps of a sixteenth."""
    bounded = np.clip(np.nan_to_num(np.asarray(margins, np.float64), nan=-np.inf), -128 * STEP, 127 * STEP)
    steps = np.rint(bounded / STEP) + 128
    found: Shares = steps / MOST
    return found


def margins(shares: Shares) -> Shares:
    """Margins (N,), in nats, of what `coarse` made of them."""
    found: Shares = (np.rint(shares * MOST) - 128) * STEP
    return found


def _line(counts: npt.NDArray[np.int64], levels: int) -> str:
    if levels == 1:
        return np.packbits(counts.astype(np.uint8)).tobytes().hex()
    return "".join(f"{count:0{_width(levels)}x}" for count in counts)


def _counts(line: str, levels: int, size: int) -> npt.NDArray[np.int64]:
    if levels == 1:
        raw = np.frombuffer(bytes.fromhex(line), np.uint8)
        if len(raw) != -(-size // 8):
            raise ValueError(f"a line is of {len(line)} digits")
        return np.unpackbits(raw, count=size).astype(np.int64)
    width = _width(levels)
    if len(line) != size * width:
        raise ValueError(f"a line is of {len(line)} digits, not {size * width}")
    return np.array([int(line[start : start + width], 16) for start in range(0, len(line), width)], np.int64)


def _width(levels: int) -> int:
    return len(f"{levels:x}")
