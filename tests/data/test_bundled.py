from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_local.core.errors import DataError
from robustbench_local.data.bundled import BUNDLED_COUNTS, DIGESTS, FOLDER, read_bundled, write_bundled
from robustbench_local.data.cache import cached
from robustbench_local.data.catalogue import CIFAR10, DATASETS, MNIST, DataSet
from robustbench_local.data.load import load_data, open_data
from tests.helpers.stored import stored

PINNED = {
    ("mnist", "test_images"): "f8f3c5a608a9f7d4bd5e9d69b90c53932b8b99371d9db26121b42f62f3abcd56",
    ("mnist", "test_labels"): "d14ba0a1a3818edefa35518ed001ece84b7ac0eabe9394551c73928493175d3f",
    ("mnist", "train_images"): "4d1e2862007bab5908d814e74806c6c8f7c4a4f32b5875d195406d4d1dbe4946",
    ("mnist", "train_labels"): "e1be9271eae282fe1479074d79e9b9523ada775ebb01e19299727123e3acca5e",
    ("cifar10", "test_images"): "f167149948fc8fe0b9a76ba86421e987817f98b63761ba9415c5d42664d51f03",
    ("cifar10", "test_labels"): "636a087e604331a0b9dafc94b6e9ade0c9cec72c4400d12473ccdb3e264474c1",
    ("cifar10", "train_images"): "8ca13b4bad29e1e1f16d4141feeeb34ba22d919470415cefd75b9118d23160e7",
    ("cifar10", "train_labels"): "be1c28c816d430be791ef07694742adff327158d0ef082fb990dfadc30a427f0",
}


@pytest.mark.parametrize(("name", "key"), PINNED)
def test_the_bundled_images_and_labels_are_the_pinned_ones(name: str, key: str) -> None:
    assert hashlib.sha256(read_bundled(name)[key].tobytes()).hexdigest() == PINNED[name, key]


@pytest.mark.parametrize("data_set", DATASETS.values(), ids=DATASETS)
def test_the_bundled_subset_is_the_beginning_of_the_full_set(data_set: DataSet) -> None:
    full = cached(data_set)
    if full is None:
        pytest.skip(f"the full {data_set.name} is not in the cache")
    for key, part in read_bundled(data_set.name).items():
        np.testing.assert_array_equal(part, full[key][: BUNDLED_COUNTS[key.split("_")[0]]])


def test_the_bundle_opens_like_the_full_set() -> None:
    images = open_data("cifar10", source="bundled", split="train")
    assert len(images) == 2000 and stored(images).shape == (2000, 3, 32, 32) and images.classes == CIFAR10.classes
    x, y = load_data("mnist", 8, source="bundled")
    assert x.shape == (8, *MNIST.shape) and x.min() == 0 and x.max() == 1
    assert y.dtype == torch.int64 and y.tolist() == [7, 2, 1, 0, 4, 1, 4, 9]


def test_a_sprite_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustbench_local.data.bundled.BUNDLED_COUNTS", {"test": 40})
    monkeypatch.setattr("robustbench_local.data.bundled.FOLDER", tmp_path)
    images = np.random.default_rng(0).integers(0, 9, (40, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8)
    own = ("test_images", images), ("test_labels", labels)
    monkeypatch.setitem(DIGESTS, "cifar10", {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in own})
    write_bundled("cifar10", {"test_images": images, "test_labels": labels}, tmp_path)
    found = read_bundled.__wrapped__("cifar10")
    np.testing.assert_array_equal(found["test_images"], images)
    np.testing.assert_array_equal(found["test_labels"], labels)


def test_the_bundle_is_small_and_says_where_it_comes_from() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_500_000
    text = (FOLDER / "PROVENANCE.txt").read_text(encoding="utf-8")
    for data_set in DATASETS.values():
        assert data_set.provenance in text and data_set.npm_package in text


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap"])
@pytest.mark.parametrize("name", ["mnist_test.webp", "mnist_test_labels.npy"])
def test_a_damaged_bundle_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str) -> None:
    for file in FOLDER.glob("mnist*"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr("robustbench_local.data.bundled.FOLDER", tmp_path)
    read_bundled.__wrapped__("mnist")
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    content[-300] ^= 1
    other = tmp_path / name.replace("test", "train")
    damaged: dict[str, bytes] = {
        "flip": bytes(content),
        "cut": bytes(content[:-50]),
        "empty": b"",
        "swap": other.read_bytes(),
    }
    file.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        read_bundled.__wrapped__("mnist")
