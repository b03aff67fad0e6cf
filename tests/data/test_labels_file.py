"""labels.csv: every line is a picture with a label, or an error that names the line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks._photographs import photograph
from robustbench_local.core.errors import DataError
from robustbench_local.data.load import open_data
from tests.helpers.stored import stored


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures 0.png to 3.png, of which each says its number in its first pixel, and one in a folder of odd names."""
    folder = tmp_path / "photos"
    (folder / "a, b").mkdir(parents=True)
    for k, name in enumerate(["0.png", "1.png", "2.png", "3.png", 'a, b/the "5".png']):
        image = photograph(0, 20, 16)
        image.putpixel((0, 0), (k, k, k))
        image.save(folder / name)
    return folder


def listed(root: Path, text: str, split: str = "test") -> tuple[list[int], list[int], tuple[str, ...]]:
    """(which pictures, their labels, the names of the classes)."""
    (root / "labels.csv").write_bytes(text.encode())
    images = open_data(f"folder:{root}", split=split)
    return stored(images)[:, 0, 0, 0].tolist(), images.labels.tolist(), images.classes


@pytest.mark.parametrize(
    ("text", "pictures", "labels", "classes"),
    [
        ("file,label\n2.png,dog\n0.png,cat\n", [2, 0], [1, 0], ("cat", "dog")),
        ("\ufefflabel,note,file\r\ndog,x,2.png\r\n\r\ncat,,./0.png", [2, 0], [1, 0], ("cat", "dog")),
        ("file,label\n3.png,10\n1.png,2\n", [3, 1], [10, 2], tuple(map(str, range(11)))),
        ('file,label\n"a, b/the ""5"".png","b, c"\n1.png,a\n', [4, 1], [1, 0], ("a", "b, c")),
        ("file,label\n0.png,007\n1.png,7\n", [0, 1], [0, 1], ("007", "7")),
        ("file, label\n 0.png , 1\n", [0], [1], ("0", "1")),
        ("file,label\n0.png," + "9" * 5000 + "\n", [0], [0], ("9" * 5000,)),
    ],
)
def test_a_list_names_pictures_and_labels_in_its_order(
    root: Path, text: str, pictures: list[int], labels: list[int], classes: tuple[str, ...]
) -> None:
    assert listed(root, text) == (pictures, labels, classes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line is"),
        ("0.png,cat\n", 'the first line is "0.png,cat": it must name the columns'),
        ("file,label,file\n0.png,cat,0.png\n", "must name the columns"),
        ("file,label\n", "lists no picture"),
        ("file,label\n9.png,cat\n", 'line 2: there is no file "9.png"'),
        ("file,label\n0.png,cat\n0.png,dog\n", 'line 3 lists "0.png" a second time'),
        ("file,label\n0.png,cat\n./0.png,cat\n", "a second time"),
        ("file,label\n0.png,\n", "has no label"),
        ("file,label\n,cat\n", "no path within"),
        ("file,label\n../photos/0.png,cat\n", "without .."),
        ("file,label\na, b/../../photos/0.png,cat\n", "has 3 values, and the first 2"),
        ('file,label\n"a, b/../0.png",cat\n', "without .."),
        ("file,label\n/etc/hostname,cat\n", "no path within"),
        ("file,label\n0.txt,cat\n", "kind that is not read"),
        ("file,label\n0.png,-1\n1.png,0\n", 'the label "-1"'),
        ("file,label\n0.png,1.0\n", 'the label "1.0"'),
        ("file,label\n0.png,1000000\n", "and not ids"),
        ("file,label\n0.png," + "9" * 18 + "\n", "and not ids"),
        ('file,label\n"0.png,cat\n', "cannot be read"),
        ("file,label\n0.png,cat\0\n1.png\0,cat\n", "labels.csv"),
        ("file,label\n0.png," + "x" * 200_000 + "\n", "cannot be read"),
    ],
)
def test_a_list_that_does_not_fit_is_an_error_that_names_the_line(root: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as raised:
        listed(root, text)
    assert said in str(raised.value)


def test_a_list_that_is_no_text_is_an_error(root: Path) -> None:
    (root / "labels.csv").write_bytes(b"file,label\n0.png,\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_data(f"folder:{root}")


def test_two_lists_share_one_numbering_and_a_class_missing_from_one_shifts_nothing(root: Path) -> None:
    for split, labels in (("test", ["emu", "cat"]), ("train", ["dog", "cat"])):
        (root / split).mkdir()
        for k in range(2):
            photograph(k, 20, 16).save(root / split / f"{k}.png")
        lines = "".join(f"{k}.png,{label}\n" for k, label in enumerate(labels))
        (root / split / "labels.csv").write_text(f"file,label\n{lines}")
    test, train = (open_data(f"folder:{root}", split=split) for split in ("test", "train"))
    assert test.classes == train.classes == ("cat", "dog", "emu")
    assert test.labels.tolist() == [2, 0] and train.labels.tolist() == [1, 0]
    (root / "classes.txt").write_text("emu\ndog\ncat\nfox\n")
    assert open_data(f"folder:{root}").labels.tolist() == [0, 2]
    assert open_data(f"folder:{root}", classes=["cat", "dog", "emu", "fox"]).labels.tolist() == [2, 0]
    (root / "classes.txt").write_text("emu\ndog\n")
    with pytest.raises(DataError, match='"cat"'):
        open_data(f"folder:{root}")
    (root / "labels.csv").touch()
    with pytest.raises(DataError, match="beside the splits"):
        open_data(f"folder:{root}")
    (root / "labels.csv").unlink()
    (root / "train" / "labels.csv").unlink()
    with pytest.raises(DataError, match="give both one"):
        open_data(f"folder:{root}")


def test_numbers_are_positions_in_the_list_of_classes(root: Path) -> None:
    (root / "classes.txt").write_text("cat\ndog\nemu\n")
    assert listed(root, "file,label\n0.png,2\n1.png,0\n")[1:] == ([2, 0], ("cat", "dog", "emu"))
    with pytest.raises(DataError, match='"3"'):
        listed(root, "file,label\n0.png,3\n")


def test_ids_and_samples_of_a_list_refer_to_its_lines(root: Path) -> None:
    listed(root, "file,label\n3.png,1\n2.png,0\n1.png,1\n0.png,0\n")
    images = open_data(f"folder:{root}", n=2)
    assert sorted(images.labels.tolist()) == [0, 1]
    np.testing.assert_array_equal(stored(images)[:, 0, 0, 0], 3 - images.ids.numpy())


def test_a_picture_may_be_a_link_to_elsewhere(root: Path, tmp_path: Path) -> None:
    """As everywhere in a folder: only pixels are read, of what can be decoded."""
    photograph(0, 20, 16).save(tmp_path / "elsewhere.png")
    os.symlink(tmp_path / "elsewhere.png", root / "4.png")
    assert len(listed(root, "file,label\n4.png,cat\n")[0]) == 1
