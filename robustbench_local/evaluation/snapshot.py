"""What a model was before it was attacked: whether it still is, and how it becomes that again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks_of_all

_SLOTS = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))  # parameters, hooks ...
_NAMED = ("_parameters", "_buffers", "_modules")
_CLASSWIDE = ("forward", "__call__", "_call_impl", "_wrapped_call_impl")
_NOTHING = object()


class Snapshot:
    """A model's tensors with their values, its modules, hooks and modes, and what else of it can be called.

    Not seen are numbers and containers that a module keeps for itself, such as a count of its questions.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = dict(model.named_modules())
        self._kinds = {name: (module, type(module)) for name, module in modules.items()}
        self._held = [*_held(modules)]
        classes = {kind for _, own in self._kinds.values() for kind in own.__mro__ if kind is not object}
        self._classes = [(kind, key, vars(kind).get(key, _NOTHING)) for kind in classes for key in _CLASSWIDE]
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for each in self._held:
            named |= {each.named(key): value for key, value in each.before.items() if isinstance(value, Tensor)}
        tensors = {id(tensor): (name, tensor) for name, tensor in reversed(named.items())}  # by its first name, once
        self._values = [(*each, each[1].detach().clone(), each[1].requires_grad) for each in tensors.values()]

    def changed(self) -> set[str]:
        """The names of all that is no longer what it was."""
        others = [name for name, (module, kind) in self._kinds.items() if type(module) is not kind]
        names = {f"the class of {name or 'the model'}" for name in others}
        names |= {each.named(key) for each in self._held for key in each.differing()}
        patched = [(kind, key) for kind, key, was in self._classes if vars(kind).get(key, _NOTHING) is not was]
        names |= {f"{kind.__name__}.{key}" for kind, key in patched}
        return names | {
            name
            for name, tensor, value, wanted in self._values
            if tensor.requires_grad != wanted or not _same(tensor, value)
        }

    def restore(self) -> None:
        """The same objects where they were, with the same values."""
        for module, kind in self._kinds.values():
            if type(module) is not kind:
                module.__class__ = kind
        for each in self._held:
            if each.differing():
                each.restore()
        for kind, key, was in self._classes:
            if was is _NOTHING and key in vars(kind):
                delattr(kind, key)
            elif vars(kind).get(key, _NOTHING) is not was:
                setattr(kind, key, was)
        with torch.no_grad():
            for _, tensor, value, wanted in self._values:
                if tensor.shape != value.shape or tensor.dtype != value.dtype or tensor.device != value.device:
                    tensor.data = value.clone()
                elif not _same(tensor, value):
                    tensor.copy_(value)
                if tensor.requires_grad != wanted:
                    tensor.requires_grad_(wanted)

    def foreign(self, ask: Callable[[], object]) -> set[str]:
        """The names of what changed, but for what the model changes by itself when asked. Then all is as it was."""
        names = self.changed()
        if names:
            self.restore()
            ask()
            names -= self.changed()
            self.restore()
        return names


@contextmanager
def restored(model: nn.Module) -> Iterator[Snapshot]:
    """However it ends, the model is afterwards what it was."""
    before = Snapshot(model)
    try:
        yield before
    finally:
        before.restore()


@dataclass(frozen=True)
class _Held:
    """A dictionary that belongs to a module, and what it held of `kinds` (None: of all)."""

    owner: str
    slot: str
    now: dict[Any, Any]
    before: dict[Any, Any]

    @classmethod
    def of(cls, owner: str, slot: str, now: dict[Any, Any]) -> _Held:
        return cls(owner, slot, now, _kept(slot, now))

    def named(self, key: object) -> str:
        prefix = f"{self.owner}." if self.owner else ""
        return f"{prefix}{key}" if self.slot in ("", *_NAMED) else f"{prefix}{self.slot.strip('_')}"

    def differing(self) -> list[Any]:
        now = _kept(self.slot, self.now)
        return [key for key in now | self.before if now.get(key, _NOTHING) is not self.before.get(key, _NOTHING)]

    def restore(self) -> None:
        if self.slot:  # hooks run in their order
            self.now.clear()
            self.now.update(self.before)
        for key in self.differing():
            if key in self.before:
                self.now[key] = self.before[key]
            else:
                del self.now[key]


def _held(modules: dict[str, nn.Module]) -> Iterator[_Held]:
    for name, module in modules.items():
        yield _Held.of(name, "", vars(module))
        yield from (_Held.of(name, slot, held) for slot in _SLOTS if isinstance(held := vars(module).get(slot), dict))
    for slot, held in vars(hooks_of_all).items():
        if slot.startswith("_global") and isinstance(held, dict):
            yield _Held.of("all modules", slot, held)


def _kept(slot: str, held: dict[Any, Any]) -> dict[Any, Any]:
    """All of a slot; of a module's own dictionary (slot "") the slots themselves, the mode, tensors and callables."""
    if slot:
        return dict(held)
    return {
        key: value
        for key, value in held.items()
        if key == "training" or key in _SLOTS or isinstance(value, Tensor) or callable(value)
    }


def _same(a: Tensor, b: Tensor) -> bool:
    """To the last bit: NaN equals the same NaN."""
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    return torch.equal(a, b) or (a.is_floating_point() and torch.equal(_bits(a), _bits(b)))


def _bits(a: Tensor) -> Tensor:
    return a.detach().reshape(-1).view(torch.uint8)
