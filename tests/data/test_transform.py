"""Photographs of any size become images of one: as torchvision does it, bit for bit, and upright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from benchmarks._photographs import make_photographs, photograph
from robustbench_local.core.errors import DataError
from robustbench_local.data.load import open_data
from robustbench_local.data.own import crop_for
from robustbench_local.data.pictures import read_picture
from robustbench_local.data.transform import Transform
from robustbench_local.data.vision import import_torchvision
from tests.helpers.stored import stored

ORIENTATION = 274  # an EXIF tag


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))


def torchvision_does(image: Image.Image, resize: int, crop: tuple[int, int]) -> npt.NDArray[np.uint8]:
    transforms: Any = import_torchvision().transforms
    steps = transforms.Compose([transforms.Resize(resize, antialias=True), transforms.CenterCrop(crop)])
    return np.asarray(steps(image.convert("RGB"))).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(51, 77), (77, 51), (60, 60), (31, 400), (33, 32), (32, 33), (20, 25), (301, 299)])
@pytest.mark.parametrize(("resize", "crop"), [(32, (28, 28)), (32, (32, 32)), (37, (30, 37)), (41, (28, 17))])
def test_resize_and_crop_are_those_of_torchvision_bit_for_bit(
    tmp_path: Path, size: tuple[int, int], resize: int, crop: tuple[int, int]
) -> None:
    image = photograph(sum(size), *size)
    image.save(tmp_path / "x.png")
    found = read_picture(tmp_path / "x.png", Transform(resize, crop))
    np.testing.assert_array_equal(found, torchvision_does(image, resize, crop))
    if min(size) > resize:  # the broken twin, which is not antialiased
        nearest = image.resize((resize * size[0] // min(size), resize * size[1] // min(size)), Image.Resampling.NEAREST)
        assert not np.array_equal(found, torchvision_does(nearest, resize, crop))


def test_a_crop_alone_covers_as_much_of_the_picture_as_it_can(tmp_path: Path) -> None:
    for size, crop, scaled in (
        ((90, 60), (30, 30), (45, 30)),
        ((60, 90), (30, 30), (30, 45)),
        ((90, 60), (20, 40), (40, 26)),
        ((90, 60), (40, 20), (60, 40)),
        ((10, 20), (30, 30), (30, 60)),
    ):
        image = photograph(1, *size)
        image.save(tmp_path / "x.png")
        expected = torchvision_does(image.resize(scaled, Image.Resampling.BILINEAR), min(scaled), crop)
        np.testing.assert_array_equal(read_picture(tmp_path / "x.png", Transform(crop=crop)), expected)
    image = photograph(1, 30, 20)
    image.save(tmp_path / "x.png")  # of that size already
    np.testing.assert_array_equal(
        read_picture(tmp_path / "x.png", Transform(crop=(20, 30))), np.asarray(image).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_picture_is_turned_as_its_camera_says_when_it_is_transformed_and_only_then(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = tmp_path / f"x{suffix}"
    photograph(2, 60, 40).save(file, exif=exif)
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        as_stored = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert upright.size == ((60, 40) if orientation < 5 else (40, 60))
    np.testing.assert_array_equal(read_picture(file, Transform(30, (20, 20))), torchvision_does(upright, 30, (20, 20)))
    np.testing.assert_array_equal(read_picture(file), as_stored)
    if orientation > 1 and suffix != ".tif":  # which Pillow turns whenever it reads one
        sideways = torchvision_does(Image.fromarray(as_stored.transpose(1, 2, 0)), 30, (20, 20))
        assert not np.array_equal(read_picture(file, Transform(30, (20, 20))), sideways)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"resize": 0}, "resize=0 lies outside [1, 4096]"),
        ({"crop": 5000}, "crop=5000 lies outside"),
        ({"crop": [20, -1]}, "crop=-1 lies outside"),
        ({"crop": [1, 2, 3]}, "give one side, or height and width"),
        ({"resize": 20, "crop": 28}, "does not fit"),
        ({"resize": "256"}, "resize"),
        ({"crop": True}, "crop"),
        ({"resize": 24, "crop": [20, 300]}, "give a larger resize, or leave it out"),
        ({"resize": 24}, "give crop as well"),
        ({}, "resize and crop make them so"),
    ],
)
def test_a_transform_that_cannot_be_is_an_error_that_says_so(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    make_photographs(tmp_path / "photos", 6)
    with pytest.raises(DataError) as raised:
        open_data(f"folder:{tmp_path / 'photos'}", **given)
    assert said in str(raised.value)


def test_images_of_one_size_take_no_transform(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.full((2, 8, 8), 99, np.uint8), y=[0, 1])
    for name, source in (("mnist", "bundled"), (f"arrays:{tmp_path / 'd.npz'}", None)):
        with pytest.raises(DataError, match=r"resize and crop are for photographs"):
            open_data(name, source=source, crop=8)


def test_the_transform_is_part_of_the_digest_and_of_what_images_say_of_themselves(tmp_path: Path) -> None:
    make_photographs(tmp_path / "photos", 8)
    name = f"folder:{tmp_path / 'photos'}"
    found = [open_data(name, resize=36, crop=crop) for crop in (32, [32, 24], [24, 32])]
    assert len({images.digest for images in found}) == 3
    assert [stored(images).shape for images in found] == [(8, 3, 32, 32), (8, 3, 32, 24), (8, 3, 24, 32)]
    assert found[1].transform is not None
    assert found[1].transform.definition() == {"resize": 36, "crop": [32, 24]}


def test_grey_photographs_have_one_channel_and_printed_ones_three(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    photograph(0, 50, 40).convert("L").save(folder / "0.jpg")
    name = f"folder:{folder.parent}"
    assert stored(open_data(name, crop=20)).shape == (1, 1, 20, 20)
    photograph(1, 50, 40).convert("CMYK").save(folder / "1.jpg")
    with pytest.raises(DataError, match="mode CMYK"):
        open_data(name)
    pixels = stored(open_data(name, crop=20))
    assert pixels.shape == (2, 3, 20, 20) and (pixels[0, 0] == pixels[0, 1]).all()
    with Image.open(folder / "1.jpg") as image:
        np.testing.assert_array_equal(pixels[1], torchvision_does(image, 20, (20, 20)))


def test_a_photograph_of_a_good_camera_is_read_and_a_bomb_is_not(tmp_path: Path) -> None:
    Image.new("RGB", (9000, 2200), (9, 99, 199)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match="at most 4096x4096"):
        read_picture(tmp_path / "wide.png")
    assert read_picture(tmp_path / "wide.png", Transform(crop=(8, 8)))[:, 0, 0].tolist() == [9, 99, 199]
    Image.new("1", (1, 60_000)).save(tmp_path / "thin.png")
    with pytest.raises(DataError, match="too long"):
        read_picture(tmp_path / "thin.png", Transform(crop=(8, 8)))
    Image.new("1", (9500, 9500)).save(tmp_path / "bomb.png")
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(DataError, match="at most 89,478,485 pixels"):
        read_picture(tmp_path / "bomb.png", Transform(crop=(8, 8)))


def test_the_crop_for_a_model_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    photograph(0, 30, 20).save(tmp_path / "photos" / "a" / "0.png")
    name = f"folder:{tmp_path / 'photos'}"
    assert crop_for(name, (20, 30)) is None and crop_for("mnist", (224, 224)) is None
    crop = crop_for(name, (20, 20))
    assert stored(open_data(name, crop=crop)).shape == (1, 3, 20, 20)
    with pytest.raises(DataError, match="no train split"):
        crop_for(name, (20, 20), split="train")
