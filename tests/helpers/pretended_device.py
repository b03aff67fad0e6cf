"""An accelerator that is not there, so that no GPU is needed to know that nothing assumes the CPU.

    with pretended() as met:
        model = build_model("mnist_small").to(DEVICE)
        evaluate(model, x.to(DEVICE), y.to(DEVICE))
    met["item"]    # how often a number was waited for

Its tensors hold the CPU's and compute there, so that results are the CPU's. Like a GPU it refuses tensors that live
elsewhere, is no NumPy array, and makes the host wait whenever a value of it must be known: each such wait is counted
by its kind. Like Apple's GPUs it has no float64. It is torch's device for new backends, under a name of ours, and stays
for as long as the process: tests import this only from files that run in one of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE = "pretended"

aten = torch.ops.aten
Calls = dict[str, Any]

# what a GPU makes the host wait for, beside boolean indices and copies from and to the host
WAITING: dict[Any, str] = {
    aten._local_scalar_dense.default: "item",
    aten.equal.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "nonzero",
    aten.bincount.default: "nonzero",
    aten.repeat_interleave.Tensor: "nonzero",
    aten._unique2.default: "nonzero",
}
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
MOVING = (aten._to_copy.default, aten.copy_.default, aten._copy_from.default)

_met: Counter[str] = Counter()


class OnDevice(Tensor):
    """A tensor of the pretended device; what it holds is `host`, on the CPU."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> OnDevice:
        if host.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"cannot hold {host.dtype}: the device has no float64")
        found: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=torch.device(DEVICE, 0),
        )
        found.host = host
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Calls | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.host})"

    def tolist(self) -> Any:
        _met["item"] += 1
        return self.host.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert a tensor on {DEVICE} to numpy: use .cpu() first")

    __array__ = numpy


class _Dispatch(TorchDispatchMode):
    """Sees what makes tensors out of nothing, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Calls | None = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def pretended() -> Iterator[Counter[str]]:
    """The device is there, and what the host waits for meanwhile is counted."""
    _met.clear()
    with _Dispatch():  # type: ignore[no-untyped-call]
        yield _met


def _run(func: Any, args: tuple[Any, ...], kwargs: Calls) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = any(isinstance(each, OnDevice) for each in tensors)
    named = kwargs.get("device")
    there = here if named is None else torch.device(named).type == DEVICE
    if not here and not there:
        return func(*args, **kwargs)
    _refuse_strangers(func, args, tensors)
    _count(func, args, tensors, there)
    if named is not None:
        kwargs = kwargs | {"device": torch.device("cpu"), "pin_memory": None}
    found = func(*tree_map(_host, args), **tree_map(_host, kwargs))
    if func is aten._to_copy.default and found is _host(args[0]):
        found = found.clone()
    if isinstance(found, Tensor) and tensors and found is _host(args[0]) and func._schema.is_mutable:
        return args[0]  # what was changed in place is the tensor that was given
    return tree_map(_placed, found) if there else found


def _host(value: Any) -> Any:
    return value.host if isinstance(value, OnDevice) else value


def _placed(value: Any) -> Any:
    return OnDevice(value) if isinstance(value, Tensor) and not isinstance(value, OnDevice) else value


def _refuse_strangers(func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """A GPU takes numbers of the host (0 dimensions), and indices into tensors of its own; nothing else."""
    strangers = [each for each in tensors if not isinstance(each, OnDevice) and each.ndim]
    if func in INDEXING and isinstance(args[0], OnDevice):
        strangers = [each for each in args[2:3] if not isinstance(each, OnDevice) and each.ndim]
    if strangers and func not in MOVING:
        shapes = [tuple(each.shape) for each in strangers]
        raise RuntimeError(f"expected all tensors to be on {DEVICE}, but found some on the CPU: {func} of {shapes}")


def _count(func: Any, args: tuple[Any, ...], tensors: list[Tensor], there: bool) -> None:
    if func in WAITING:
        _met[WAITING[func]] += 1
    elif func in MOVING:
        away, to = isinstance(args[-1 if func is aten.copy_.default else 0], OnDevice), there
        if func is aten.copy_.default:
            to = isinstance(args[0], OnDevice)
        if away != to:
            _met["upload" if to else "download"] += 1
    elif func in INDEXING:
        indices = [each for each in args[1] if each is not None]
        one_value = len(args) > 2 and args[2].numel() == 1  # filled in by a kernel that needs no indices
        if any(each.dtype == torch.bool for each in indices) and not one_value:
            _met["nonzero"] += 1
        if any(not isinstance(each, OnDevice) for each in indices):
            _met["upload"] += 1


def _set_up() -> torch.library.Library:
    """Once for a process. What autograd and the generators' owners ask of any accelerator is answered, no more."""
    module = ModuleType(f"torch.{DEVICE}")
    offered: dict[str, Callable[..., object]] = dict(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        get_device_name=lambda device=None: "a pretended accelerator",
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        synchronize=lambda device=None: None,
        empty_cache=lambda: None,
        manual_seed_all=lambda seed: None,
        get_rng_state=lambda device=None: torch.zeros(0, dtype=torch.uint8),
        set_rng_state=lambda state, device=None: None,
        _is_in_bad_fork=lambda: False,
    )
    for name, function in offered.items():
        setattr(module, name, function)
    _setup_privateuseone_for_python_backend(DEVICE, backend_module=module)
    library = torch.library.Library("aten", "IMPL")
    kernels: dict[str, Callable[..., Tensor]] = {
        "empty.memory_format": _empty,
        "empty_strided": _empty_strided,
        "_copy_from": _copy_from,
    }
    for name, kernel in kernels.items():
        library.impl(name, kernel, "PrivateUse1")
    return library


def _empty(size: list[int], **about: Any) -> Tensor:
    return OnDevice(torch.empty(size, dtype=about.get("dtype")))


def _empty_strided(size: list[int], stride: list[int], **about: Any) -> Tensor:
    return OnDevice(torch.empty_strided(size, stride, dtype=about.get("dtype")))


def _copy_from(source: Tensor, to: Tensor, non_blocking: bool = False) -> Tensor:
    _met["upload" if isinstance(to, OnDevice) else "download"] += 1
    _host(to).copy_(_host(source))
    return to


_LIBRARY = _set_up()  # before any gradient is taken: autograd counts the devices once
