"""What a model of a user's own computes besides its weights, as a digest: an edited forward is another model.

Digested is what is loaded, not what a file says by now: the module tree with every attribute that is no weight, the
bytecode of a stranger's classes and functions, and, from there on, all that this code names: helpers, constants,
closures, modules of the user's own. Installed packages count by name and version, Python's own and ours by name.
Comments, addresses and the order of sets make no difference.
"""

from __future__ import annotations

import collections
import dis
import functools
import hashlib
import importlib.util
import io
import os
import sys
import sysconfig
import types
import zipfile
from collections.abc import Iterable, Mapping
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from numbers import Number
from pathlib import Path, PurePath
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from robustbench_local.core.errors import ModelError

DECLARED = "rbl_identity"  # an attribute of the model, or of the function that makes it, that is taken instead

_OURS = __name__.partition(".")[0]
_STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
_STATE = {"_parameters", "_buffers", "_modules", "training"}  # weights, children, and what a judge sets
_DERIVED = {"__dict__", "__weakref__", "__doc__", "__firstlineno__", "__static_attributes__", "__annotations__"}


def behaviour(model: nn.Module, make: object = None) -> str:
    """sha256, in hex, of what the model does besides its weights; make: the function that it came from.

    `rbl_identity`, a text on either of them, says it instead: for what no digest can see, such as a server asked.
    """
    for owner in (model, make):
        declared = getattr(owner, DECLARED, None)
        if declared is not None:
            if not isinstance(declared, str) or not declared:
                raise ModelError(f"{DECLARED} is {declared!r}: it must be a text that says which model this is")
            return hashlib.sha256(f"declared {declared}".encode()).hexdigest()
    walk = _Walk()
    try:
        walk.add(model)
        walk.add(make)
    except RecursionError:
        raise ModelError(f"the model is nested too deeply to tell it from others: give it a {DECLARED}") from None
    return walk.digest.hexdigest()


class _Walk:
    """Everything reachable, each once: what was met before is named by when it was met."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.met: dict[int, tuple[int, Any]] = {}  # holds the objects, whose ids would otherwise be given anew

    def say(self, *words: object) -> None:
        self.digest.update(f"{words!r}\n".encode())

    def add(self, value: Any) -> None:
        if isinstance(value, Enum):
            self.say(type(value).__qualname__, value.name)
        elif value is None or isinstance(value, bool | str | bytes | Number | np.generic | range | slice | PurePath):
            self.say(type(value).__name__, str(value) if isinstance(value, PurePath) else value)
        elif isinstance(value, tuple):  # never met: whether equal constants are one object is an accident
            self.every("tuple", value)
        elif isinstance(value, set | frozenset):
            self.say("set", sorted(_alone(item) for item in value))
        elif id(value) in self.met:
            self.say("met", self.met[id(value)][0])
        else:
            self.met[id(value)] = len(self.met), value
            self.once(value)

    def once(self, value: Any) -> None:
        match value:
            case Tensor():
                self.tensor(value)
            case np.ndarray():
                self.say("array", str(value.dtype), value.shape)
                self.digest.update(value.tobytes() if value.dtype.kind != "O" else _alone(value.tolist()).encode())
            case nn.Module():
                self.module(value)
            case type():
                self.kind(value)
            case types.CodeType():
                self.code(value)
            case types.FunctionType():
                self.function(value)
            case types.MethodType():
                self.every("method", [value.__func__, value.__self__])
            case functools.partial():
                self.every("partial", [value.func, value.args, value.keywords])
            case property():
                self.every("property", [value.fget, value.fset, value.fdel])
            case classmethod() | staticmethod():
                self.every(type(value).__name__, [value.__func__])
            case types.ModuleType():
                self.python_module(value)
            case os._Environ():
                self.say("environment")
            case collections.abc.Mapping():
                self.every("mapping", [part for pair in value.items() for part in pair])
            case list() | collections.deque():
                self.every("list", value)
            case _:
                self.thing(value)

    def every(self, what: str, values: Iterable[Any]) -> None:
        values = list(values)
        self.say(what, len(values))
        for value in values:
            self.add(value)

    def tensor(self, value: Tensor) -> None:
        self.say("tensor", str(value.dtype), tuple(value.shape))
        if value.layout is torch.strided and not value.is_meta:
            self.digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())

    def module(self, value: nn.Module) -> None:
        """Weights, which have a digest of their own, by name only."""
        self.add(type(value))
        if isinstance(value, torch.jit.ScriptModule):
            self.digest.update(_scripted(value))
            return
        traced = isinstance(value, GraphModule)
        self.say("parameters", sorted(value._parameters), "code", value.code if traced else "")
        for name, held in vars(value).items():
            if name in _STATE or (traced and not isinstance(held, Tensor | Number | str | bool)):
                continue
            if isinstance(held, Mapping | set | NoneType) and not held and name.startswith("_"):
                continue  # torch's own slots, of which a later version may have more
            self.say("attribute", name)
            hooks = "hooks" in name and isinstance(held, Mapping)
            self.add(list(held.values()) if hooks else held)  # hooks without the numbers that a process gave them
        for name in sorted(value._non_persistent_buffers_set):  # no part of the state dict
            self.say("buffer", name)
            self.add(value._buffers.get(name))
        for name, child in value._modules.items():
            self.say("child", name)
            self.add(child)

    def kind(self, value: type) -> None:
        """A class: of a stranger's all that it defines, and its bases."""
        self.say("class", _home(value.__module__), value.__qualname__, _release(value.__module__))
        if _theirs(value.__module__):
            for name, item in sorted(vars(value).items()):
                if name not in _DERIVED:
                    self.say("defines", name)
                    self.add(item)
            self.every("bases", value.__bases__)

    def function(self, value: types.FunctionType) -> None:
        self.say("function", _home(value.__module__), value.__qualname__, _release(value.__module__))
        if not _theirs(value.__module__):
            return
        self.add(value.__code__)
        self.every("defaults", [value.__defaults__, value.__kwdefaults__, vars(value)])
        for cell in value.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # not filled yet
                self.say("empty cell")
        for name in sorted(_names(value.__code__) & value.__globals__.keys()):
            self.say("global", name)
            self.add(value.__globals__[name])
        for name in sorted(_imports(value.__code__, value.__globals__.get("__package__") or "")):
            self.imported(name)

    def code(self, value: types.CodeType) -> None:
        """Neither where it stands in its file nor what its comments say."""
        self.say("code", value.co_code, value.co_names, value.co_varnames, value.co_freevars, value.co_flags)
        self.add(value.co_consts)

    def python_module(self, value: types.ModuleType) -> None:
        """A module that code names: of a stranger's all that it defines."""
        self.say("module", value.__name__, _release(value.__name__))
        if _theirs(value.__name__):
            for name, item in sorted(vars(value).items()):
                if not name.startswith("__"):
                    self.say("defines", name)
                    self.add(item)

    def imported(self, name: str) -> None:
        """A module that a function imports when it runs; where nothing has yet, its file stands for it."""
        if name in sys.modules:
            self.add(sys.modules[name])
        elif _theirs(name):
            try:
                spec = importlib.util.find_spec(name)
                source = Path(spec.origin).read_bytes() if spec is not None and spec.origin is not None else b""
            except (ImportError, ValueError, OSError):
                source = b""
            self.say("to be imported", name, hashlib.sha256(source).hexdigest())

    def thing(self, value: object) -> None:
        """Any other object: its class, its name, and what it holds unless it is torch's or an installed package's."""
        self.add(type(value))
        named = getattr(value, "__qualname__", getattr(value, "__name__", ""))
        self.say("named", named if isinstance(named, str) else "")
        holder = type(value).__module__
        if holder == "functools":  # what it wraps
            self.every("wraps", [getattr(value, name, None) for name in ("func", "__wrapped__")])
        elif _theirs(holder) or holder in ("types", "argparse"):
            slots = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())}
            self.add({name: getattr(value, name) for name in sorted(slots - _DERIVED) if hasattr(value, name)})
            self.add(getattr(value, "__dict__", {}))


def _alone(value: Any) -> str:
    walk = _Walk()
    walk.add(value)
    return walk.digest.hexdigest()


def _scripted(value: nn.Module) -> bytes:
    """A TorchScript module as it is saved, but for where its lines came from."""
    file = io.BytesIO()
    torch.jit.save(value, file)
    digest = hashlib.sha256()
    with zipfile.ZipFile(file) as archive:
        for name in sorted(name for name in archive.namelist() if "debug" not in name and "/.data/" not in name):
            digest.update(name.partition("/")[2].encode() + archive.read(name))
    return digest.digest()


def _names(code: types.CodeType) -> set[str]:
    """The names that code and the functions in it may look up in their module."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _imports(code: types.CodeType, package: str) -> set[str]:
    """The modules that code and the functions in it import when they run; what comes from one may be one as well."""
    found: set[str] = set()
    loaded: list[Any] = []
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            loaded.append(step.argval)
        elif step.opname == "IMPORT_NAME":
            up, parts = loaded[-2:]
            base = package.rsplit(".", up - 1)[0] if up else ""
            name = ".".join(part for part in (base, step.argval) if part)
            found |= {name, *(f"{name}.{part}" for part in parts or ())}
    return found.union(*(_imports(part, package) for part in code.co_consts if isinstance(part, types.CodeType)))


@functools.cache
def _theirs(module: str) -> bool:
    """Whether code of that module is a user's own: neither Python's, nor torch's, nor ours, nor installed."""
    top = module.partition(".")[0]
    if top in (_OURS, "torch") or (top in sys.stdlib_module_names and top != "__main__"):
        return False
    loaded = sys.modules.get(module) or sys.modules.get(top)
    file = getattr(loaded, "__file__", None)
    if file is None:
        return True
    place = Path(file).resolve()
    return not {"site-packages", "dist-packages"} & set(place.parts) and not place.is_relative_to(_STDLIB)


def _home(module: str) -> str:
    """Where code is said to be: of this package just that, whose files may be moved about."""
    return _OURS if module.partition(".")[0] == _OURS else module


@functools.cache
def _release(module: str) -> str:
    """The version of the installed package that a module is of; "" of all others."""
    top = module.partition(".")[0]
    if top in (_OURS, "torch") or top in sys.stdlib_module_names or _theirs(module):
        return ""
    own = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(own, str):
        return own
    try:
        return version(top)
    except PackageNotFoundError:
        return ""
