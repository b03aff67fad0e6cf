"""A class has one number in every split, and a sample of a few images is not of one class."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.errors import DataError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data import encoded
from robustbench_local.data.images import few_classes
from robustbench_local.data.load import open_data
from robustbench_local.data.pictures import read_picture
from robustbench_local.data.selection import select
from robustbench_local.evaluation.judge import Judge
from tests.helpers.stored import stored

SHADES = {"cat": 60, "dog": 120, "emu": 240}


def save(folder: Path, name: str, count: int = 2) -> None:
    """Images that are nothing but the shade of their class, but for one pixel that tells them apart."""
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.full((4, 5), SHADES.get(name, 99), np.uint8)
        pixels[0, 0] = i % 256
        Image.fromarray(pixels).save(folder / f"{i:04}.png")


class ByShade(nn.Module):
    """Knows the three classes of SHADES perfectly, in the order of the training split."""

    def forward(self, x: Tensor) -> Tensor:
        shades = torch.tensor(list(SHADES.values())) / 255
        logits: Tensor = -10 * (x[:, 0, 2, 2, None] - shades).abs()
        return logits


def test_a_class_that_one_split_lacks_keeps_its_number(tmp_path: Path) -> None:
    for split, names in (("train", ("cat", "dog", "emu")), ("test", ("cat", "emu"))):
        for name in names:
            save(tmp_path / split / name, name)
    test, train = open_data(f"folder:{tmp_path}"), open_data(f"folder:{tmp_path}", split="train")
    assert test.classes == train.classes == ("cat", "dog", "emu")
    assert test.labels.tolist() == [0, 0, 2, 2] and train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    verdict = Judge()(ByShade(), test, PGD(steps=1), ThreatModel.parse("linf:0.01"))
    assert verdict.clean_accuracy == 1 and verdict.flags == ("few_classes:2/3",)
    (tmp_path / "test" / "dog").mkdir()  # empty here, but a class all the same
    assert open_data(f"folder:{tmp_path}").labels.tolist() == [0, 0, 2, 2]
    shutil.rmtree(tmp_path / "train" / "dog")
    with pytest.raises(DataError, match=r"dog holds no image"):
        open_data(f"folder:{tmp_path}")


def test_arrays_of_two_splits_number_their_classes_alike(tmp_path: Path) -> None:
    x = np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=[0, 1, 2, 3], x_test=x[:2], y_test=np.array([0, 2], np.int16))
    for split in ("test", "train"):
        assert open_data(f"arrays:{tmp_path / 'd.npz'}", split=split).classes == ("0", "1", "2", "3")


def test_names_are_sorted_as_text_unless_a_file_lists_them(tmp_path: Path) -> None:
    for name in ("2", "10", "9"):
        save(tmp_path / name, name, 1)
    assert open_data(f"folder:{tmp_path}").classes == ("10", "2", "9")  # as torchvision's ImageFolder
    (tmp_path / "classes.txt").write_text("0\n2\n\n 9 \n10\n")
    images = open_data(f"folder:{tmp_path}")
    assert images.classes == ("0", "2", "9", "10") and images.labels.tolist() == [1, 2, 3]
    for content, said in ((b"2\n9\n", 'does not list "10"'), (b"2\n9\n2\n", '"2" twice'), (b"\xff\xfe", "UTF-8")):
        (tmp_path / "classes.txt").write_bytes(content)
        with pytest.raises(DataError, match=said):
            open_data(f"folder:{tmp_path}")


@pytest.mark.parametrize(("test", "train"), [("Cat", "cat"), ("cat ", "cat"), ("e\u0301mu", "\u00e9mu")])
def test_a_class_that_two_splits_spell_in_two_ways_is_an_error(tmp_path: Path, test: str, train: str) -> None:
    save(tmp_path / "test" / test, "cat")
    save(tmp_path / "train" / train, "cat")
    with pytest.raises(DataError, match="rename one"):
        open_data(f"folder:{tmp_path}")
    save(tmp_path / "test" / train, "cat")
    assert len(open_data(f"folder:{tmp_path}").classes) == 2  # both are there, as of handwritten a and A


@pytest.fixture
def sorted_folder(tmp_path: Path) -> str:
    """100 images a class, which the official order sorts by class."""
    for name in SHADES:
        save(tmp_path / name, name, 100)
    return f"folder:{tmp_path}"


def test_n_images_of_a_folder_are_of_all_classes_and_only_they_are_decoded(
    sorted_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counted(file: Path, **about: Any) -> npt.NDArray[Any]:
        decoded.append(file)
        return read_picture(file, **about)

    monkeypatch.setattr(encoded, "read_picture", counted)
    few, more = (open_data(sorted_folder, n=n) for n in (4, 60))
    assert len(decoded) == 64
    assert sorted(Counter(few.labels.tolist()).values()) == [1, 1, 2]
    assert list(Counter(more.labels.tolist()).values()) == [20, 20, 20]
    assert set(few.ids.tolist()) < set(more.ids.tolist())
    assert torch.equal(few.ids, open_data(sorted_folder, n=4).ids)
    assert not torch.equal(few.ids, open_data(sorted_folder, n=4, seed=1).ids)
    again = open_data(sorted_folder, ids=few.ids.tolist())  # as a row names them
    assert again.digest == few.digest and torch.equal(again.labels, few.labels)
    assert open_data(sorted_folder, n=4, ids="0:100").labels.tolist() == [0] * 4  # who asks for the first gets them
    assert open_data(sorted_folder, n=2, ids=[5, 4, 299]).ids.tolist() == [5, 4]
    assert open_data(sorted_folder, n=300).ids.tolist() == list(range(300))


def test_n_images_of_sorted_arrays_are_of_all_classes(tmp_path: Path) -> None:
    x, y = np.arange(40 * 36, dtype=np.uint16).reshape(40, 6, 6).astype(np.uint8), np.arange(40) // 10
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.save(tmp_path / "d.npy", x)
    np.save(tmp_path / "d_labels.npy", y)
    for name in ("d.npz", "d.npy"):
        images = open_data(f"arrays:{tmp_path / name}", n=8)
        assert list(Counter(images.labels.tolist()).values()) == [2, 2, 2, 2]
        np.testing.assert_array_equal(stored(images)[:, 0], x[images.ids.numpy()])


def test_the_known_sets_still_give_their_first_images() -> None:
    for name in ("mnist", "cifar10"):
        assert open_data(name, source="bundled", n=30).ids.tolist() == list(range(30))


def by_share(labels: npt.NDArray[Any], classes: int, n: int, seed: int) -> list[int]:
    """Equal shares, drawn class by class: what "stratified" meant before it could leave a share to others."""
    generator = np.random.default_rng(seed)
    order = [generator.permutation(np.flatnonzero(labels == k)) for k in range(classes)]
    share = np.full(classes, n // classes)
    share[generator.permutation(classes)[: n % classes]] += 1
    return sorted(int(i) for members, wanted in zip(order, share, strict=True) for i in members[:wanted])


@pytest.mark.parametrize("seed", range(5))
def test_a_spread_sample_is_that_of_equal_shares_wherever_classes_have_them(seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.arange(200) % 7)
    for n in (1, 6, 7, 50, 150):
        for sample in ("spread", "stratified"):
            assert select(labels, tuple("abcdefg"), n, None, sample, seed) == by_share(labels, 7, n, seed)


def test_a_class_that_has_few_images_leaves_its_share_to_the_others() -> None:
    labels = np.repeat([0, 1, 3], [2, 50, 50])  # none of class 2
    classes = tuple("abcd")
    for n, expected in ((2, [1, 1]), (6, [2, 2, 2]), (40, [2, 19, 19]), (101, [2, 50, 49]), (102, [2, 50, 50])):
        chosen = select(labels, classes, n, None, "spread", 3)
        counts = np.bincount(labels[chosen])
        assert sorted(counts[counts > 0]) == sorted(expected)
        previous = select(labels, classes, n - 1, None, "spread", 3)
        assert set(np.arange(102)[previous]) < set(np.arange(102)[chosen])
    with pytest.raises(DataError, match="needs 10 images of class a, which has 2"):
        select(labels, classes, 40, None, "stratified", 3)


def test_a_sample_of_fewer_classes_than_the_set_is_flagged() -> None:
    assert few_classes(torch.tensor([0, 0, 7]), tuple("0123456789")) == "few_classes:2/10"
    assert few_classes(torch.tensor([1, 0]), ("a", "b")) is None
    images = open_data("mnist", source="bundled", n=8)  # 7 2 1 0 4 1 4 9
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    verdict = Judge()(model, images, PGD(steps=1), ThreatModel.parse("linf:0"))
    assert "few_classes:6/10" in verdict.flags
