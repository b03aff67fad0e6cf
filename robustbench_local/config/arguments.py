"""What the arguments of public functions may be, held against their annotations: in Python as in a grid file."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from robustbench_local.config.ranges import Says
from robustbench_local.config.settings import fitted, hints_of
from robustbench_local.core.attack import Attack
from robustbench_local.core.device import pick_device
from robustbench_local.core.errors import ConfigError, DataError, RobustBenchError, did_you_mean
from robustbench_local.core.threat import ThreatModel

P = ParamSpec("P")
R = TypeVar("R")
_REST = inspect.Parameter.VAR_KEYWORD


@dataclass(frozen=True)
class Classes:
    """A class per image: a tensor, an array or a list of whole numbers becomes int64 (N,)."""

    def fit(self, value: Any) -> Tensor:
        try:
            found = torch.as_tensor(value) if isinstance(value, Tensor | np.ndarray | list | tuple) else None
        except (TypeError, ValueError, RuntimeError):
            found = None
        whole = found is not None and not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
        if found is None or not whole or found.ndim != 1:
            raise TypeError
        return found.long()

    def spell(self, words: str) -> str:
        return "a class for each image, int64 (N,)"


@dataclass(frozen=True)
class Here:
    """A device of this machine."""

    def fit(self, value: str | torch.device) -> torch.device:
        return pick_device(value)

    def spell(self, words: str) -> str:
        return "a device: auto, cpu, cuda, cuda:1, xpu or mps"


Device = Annotated[str | torch.device, Here()]
Goals = Annotated[Any, Classes()]
OneAttack = Annotated[str | Attack, Says("one attack, by its name or as an Attack object; a grid takes several")]
Threat = Annotated[
    str | tuple[str, str | float] | ThreatModel,
    Says('text such as "linf:8/255", "l2:0.5" or "none", a pair such as ("linf", 8/255), or a ThreatModel'),
]


def _of_tensors(hint: Any) -> bool:
    return hint is Tensor or any(_of_tensors(part) for part in typing.get_args(hint))


def checked(error: type[RobustBenchError] = ConfigError) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function whose arguments are made to fit their annotations, or refused with that error before it runs.

    An argument that is to be a tensor is refused with DataError; one that the function does not have, or that is
    missing, with the error as well.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        kinds = {name: each.kind for name, each in signature.parameters.items()}
        names = [name for name, kind in kinds.items() if kind not in (_REST, inspect.Parameter.VAR_POSITIONAL)]
        hints = functools.cache(lambda: hints_of(function))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            what = function.__name__
            for name in () if _REST in kinds.values() else kwargs:
                if name not in names:
                    near = did_you_mean(name, names)
                    raise error(f'{what} has no argument "{name}"{near}: it has {", ".join(names)}')
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as fault:
                raise error(f"{what}: {fault}; it has {', '.join(names)}") from None
            for name in names:
                if name in bound.arguments:
                    hint = hints().get(name, Any)
                    kind = DataError if _of_tensors(hint) else error
                    bound.arguments[name] = fitted(bound.arguments[name], hint, name, kind)
            return function(*bound.args, **bound.kwargs)

        return call

    return wrap
