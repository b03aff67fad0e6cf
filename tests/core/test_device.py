"""Which devices there are, what each is called and can do, and what counts as memory that ran out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from robustbench_local.core import device as place
from robustbench_local.core.device import devices, first_batch, free_memory, hardware, out_of_memory, pick_device
from robustbench_local.core.errors import ConfigError

PACKAGE = Path(place.__file__).resolve().parents[1]
CPU = torch.device("cpu")


def counting(monkeypatch: pytest.MonkeyPatch, **counts: int) -> None:
    """So many devices of each kind are there."""
    for kind in ("cuda", "xpu", "mps"):
        monkeypatch.setattr(torch.get_device_module(kind), "device_count", lambda kind=kind: counts.get(kind, 0))


def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    counting(monkeypatch)
    assert devices() == ["cpu"] and pick_device("auto") == CPU
    counting(monkeypatch, mps=1)
    assert devices() == ["mps:0", "cpu"] and pick_device("auto") == torch.device("mps")
    counting(monkeypatch, mps=1, xpu=1)
    assert pick_device("auto") == torch.device("xpu")
    counting(monkeypatch, cuda=2, xpu=1)
    assert devices() == ["cuda:0", "cuda:1", "xpu:0", "cpu"] and pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1") and pick_device("xpu") == torch.device("xpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "xpu:3"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counting(monkeypatch, xpu=2)
    with pytest.raises(ConfigError, match=f"device {name} is not there: torch .* sees xpu:0, xpu:1, cpu") as caught:
        pick_device(name)
    assert ("driver is missing" in str(caught.value)) == (not name.startswith("xpu"))


@pytest.mark.parametrize(("name", "said"), [("tpu", "unknown device"), ("", "unknown device"), ("meta", "no images")])
def test_what_is_no_device_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pick_device(name)


def test_a_name_for_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "threads" in hardware(CPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M1")
    assert hardware(torch.device("cuda:1")) == "card 1" and hardware(torch.device("mps")) == "Apple M1"


def test_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 5)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2)
    assert [free_memory(torch.device(name)) for name in ("cuda", "mps", "cpu")] == [7, 3, None]


def test_the_same_words_for_memory_that_ran_out_wherever_it_did() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert out_of_memory(caught.value)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ):
        assert out_of_memory(error), error
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")):
        assert not out_of_memory(other), other


def test_an_accelerator_of_its_own_memory_gets_larger_batches() -> None:
    assert [first_batch(torch.device(name)) for name in ("cuda", "xpu", "mps", "cpu")] == [2048, 2048, 250, 250]


def named_kinds(source: str) -> list[str]:
    """What a file of source compares a device's kind with, or asks of torch.cuda and its like."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and any(
            isinstance(part, ast.Constant) and part.value in place.ACCELERATORS for part in node.comparators
        ):
            found.append(ast.unparse(node))
        if isinstance(node, ast.Attribute) and node.attr in place.ACCELERATORS:
            found.append(ast.unparse(node))
    return found


def test_one_file_knows_one_kind_of_device_from_another() -> None:
    assert named_kinds('if x.device.type == "cuda": torch.cuda.empty_cache()')  # the broken twin
    rooms = [PACKAGE, PACKAGE / "attacks", PACKAGE / "defenses"]  # the last two are links, which rglob does not follow
    files = [file for room in rooms for file in room.rglob("*.py") if file != Path(place.__file__).resolve()]
    assert len(files) > 250
    assert [f"{file}: {found}" for file in files for found in named_kinds(file.read_text(encoding="utf-8"))] == []


def test_nothing_is_asked_of_a_device_that_is_the_host() -> None:
    place.release_memory(CPU)
    place.synchronise(CPU)
    assert place.has_float64(CPU)
