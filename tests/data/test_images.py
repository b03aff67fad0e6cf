from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from robustbench_local.core.errors import DataError
from robustbench_local.data.images import load_images
from robustbench_local.data.load import load_data, open_data
from robustbench_local.data.selection import select

CLASSES = ("a", "b", "c")
LABELS = np.arange(90) % 3


@pytest.fixture
def memory_map(tmp_path: Path) -> npt.NDArray[Any]:
    """30 images of 3x4x5 with every byte value among them, as the cache would map them."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 3, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    mapped: npt.NDArray[Any] = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    return mapped


def test_indexing_gives_exactly_pixels_over_255_whatever_the_index(memory_map: npt.NDArray[Any]) -> None:
    images = load_images("toy", "test", memory_map, LABELS, slice(10, 60), CLASSES, "cpu")
    expected = memory_map[10:60].astype(np.float32) / np.float32(255)
    mask = torch.arange(50) % 7 == 0
    for rows in (slice(None), slice(3, 9), torch.tensor([4, 0, 49]), mask):
        index = rows if isinstance(rows, slice) else rows.numpy()
        found = images[rows]
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), expected[index])
    assert set(np.unique(memory_map)) == set(range(256))
    assert len(images) == 50 and images.ids.tolist() == list(range(10, 60))
    assert images.labels.dtype == torch.int64 and images.labels.tolist() == LABELS[10:60].tolist()


def test_a_slice_stays_in_the_memory_map_and_writing_to_a_batch_leaves_it_alone(memory_map: npt.NDArray[Any]) -> None:
    images = load_images("toy", "test", memory_map, LABELS, slice(10, 60), CLASSES, "cpu")
    assert isinstance(images.pixels, np.memmap) and np.shares_memory(images.pixels, memory_map)
    before = images[:].clone()
    images[:].zero_()
    assert torch.equal(images[:], before)


def test_the_digest_is_that_of_pixels_then_labels_and_tells_selections_apart(memory_map: npt.NDArray[Any]) -> None:
    chosen = load_images("toy", "test", memory_map, LABELS, [5, 2], CLASSES, "cpu")
    content = memory_map[[5, 2]].tobytes() + LABELS[[5, 2]].astype("<i8").tobytes()
    assert chosen.digest == hashlib.sha256(content).hexdigest()
    assert chosen.digest != load_images("toy", "test", memory_map, LABELS, [2, 5], CLASSES, "cpu").digest
    sliced = load_images("toy", "test", memory_map, LABELS, slice(2, 5), CLASSES, "cpu")
    assert sliced.digest == load_images("toy", "test", memory_map, LABELS, [2, 3, 4], CLASSES, "cpu").digest


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_floats_from_its_own_memory_and_streamed(
    memory_map: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = load_images("toy", "test", memory_map, LABELS, slice(0, 90), CLASSES, "cpu")
    resident = load_images("toy", "test", memory_map, LABELS, slice(0, 90), CLASSES, "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 100))
    streamed = load_images("toy", "test", memory_map, LABELS, slice(0, 90), CLASSES, "cuda")
    assert isinstance(resident.pixels, torch.Tensor) and resident.pixels.dtype == torch.uint8
    assert isinstance(streamed.pixels, np.memmap)
    rows = torch.tensor([3, 80, 1])
    for images in (resident, streamed):
        assert images[rows].is_cuda and images.labels.is_cuda
        assert torch.equal(images[rows.cuda()].cpu(), on_cpu[rows])


def test_n_takes_the_first_and_ids_take_a_slice_or_themselves() -> None:
    assert select(LABELS, CLASSES, None, None, None, 0) == slice(0, 90)
    assert select(LABELS, CLASSES, 7, None, None, 0) == slice(0, 7)
    assert select(LABELS, CLASSES, None, "10:40", None, 0) == slice(10, 40)
    assert select(LABELS, CLASSES, 5, "10:", None, 0) == slice(10, 15)
    assert select(LABELS, CLASSES, None, slice(80, None), None, 0) == slice(80, 90)
    assert select(LABELS, CLASSES, None, [9, 3, 4], None, 0) == [9, 3, 4]
    tensor: Any = torch.tensor([9, 3, 4])
    assert select(LABELS, CLASSES, 2, tensor, None, 0) == [9, 3]


def test_a_stratified_draw_is_balanced_seeded_nested_and_within_the_ids() -> None:
    drawn = select(LABELS, CLASSES, 31, "20:80", "stratified", 5)
    assert sorted(Counter(LABELS[drawn]).values()) == [10, 10, 11]
    assert isinstance(drawn, list) and drawn == sorted(set(drawn)) and min(drawn) >= 20 and max(drawn) < 80
    assert drawn == select(LABELS, CLASSES, 31, "20:80", "stratified", 5)
    assert drawn != select(LABELS, CLASSES, 31, "20:80", "stratified", 6)
    fewer = select(LABELS, CLASSES, 17, "20:80", "stratified", 5)
    assert isinstance(fewer, list) and set(fewer) < set(drawn)


def test_a_draw_leaves_the_global_random_state_alone() -> None:
    numpy_state, torch_state = json.dumps(str(np.random.get_state())), torch.get_rng_state()
    load_data("mnist", 20, source="bundled", sample="stratified", seed=3)
    assert numpy_state == json.dumps(str(np.random.get_state()))
    assert torch.equal(torch_state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"n": 0}, "n=0 lies outside [1, 90]"),
        ({"n": 91}, "n=91 lies outside [1, 90]"),
        ({"n": 4, "ids": "0:3"}, "n=4 lies outside [1, 3]"),
        ({"ids": "80:91"}, "80:91 lie outside 0:90"),
        ({"ids": "5:5"}, "hold no image"),
        ({"ids": "-5:"}, "lie outside"),
        ({"ids": "17"}, "START:STOP"),
        ({"ids": "a:b"}, "START:STOP"),
        ({"ids": slice(0, 9, 2)}, "step"),
        ({"ids": [3, -1]}, "[-1] lie outside [0, 89]"),
        ({"ids": [3, 3]}, "distinct"),
        ({"ids": []}, "distinct"),
        ({"n": 5, "sample": "random"}, "stratified"),
        ({"sample": "stratified"}, "give n"),
        ({"n": 20, "ids": [0, 3, 6, *range(7, 30)], "sample": "stratified", "few": 1}, "class b"),
    ],
)
def test_a_choice_out_of_range_is_an_error_that_says_so(choice: Any, said: str) -> None:
    labels = np.where(LABELS == 1, 0, LABELS) if choice.pop("few", 0) else LABELS
    with pytest.raises(DataError) as raised:
        select(labels, CLASSES, **{"n": None, "ids": None, "sample": None, "seed": 0} | choice)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cifar", {}, 'did you mean "cifar10"'),
        ("mnist", {"split": "tset"}, 'did you mean "test"'),
        ("mnist", {"source": "bundled", "n": 1001}, "only the first images"),
        ("mnist", {"source": "bundled", "ids": "1000:1100"}, "only the first images"),
        ("mnist", {"source": "no/such/place"}, "is not a folder"),
        ("folder:somewhere", {"source": "bundled"}, "names its own place"),
    ],
)
def test_a_wrong_name_split_or_source_is_an_error_that_says_so(
    name: str, options: dict[str, Any] | dict[str, str], said: str
) -> None:
    with pytest.raises(DataError) as raised:
        open_data(name, **options)
    assert said in str(raised.value)
