"""Files in a class folder: read to the last bit, refused by name, or left out with a word; never cut or waited for."""

from __future__ import annotations

import io
import os
import socket
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from robustbench_local.core.errors import DataError
from robustbench_local.data.load import load_data, open_data
from robustbench_local.data.pictures import OTHER_SUFFIXES, SUFFIXES, read_picture
from tests.helpers.stored import stored

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (7, 9), dtype=np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by the letter of its specification, which Pillow writes in 8 bits only."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(pixels: npt.NDArray[Any]) -> bytes:
    """An uncompressed little-endian TIFF of uint16 RGB (H, W, 3)."""
    height, width, _ = pixels.shape
    content = pixels.astype("<u2").tobytes()
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14)]
    entries += [(277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(content))]
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = struct.pack("<2sHI3H", b"II", 42, 14 + len(content), 16, 16, 16)
    return start + content + struct.pack("<H", len(entries)) + tags + bytes(4)


def rows(pixels: npt.NDArray[Any]) -> bytes:
    """The scan lines of a PNG: a filter byte of none before each."""
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    return b"".join(b"\0" + line.tobytes() for line in big)


def saved(pixels: npt.NDArray[Any], form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format=form, **options)
    return content.getvalue()


LOSSLESS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".bmp": {},
    ".ppm": {},
    ".tif": {},
    ".tiff": {"compression": "tiff_lzw"},
    ".webp": {"lossless": True},
}


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_what_a_file_keeps_is_what_is_read(tmp_path: Path, suffix: str) -> None:
    form = Image.registered_extensions()[suffix]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"x{suffix.upper()}").write_bytes(saved(RGB, form, **LOSSLESS[suffix]))
    np.testing.assert_array_equal(stored(open_data(f"folder:{tmp_path}"))[0], RGB.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".jpg", ".jfif", ".gif", ".pgm"])
def test_grey_and_lossy_files_are_read_as_pillow_reads_them(tmp_path: Path, suffix: str) -> None:
    content = saved(GREY, Image.registered_extensions()[suffix])
    (tmp_path / f"x{suffix}").write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(read_picture(tmp_path / f"x{suffix}")[0], np.asarray(image.convert("L")))


def test_palettes_bits_and_transparency(tmp_path: Path) -> None:
    few = Image.fromarray(RGB).quantize(16)
    few.save(tmp_path / "palette.png", transparency=3)
    colours = np.asarray(few.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_picture(tmp_path / "palette.png"), colours)
    for kind, pixels in (("RGBA", np.dstack([RGB, GREY])), ("LA", np.dstack([GREY, RGB[..., 0]]))):
        Image.fromarray(pixels).save(tmp_path / f"{kind}.png")
        np.testing.assert_array_equal(read_picture(tmp_path / f"{kind}.png"), pixels[..., :-1].transpose(2, 0, 1))
    (tmp_path / "bit.png").write_bytes(png(8, 1, 1, 0, b"\0\xa5"))
    assert read_picture(tmp_path / "bit.png").tolist() == [[[255, 0, 255, 0, 0, 255, 0, 255]]]
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=turned)
    assert read_picture(tmp_path / "turned.png").shape == (3, 7, 9)  # as stored


DEEP = RNG.integers(0, 1 << 16, (7, 9, 4), dtype=np.uint16)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rgb.png", png(9, 7, 16, 2, rows(DEEP[..., :3]))),
        ("rgba.png", png(9, 7, 16, 6, rows(DEEP))),
        ("grey.png", png(9, 7, 16, 0, rows(DEEP[..., 0]))),
        ("grey_alpha.png", png(9, 7, 16, 4, rows(DEEP[..., :2]))),
        ("rgb.tif", tiff(DEEP[..., :3])),
        ("rgb.ppm", b"P6 9 7 65535\n" + DEEP[..., :3].astype(">u2").tobytes()),
        ("plain.ppm", b"P3 1 1 1023\n1000 500 3\n"),
        ("grey.pgm", b"P5 9 7 4095\n" + (DEEP[..., 0] >> 4).astype(">u2").tobytes()),
        ("float.tif", saved(GREY.astype(np.float32), "TIFF")),
        ("whole.tif", saved(GREY.astype(np.int32), "TIFF")),
    ],
)
def test_more_than_eight_bits_are_refused_and_not_cut(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with Image.open(tmp_path / name) as image:
        image.load()  # Pillow reads it, colours cut to 8 bits
    with pytest.raises(DataError, match=rf"{name} has mode .*over 8 bits"):
        read_picture(tmp_path / name)


def several(form: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(RGB).save(content, format=form, save_all=True, append_images=[Image.fromarray(255 - RGB)])
    return content.getvalue()


TEXT_BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(70 << 20)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("anim.gif", several("GIF"), "several pictures"),
        ("anim.png", several("PNG"), "several pictures"),
        ("anim.webp", several("WEBP"), "several pictures"),
        ("pages.tif", several("TIFF"), "several pictures"),
        ("cmyk.jpg", saved(np.dstack([RGB, GREY]), "PNG"), None),
        ("bomb.png", png(20000, 20000, 1, 0, b""), "cannot be read"),
        ("large.png", png(5000, 5000, 1, 0, b""), "at most 4096x4096"),
        ("text.png", png(1, 1, 8, 0, b"\0\7", TEXT_BOMB), "cannot be read"),
        ("empty.png", b"", "cannot be read"),
        ("none.png", png(0, 0, 8, 0, b""), "cannot be read"),
        ("half.png", saved(RGB, "PNG")[:60], "cannot be read"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 7\n", "cannot be read"),
    ],
)
def test_other_pictures_are_refused_by_name(tmp_path: Path, name: str, content: bytes, said: str | None) -> None:
    if name == "cmyk.jpg":
        buffer = io.BytesIO()
        Image.fromarray(RGB).convert("CMYK").save(buffer, format="JPEG")
        content, said = buffer.getvalue(), "has mode CMYK"
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(DataError, match=f"{name}.*{said}"):
        warnings.simplefilter("ignore")
        read_picture(tmp_path / name)


def test_a_file_that_looks_like_an_image_is_never_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(saved(RGB, "PNG"))
    for suffix in sorted(OTHER_SUFFIXES - SUFFIXES):
        file = tmp_path / "a" / f"1{suffix}"
        file.write_bytes(b"whatever")
        with pytest.raises(DataError, match=rf"1\{suffix}.*convert it"):
            open_data(f"folder:{tmp_path}")
        file.unlink()
    for name in ("1.png.part", "list.csv", "noname", ".hidden.png"):
        (tmp_path / "a" / name).write_bytes(b"whatever")
    with pytest.warns(UserWarning, match=r"3 files of test are no images .* 1\.png\.part, list\.csv, noname"):
        assert len(open_data(f"folder:{tmp_path}")) == 1


@pytest.mark.parametrize("where", ["beside", "deeper"])
def test_images_that_lie_elsewhere_are_named(tmp_path: Path, where: str) -> None:
    for path in ("a/0.png", "b/0.png", "1.png" if where == "beside" else "a/c/1.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(saved(RGB, "PNG"))
    said = r"1\.png' lies beside" if where == "beside" else r"a/c' is a folder"
    with pytest.raises(DataError, match=said):
        open_data(f"folder:{tmp_path}")


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "broken", "loop", "folder"])
def test_what_is_no_file_is_named_and_not_waited_for(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(saved(RGB, "PNG"))
    monkeypatch.chdir(tmp_path / "a")  # the path of a socket must be short
    match kind:
        case "pipe":
            os.mkfifo("1.png")
        case "socket":
            socket.socket(socket.AF_UNIX).bind("1.png")
        case "device":
            os.symlink("/dev/zero", "1.png")
        case "broken":
            os.symlink("nowhere.png", "1.png")
        case "loop":
            os.symlink("1.png", "1.png")
        case "folder":
            os.mkdir("1.png")
    with pytest.raises(DataError, match=r"1\.png|Too many levels"):
        open_data(f"folder:{tmp_path}")


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.png").write_bytes(saved(RGB, "PNG"))
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "set" / "a")
    os.symlink(tmp_path / "real" / "x.png", tmp_path / "real" / "y.png")
    assert len(open_data(f"folder:{tmp_path / 'set'}")) == 2


@pytest.mark.parametrize(
    "path",
    ["", "\0", "a\0b", "x" * 300, "y/" * 3000, "~nobody-of-this-name/x", "\udcff", "/dev/null", "/etc/hostname"],
    ids=["empty", "nul", "with nul", "long name", "long path", "no home", "no utf-8", "device", "file"],
)
@pytest.mark.parametrize("kind", ["folder", "arrays"])
def test_paths_that_name_no_such_place(path: str, kind: str) -> None:
    with pytest.raises(DataError):
        open_data(f"{kind}:{path}")


def test_names_of_classes_that_are_no_text(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        open_data(f"folder:{tmp_path}")


def test_a_folder_of_many_other_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i in range(500):
        (tmp_path / "a" / f"{i}.txt").touch()
    with pytest.raises(DataError, match="holds no image"):
        open_data(f"folder:{tmp_path}")


def test_a_sample_has_the_channels_of_the_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i in range(30):
        (tmp_path / "a" / f"{i:02}.png").write_bytes(saved(GREY if i else RGB, "PNG"))
    for ids in ("1:3", "0:1", "0:30"):
        assert load_data(f"folder:{tmp_path}", ids=ids)[0].shape[1] == 3


@pytest.mark.parametrize("dtype", [np.uint8, bool])
@pytest.mark.parametrize("store", ["npz", "npy", "png"])
def test_pixels_of_0_and_1_are_not_taken_for_black_and_nearly_black(
    tmp_path: Path, store: str, dtype: type[Any]
) -> None:
    bits = (GREY > 99)[None].repeat(4, 0).astype(dtype)
    np.savez(tmp_path / "d.npz", x=bits, y=[0, 1, 0, 1])
    np.save(tmp_path / "d.npy", bits)
    np.save(tmp_path / "d_labels.npy", [0, 1, 0, 1])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(saved(bits[0].astype(np.uint8), "PNG"))
    name = f"folder:{tmp_path}" if store == "png" else f"arrays:{tmp_path / f'd.{store}'}"
    with pytest.raises(DataError, match="255"):
        open_data(name)
    np.savez(tmp_path / "d.npz", x=bits.astype(np.float32), y=[0, 1, 0, 1])
    assert stored(open_data(f"arrays:{tmp_path / 'd.npz'}")).max() == 255
    np.savez(tmp_path / "d.npz", x=bits.astype(np.uint8) * 16, y=[0, 1, 0, 1])
    with pytest.warns(UserWarning, match="brightest pixel of all 4 images is 16 of 255"):
        open_data(f"arrays:{tmp_path / 'd.npz'}")
