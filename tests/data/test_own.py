from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from robustbench_local.core.errors import DataError
from robustbench_local.data.load import load_data, open_data
from tests.helpers.stored import stored

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8, 9), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def save_image(path: Path, pixels: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_folder_of_images_by_class(tmp_path: Path) -> None:
    for i in range(6):
        save_image(tmp_path / ["cat", "dog"][i % 2] / f"{i}.png", RGB[i])
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    with pytest.warns(UserWarning, match=r"1 files of test are no images by their names and were left out: notes\.txt"):
        images = open_data(f"folder:{tmp_path}")
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(images.pixels, RGB[[0, 2, 4, 1, 3, 5]].transpose(0, 3, 1, 2))


def test_grey_images_have_one_channel_until_one_has_colour(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "0.png", GREY[0])
    assert load_data(f"folder:{tmp_path}")[0].shape == (1, 1, 8, 9)
    save_image(tmp_path / "a" / "1.png", RGB[0])
    assert load_data(f"folder:{tmp_path}")[0].shape == (2, 3, 8, 9)


def test_folders_named_test_and_train_are_the_splits(tmp_path: Path) -> None:
    save_image(tmp_path / "test" / "a" / "0.png", GREY[0])
    with pytest.raises(DataError, match="no train split"):
        open_data(f"folder:{tmp_path}", split="train")
    save_image(tmp_path / "train" / "a" / "0.png", GREY[1])
    np.testing.assert_array_equal(stored(open_data(f"folder:{tmp_path}", split="train"))[0, 0], GREY[1])
    np.testing.assert_array_equal(stored(open_data(f"folder:{tmp_path}"))[0, 0], GREY[0])


def test_a_folder_that_does_not_fit_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        open_data(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="holds no image"):
        open_data(f"folder:{tmp_path}")
    save_image(tmp_path / "a" / "0.png", GREY[0])
    with pytest.raises(DataError, match="no train split"):
        open_data(f"folder:{tmp_path}", split="train")
    save_image(tmp_path / "a" / "odd.png", GREY[1, :5])
    with pytest.raises(DataError, match=r"odd\.png is 9x5.*9x8"):
        open_data(f"folder:{tmp_path}")
    (tmp_path / "a" / "odd.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"odd\.png cannot be read"):
        open_data(f"folder:{tmp_path}")
    Image.fromarray(GREY[0].astype(np.uint16) * 200).save(tmp_path / "a" / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png has mode I"):
        open_data(f"folder:{tmp_path}")
    (tmp_path / "a" / "odd.png").unlink()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"b holds no image"):
        open_data(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (RGB, RGB.transpose(0, 3, 1, 2)),
        (RGB.transpose(0, 3, 1, 2), RGB.transpose(0, 3, 1, 2)),
        (RGB.astype(np.float32) / 255, RGB.transpose(0, 3, 1, 2)),
        (RGB / 255, RGB.transpose(0, 3, 1, 2)),
        ((RGB / 255).astype(np.float16), RGB.transpose(0, 3, 1, 2)),
    ],
    ids=["NHW", "NHW1", "N1HW", "NHWC", "NCHW", "float32", "float64", "float16"],
)
def test_arrays_of_any_layout_become_the_same_bytes(
    tmp_path: Path, given: npt.NDArray[Any], expected: npt.NDArray[Any]
) -> None:
    np.savez(tmp_path / "d.npz", x=given, y=LABELS[:, None])
    np.save(tmp_path / "d.npy", given)
    np.save(tmp_path / "d_labels.npy", LABELS)
    for name in ("d.npz", "d.npy"):
        images = open_data(f"arrays:{tmp_path / name}")
        assert stored(images).dtype == np.uint8
        np.testing.assert_array_equal(images.pixels, expected)
        assert images.labels.tolist() == LABELS.tolist() and images.classes == ("0", "1", "2")


def test_a_npz_may_hold_both_splits_and_name_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x_train=GREY, y_train=LABELS, x_test=GREY[:2], y_test=LABELS[:2], classes=["cat", "dog", "emu"])
    assert len(open_data(f"arrays:{path}")) == 2
    train = open_data(f"arrays:{path}", split="train")
    assert len(train) == 6 and train.classes == ("cat", "dog", "emu")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"x": RGB.astype(np.float32), "y": LABELS}, "span [0, 255]"),
        ({"x": RGB / 255 - 0.5, "y": LABELS}, "span [-0.5"),
        ({"x": np.where(RGB > 200, np.nan, 0.0), "y": LABELS}, "span [nan"),
        ({"x": RGB / 255 * 0.999, "y": LABELS}, "multiples of 1/255"),
        ({"x": RGB.astype(np.int64), "y": LABELS}, "int64"),
        ({"x": RGB[:, :3], "y": LABELS}, "fits both"),
        ({"x": RGB[..., :2], "y": LABELS}, "no layout of images"),
        ({"x": RGB[0, 0], "y": LABELS}, "no layout of images"),
        ({"x": RGB[:0], "y": LABELS[:0]}, "there are none"),
        ({"x": RGB, "y": LABELS[:5]}, "give integers (6,)"),
        ({"x": RGB, "y": LABELS.astype(float)}, "give integers (6,)"),
        ({"x": RGB, "y": LABELS - 1}, "labels span [-1, 1]"),
        ({"x": RGB, "y": LABELS, "classes": ["cat", "dog"]}, "give 0 to 1 for 2 classes"),
        ({"pictures": RGB, "y": LABELS}, "holds pictures, y"),
        ({"x": RGB, "y": np.array([{}] * 6)}, "allow_pickle=False"),
    ],
)
def test_arrays_that_do_not_fit_are_an_error_that_says_so(
    tmp_path: Path, content: dict[str, Any] | dict[str, npt.NDArray[Any]], said: str
) -> None:
    np.savez(tmp_path / "d.npz", **content)
    with pytest.raises(DataError) as raised:
        open_data(f"arrays:{tmp_path / 'd.npz'}")
    assert said in str(raised.value)


def test_missing_and_broken_files_of_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*none\.npz"):
        open_data(f"arrays:{tmp_path / 'none.npz'}")
    np.save(tmp_path / "d.npy", RGB)
    with pytest.raises(DataError, match=r"no file .*d_labels\.npy"):
        open_data(f"arrays:{tmp_path / 'd.npy'}")
    with pytest.raises(DataError, match="test split only"):
        open_data(f"arrays:{tmp_path / 'd.npy'}", split="train")
    (tmp_path / "e.npz").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"e\.npz cannot be read"):
        open_data(f"arrays:{tmp_path / 'e.npz'}")
