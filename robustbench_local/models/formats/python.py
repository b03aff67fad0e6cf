"""A user's own Python: a function, a class or an object of a module, or of a file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

from robustbench_local.core.access import Access
from robustbench_local.core.containment import contained
from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.data.vision import import_torchvision
from robustbench_local.models.black_box import BlackBox
from robustbench_local.models.format import Asked, Format, Loaded
from robustbench_local.models.weights import put_weights

T = TypeVar("T")


class Python(Format):
    suffixes = (".py",)
    summary = "your own function, class or object: module:name, or my_models.py:Net"

    def load(self, asked: Asked) -> Loaded:
        module, _, name = asked.name.rpartition(":")
        if not module:
            raise ModelError(f'"{asked.spec}" is a file of Python: say which function or class, {asked.spec}:NAME')
        here = os.getcwd()
        place = Path(module).expanduser() if module.endswith(".py") else None
        try:
            with _found_first(here if place is None else str(place.resolve().parent)), contained(ModelError, "it"):
                make = _with_torchvision(lambda: _named(module, place, name))
                model = _with_torchvision(lambda: _model(make, asked))
        except ModelError as error:
            raise ModelError(f'"{asked.spec}" failed (searched from {here}). {error}') from error
        except Exception as error:  # the user's code: whatever it dies of, say where
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f'"{asked.spec}" failed (searched from {here}){_line(error)}. {reason}') from error
        put_weights(model, asked)
        return Loaded(model, make=make)


def _named(module: str, place: Path | None, name: str) -> object:
    found = importlib.import_module(module) if place is None else _of_file(place)
    if not hasattr(found, name):
        raise ModelError(f'"{module}" has no function "{name}"{did_you_mean(name, dir(found))}')
    return getattr(found, name)


def _of_file(path: Path) -> ModuleType:
    """The module of a file, once: by its stem, unless another module has that name."""
    path = path.resolve()
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    name = path.stem
    taken = _file_of(name)
    if taken not in (None, path):
        name += "_" + hashlib.sha256(str(path).encode()).hexdigest()[:8]
    return sys.modules[name] if name in sys.modules else module_of(path, name)


def _file_of(name: str) -> Path | None:
    """The file that is, or would be, imported by that name; of a built-in or namespace module, a path that is none."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name) if "." not in name else None
        if spec is None:
            return None
        file = spec.origin
    return Path(file).resolve() if file else Path()


def module_of(path: Path, name: str) -> ModuleType:
    """A file of Python, imported under that name."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is no file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _model(make: Any, asked: Asked) -> nn.Module:
    """What a name stands for: a model; a class or function that makes one without arguments; or, where it needs one
    argument, the classifier itself, from images to scores or labels.
    """
    if isinstance(make, nn.Module):
        return make
    if not callable(make):
        raise ModelError(
            f'"{asked.name}" is a {type(make).__name__}: name a model, or a function or class that makes one'
        )
    if not _takes_nothing(make):
        asked.said.check_says(("access", "classes"), asked.spec, "takes images itself, it seems, and ")
        said = asked.said
        return BlackBox(
            make, what=asked.name, access=said.most or Access.SCORES, classes=said.class_count, batch=said.batch
        )
    made = make()
    if isinstance(made, nn.Module):
        return made
    what = f"returned a {type(made).__name__}" if inspect.isroutine(make) else f"makes a {type(made).__name__}"
    raise ModelError(f'"{asked.name}" {what}, not a torch.nn.Module; rbl.wrap makes one of any function on arrays')


def _takes_nothing(make: Callable[..., Any]) -> bool:
    """Whether it can be called without arguments, as far as its signature tells."""
    try:
        inspect.signature(make).bind()
    except TypeError:
        return False
    except ValueError:  # it has none
        return True
    return True


def _with_torchvision(work: Callable[[], T]) -> T:
    """What work() returns, also where it imports torchvision and that needs help to be imported, see data/vision.py."""
    try:
        return work()
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import_torchvision()
    return work()


@contextmanager
def _found_first(folder: str) -> Iterator[None]:
    """Modules of that folder are imported before others of the same name."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _line(error: BaseException) -> str:
    """Where in the user's own code it happened: " at my_models.py:12"."""
    trace = error.__traceback__
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and "robustbench_local" not in Path(file).parts and "site-packages" not in file:
            place = f" at {os.path.relpath(file)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
