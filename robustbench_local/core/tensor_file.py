"""Tensors by name, and a few plain values beside them, in one .npz file that NumPy reads as well."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustbench_local.core.errors import StoreError

_ABOUT = "about"  # the array that holds the plain values, as JSON in UTF-8
_AS_BITS = {torch.bfloat16: torch.int16}  # what NumPy has no type for


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """The file appears whole or not at all. about: what JSON can hold. StoreError where it cannot be written."""
    types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    text = json.dumps({"about": dict(about), "types": types}).encode()
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            np.savez(file, allow_pickle=False, **{_ABOUT: np.frombuffer(text, np.uint8)}, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(the tensors on the CPU, the plain values). StoreError where the file is not there, damaged or another's."""
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(bytes(file[_ABOUT]))
            tensors = {name: _tensor(file[name], getattr(torch, kind)) for name, kind in head["types"].items()}
            return tensors, dict(head["about"])
    except FileNotFoundError as error:
        raise StoreError(f"there is no file {path.absolute()}") from error
    except Exception as error:  # numpy, zipfile and json die of a dozen things that a file may hold
        raise StoreError(f"{path} is no file of tensors, or damaged: {type(error).__name__}: {error}") from error


def _array(tensor: Tensor) -> Any:
    plain = tensor.detach().cpu().contiguous()
    return (plain.view(_AS_BITS[plain.dtype]) if plain.dtype in _AS_BITS else plain).numpy()


def _tensor(array: Any, kind: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(kind) if kind in _AS_BITS else tensor
