"""Weights on disk: safetensors, which hold nothing but tensors and text. A pickle can run code and is refused."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from robustbench_local.core.errors import ModelError
from robustbench_local.core.escaping import shown
from robustbench_local.storage.files import set_aside, stamp, whole_file
from robustbench_local.storage.plain_state import plain_state

State = dict[str, Tensor]
Program = Literal["torch.export", "TorchScript"]

_PICKLES = (b"PK\x03\x04", b"\x80")  # a torch.save archive, a bare pickle of protocol 2 or later
_DIGEST, _NAME = "digest", "name"  # in the metadata: sha256 over the rest of the file, and FOLDER/STEM it was saved as
# where training scripts put the weights among other things
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "ema")
_AROUND = ("module.", "_orig_mod.", "model.", "net.", "network.")  # what DataParallel, compile and trainers prefix


def save(path: str | Path, net: nn.Module, metadata: Mapping[str, str], half: bool = True) -> None:
    """Write net's state dict as safetensors, whole or not at all.

    half stores floats in 16 bits where that overflows nothing: half the size, about three decimal digits. Figures
    that go with the file must be those of the weights as `load` gives them back. StoreError as in `whole_file`.
    """
    _write(Path(path), {name: _stored(tensor, half) for name, tensor in net.state_dict().items()}, metadata)


def as_loaded(net: nn.Module) -> State:
    """net's state dict as `load` would give it back after `save` in half precision."""
    return {name: _widened(_stored(tensor, half=True)) for name, tensor in net.state_dict().items()}


def cached(path: Path) -> State | None:
    """The tensors of a checkpoint that was saved there; None where there is none, or one that was damaged or moved:
    a warning names it, and it is set aside.

    One of an earlier version, which wrote no digest, gets one now.
    """
    try:
        if (seen := stamp(path)) is None:
            return None
    except OSError:
        seen = None
    try:
        state, notes = _load_safetensors(path, None)
        if _DIGEST not in notes:
            _write(path, state, notes)
        elif notes[_NAME] != _name(path):
            raise ModelError(f"{path} was saved as {notes[_NAME]!r:.80}")
    except ModelError as error:
        aside = set_aside(path, seen) if seen else None
        moved = f"; it is {aside.name} now" if aside else ""
        warnings.warn(shown(f"{error}{moved}. It is made anew", "terminal"), stacklevel=2)
        return None
    return {name: _widened(tensor) for name, tensor in state.items()}


def load(path: str | Path, *, allow_pickle: bool = False, name: str | None = None) -> tuple[State, dict[str, str]]:
    """State dict (floats in float32, on the CPU) and metadata of a checkpoint.

    The content decides what a file is, not its name. A pickle (.pt, .pth) is refused unless allow_pickle, is then
    read by torch's restricted unpickler, has no metadata, and may hold the weights under "state_dict".
    name: FOLDER/STEM that `save` must have written it as. ModelError where the file is absent, corrupt, changed since
    it was saved, or a refused pickle.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ModelError(f"cannot open the checkpoint {path}: {error.strerror}") from error
    if what := _foreign(path, head):
        raise ModelError(f"{path} is {what}")
    # a safetensors file begins with the length of its header in 8 bytes, of which the lowest may be any pickle's first
    if not head.startswith(_PICKLES) or (head[8:] == b"{" and not any(head[4:8])):
        state, metadata = _load_safetensors(path, name)
    elif program := program_in(path):
        raise ModelError(f"{path} holds a whole {program} program and no weights alone: name it as the model")
    elif allow_pickle:
        state, metadata = _load_pickle(path), {}
    else:
        raise ModelError(
            f"{path} is a pickle, which can run code when it is read. If you trust who made it, say "
            f"allow_pickle=True; a safetensors file needs no trust"
        )
    metadata = {key: value for key, value in metadata.items() if key not in (_DIGEST, _NAME)}
    return {key: _widened(tensor) for key, tensor in state.items()}, metadata


def restore(net: nn.Module, state: State, source: str | Path) -> None:
    """Put state into net, in place. ModelError, naming source, unless names and shapes agree exactly.

    What DataParallel, torch.compile and trainers put before every name ("module.") is taken off.
    """
    own = net.state_dict()
    state = _unwrapped(state, own)
    wrong = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(wrong.values()):
        found = "; ".join(f"{what}: {_some(names)}" for what, names in wrong.items() if names)
        raise ModelError(f"the weights in {source} are of another architecture. {found}")
    net.load_state_dict(state)


def weights_digest(net: nn.Module) -> str:
    """sha256, in hex, over the state dict in the order of names: each name, dtype, shape and bytes.

    Of quantised layers over what they packed, see `plain_state`.
    """
    return _digest_of(plain_state(net.state_dict()))


def _digest_of(state: Mapping[str, Tensor], prefix: bytes = b"") -> str:
    digest = hashlib.sha256(prefix)
    for name, tensor in sorted(state.items()):
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(path: Path, state: State, metadata: Mapping[str, str]) -> None:
    notes = {**metadata, _NAME: _name(path)}
    notes[_DIGEST] = _digest_of(state, _text(notes))
    with whole_file(path) as file:
        file.write(safetensors.torch.save(state, notes))


def _name(path: Path) -> str:
    return f"{path.absolute().parent.name}/{path.stem}"


def _text(notes: Mapping[str, str]) -> bytes:
    return json.dumps({key: value for key, value in notes.items() if key != _DIGEST}, sort_keys=True).encode()


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # safetensors refuses shared memory
    if half and tensor.is_floating_point() and tensor.half().isfinite().all():
        return tensor.half()
    return tensor


def _load_safetensors(path: Path, name: str | None) -> tuple[State, dict[str, str]]:
    """As stored, and its metadata, which agree with the digest there, if there is one; with a name, there must be."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state, notes = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if _DIGEST in notes or name is not None:
            if notes.get(_DIGEST) != _digest_of(state, _text(notes)):
                raise ModelError(f"{path} is damaged: it is not what its digest says. Fetch it, or make it, again")
            if name is not None and notes[_NAME] != name:
                raise ModelError(f"{path} was saved as {notes[_NAME]!r:.80}: it is another checkpoint")
        return state, notes
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is no readable checkpoint ({error}): cut short by an interrupted download or copy, or not a "
            f"safetensors file at all. Fetch it again"
        ) from error


def program_in(path: Path) -> Program | None:
    """Which kind of whole program a file is, by its content; None where it is none, such as weights alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    if any("/models/" in name or "serialized_exported_program" in name for name in names):
        return "torch.export"
    return "TorchScript" if any("/code/" in name for name in names) else None


def _foreign(path: Path, head: bytes) -> str | None:
    """What a file is that no torch weights are in, and what to do with it; None where it may be one of ours."""
    if path.suffix.lower() == ".onnx":
        return "an ONNX model: it goes where the model is named, models=NET.onnx, and needs no architecture"
    if head.startswith(b"\x89HDF") or path.suffix.lower() in (".h5", ".hdf5", ".keras"):
        return (
            'a file of Keras: export the model to ONNX (model.export(PATH, format="onnx")), and name that as the model'
        )
    if path.suffix.lower() in (".skops", ".joblib"):
        return "a scikit-learn model: name it as the model, sklearn:FILE.skops"
    return None


def _load_pickle(path: Path) -> State:
    try:
        with open(path, "rb") as file:  # given the path, torch would judge by its suffix
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises of a damaged archive has no end
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{path} cannot be read as weights ({reason}): it is cut short, or holds more than "
            f"tensors, e.g. a whole module. Save the module's state_dict() instead"
        ) from error
    while (inner := _inner(found)) is not None:
        found = inner
    named = isinstance(found, dict) and all(isinstance(key, str) for key in found)
    if not named or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} holds no state dict: expected names and tensors, or a dict of them as {_NESTED}")
    return dict(found)


def _inner(found: object) -> object:
    """The weights within something else: of a dict those under a usual key, of a list of one its item; else None."""
    if isinstance(found, list | tuple) and len(found) == 1:
        return found[0]
    if isinstance(found, dict):
        return next((found[name] for name in _NESTED if isinstance(found.get(name), dict | list | tuple)), None)
    return None


def _unwrapped(state: State, own: Mapping[str, Tensor]) -> State:
    """The same tensors by the names that they have in the network itself."""
    while state and not own.keys() & state.keys():
        around = next((each for each in _AROUND if all(name.startswith(each) for name in state)), None)
        if around is None:
            break
        state = {name.removeprefix(around): tensor for name, tensor in state.items()}
    return state


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
