"""The images that calibrate int8: of the training split, the same every time, and otherwise the user is told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_local.core.errors import DataError
from robustbench_local.data.load import open_data
from robustbench_local.training.calibration import COUNT, calibration_images


def arrays(path: Path, test: int, train: int = 0) -> str:
    generator = np.random.default_rng(0)
    held: dict[str, Any] = {}
    for split, count in (("test", test), ("train", train)):
        if count:
            held[f"x_{split}"] = generator.integers(0, 256, (count, 6, 6, 1), dtype=np.uint8)
            held[f"y_{split}"] = np.sort(np.arange(count) % 3)
    np.savez(path / "own.npz", **held)
    return f"arrays:{path / 'own.npz'}"


def test_they_are_the_first_training_images() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = calibration_images("mnist", "bundled")
    assert torch.equal(images[:], open_data("mnist", split="train", source="bundled", n=COUNT)[:])
    assert images.digest == calibration_images("mnist", "bundled").digest


def test_of_sorted_arrays_they_are_of_every_class_and_of_few_all(tmp_path: Path) -> None:
    many = calibration_images(arrays(tmp_path, test=5, train=900))
    assert len(many) == COUNT and many.split == "train"
    assert sorted(many.labels.bincount().tolist()) == [42, 43, 43]
    assert len(calibration_images(arrays(tmp_path, test=5, train=9))) == 9


def test_without_a_training_split_the_user_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has no training images: int8 is calibrated on 5 of its test images"):
        images = calibration_images(arrays(tmp_path, test=5))
    assert images.split == "test" and len(images) == 5


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz"):
        calibration_images(f"arrays:{tmp_path / 'nowhere.npz'}")
