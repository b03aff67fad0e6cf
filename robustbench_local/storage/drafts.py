"""States of training in the cache: written with a digest, verified when read, set aside where they are damaged."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from robustbench_local.storage.files import set_aside, stamp, whole_file

_DIGEST_BYTES = 32  # sha256 of the file's name and of what follows
_EPOCHS_BYTES = 8  # how many are behind the state that follows


def write_draft(path: Path, state: dict[str, Any], epochs: int) -> None:
    """Replace the draft by the state after so many epochs, unless the one that is there has come further.

    So of two processes that train the same, as where one was taken for dead, the slower sets nobody back. StoreError as
    in `whole_file`.
    """
    if _epochs(path) > epochs:
        return
    packed = io.BytesIO(epochs.to_bytes(_EPOCHS_BYTES))
    packed.seek(_EPOCHS_BYTES)
    torch.save(state, packed)  # into memory: a full disk is then an error of the file's, not one of torch's own
    with whole_file(path) as file:
        file.write(_digest(path, packed.getvalue()))
        file.write(packed.getvalue())


def read_draft(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What was written last; None where there is nothing, or something damaged, of which a warning tells."""
    try:
        if (seen := stamp(path)) is None:
            return None
        content = path.read_bytes()
        if content[:_DIGEST_BYTES] == _digest(path, content[_DIGEST_BYTES:]):
            packed = io.BytesIO(content[_DIGEST_BYTES + _EPOCHS_BYTES :])
            state: dict[str, Any] = torch.load(packed, map_location=device, weights_only=True)
            return state
        fault = "it was cut short or changed, or an earlier version wrote it"
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        fault = str(error).partition("\n")[0]
        seen = None
    aside = set_aside(path, seen) if seen else None
    moved = f"; it is {aside.name} now" if aside else ""
    warnings.warn(f"{path} is no state of training to go on from: {fault}{moved}. Training begins anew", stacklevel=2)
    return None


def _epochs(path: Path) -> int:
    """How many epochs the draft there has behind it: 0 of none, and of a damaged one."""
    try:
        content = path.read_bytes()
    except OSError:
        return 0
    whole = content[:_DIGEST_BYTES] == _digest(path, content[_DIGEST_BYTES:])
    return int.from_bytes(content[_DIGEST_BYTES : _DIGEST_BYTES + _EPOCHS_BYTES]) if whole else 0


def _digest(path: Path, content: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\n" + content).digest()
