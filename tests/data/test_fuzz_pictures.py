"""Damaged and hostile pictures: an error that names the file, or pixels; never a hang, never a crash."""

from __future__ import annotations

import io
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks._photographs import photograph
from robustbench_local.core.errors import DataError
from robustbench_local.data.load import open_data
from robustbench_local.data.pictures import read_picture
from robustbench_local.data.transform import Transform
from tests.helpers.stored import stored

FORMS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
EACH = 150


def whole(form: str) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    content = io.BytesIO()
    photograph(3, 70, 50).save(content, format=form, exif=exif)
    return content.getvalue()


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Bits flipped (mostly in the header, where sizes are), a part overwritten, cut out or doubled, or no end."""
    header = random.integers(2) * min(200, len(content)) or len(content)
    at, length = int(random.integers(header)), int(random.integers(1, 64))
    match random.integers(6):
        case 0:
            return content[:at] + bytes([content[at] ^ 1 << int(random.integers(8))]) + content[at + 1 :]
        case 1:
            return content[:at] + random.bytes(4) + content[at + 4 :]
        case 2:
            return content[:at] + content[at + length :]
        case 3:
            return content[: at + length] + content[at:]
        case 4:
            return content[:at] + b"\xff" * 4 + content[at + 4 :]
        case _:
            return content[: int(random.integers(len(content)))]


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_picture_is_an_error_that_names_it_or_pixels(tmp_path: Path, form: str) -> None:
    content, random = whole(form), np.random.default_rng(0)
    file, transform = tmp_path / "x.png", Transform(32, (28, 28))
    counts: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(EACH):
        file.write_bytes(damaged(content, random))
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of metadata it cannot read
            try:
                found = read_picture(file, transform)
                assert found.shape[1:] == (28, 28) and len(found) in (1, 3)
                counts["read"] += 1
            except DataError as error:
                assert "x.png" in str(error)
                counts["refused"] += 1
        slowest = max(slowest, time.perf_counter() - started)
    print(f"{EACH} damages of a {form}: {dict(counts)}, the slowest {slowest:.2f} s")
    assert counts["refused"] > 20


def test_noise_that_is_called_a_picture_is_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    signatures = [whole(form)[:8] for form in FORMS] + [b""]
    for k in range(200):
        (tmp_path / "x.jpg").write_bytes(signatures[k % len(signatures)] + random.bytes(int(random.integers(400))))
        with warnings.catch_warnings(), pytest.raises(DataError, match=r"x\.jpg"):
            warnings.simplefilter("ignore")
            read_picture(tmp_path / "x.jpg", Transform(crop=(8, 8)))


ODD = [
    "a b.png",
    "a\u0301o\u0308.png",
    "\u65e5\u672c.png",
    "-rf.png",
    "a%20b.png",
    "x\ny.png",
    "'q\" .png",
    "[red]x[\\red].png",
    "=1+1.png",
]


def test_files_may_have_odd_names_and_errors_show_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos [1] 'é'" / "a"
    folder.mkdir(parents=True)
    for k, name in enumerate(ODD):
        photograph(k, 30, 20).save(folder / name)
    (folder / "\udcff.png").write_bytes((folder / ODD[0]).read_bytes())  # a name that is no UTF-8
    name = f"folder:{folder.parent}"
    assert stored(open_data(name, crop=12)).shape == (len(ODD) + 1, 3, 12, 12)
    assert len(open_data(name)) == len(ODD) + 1
    for odd in (*ODD, "\udcff.png"):
        kept = (folder / odd).read_bytes()
        (folder / odd).write_bytes(b"damaged")
        for crop in (None, 12):
            with pytest.raises(DataError, match="cannot be read as an image"):
                open_data(name, crop=crop)
        (folder / odd).write_bytes(kept)


def test_one_bad_picture_of_many_is_named_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos" / "a").mkdir(parents=True)
    files = [tmp_path / "photos" / "a" / f"{k:02}.png" for k in range(40)]
    for k, file in enumerate(files):
        photograph(k, 30, 20).save(file)
    good = files[30].read_bytes()
    for bad in (b"", good[:-40], b"GIF89a" + good):
        files[30].write_bytes(bad)
        with pytest.raises(DataError, match=r"30\.png cannot be read"):
            open_data(f"folder:{tmp_path / 'photos'}", crop=12)
        assert len(open_data(f"folder:{tmp_path / 'photos'}", crop=12, ids="0:30")) == 30
