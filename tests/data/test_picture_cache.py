"""Pictures decoded once: what is kept is checked, what is damaged, lost or half done is made again, and said."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks._photographs import make_photographs, photograph
from robustbench_local.core.errors import DataError
from robustbench_local.data import image_store, images, own, picture_cache
from robustbench_local.data.folders import read_image_folder
from robustbench_local.data.images import Chosen, Images
from robustbench_local.data.load import open_data
from robustbench_local.data.pictures import read_picture
from robustbench_local.data.transform import Transform
from tests.helpers.stored import stored

COUNT = 24


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))
    make_photographs(tmp_path / "photos", COUNT)
    return f"folder:{tmp_path / 'photos'}"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures, each time they are decoded."""
    names: list[str] = []
    really = read_picture

    def counted(*args: Any, name: str, **about: Any) -> Any:
        names.append(name)
        return really(*args, name=name, **about)

    monkeypatch.setattr(picture_cache, "read_picture", counted)
    return names


def opened(name: str, **choice: Any) -> Images:
    return open_data(name, resize=24, crop=20, **choice)


def kept(tmp_path: Path, file: str) -> Path:
    (found,) = (tmp_path / "cache" / "pictures").glob(f"*/{file}")
    return found


def test_each_picture_is_decoded_once_and_only_when_it_is_chosen(name: str, decoded: list[str]) -> None:
    few = opened(name, n=4)
    assert len(decoded) == 1 + 4  # the first says how large they are
    opened(name, n=4)
    opened(name, ids=few.ids.tolist())
    assert len(decoded) == 5
    whole = opened(name)
    assert len(decoded) == 1 + COUNT and len(set(decoded)) == COUNT
    np.testing.assert_array_equal(stored(whole)[few.ids.numpy()], stored(few))
    expected = hashlib.sha256(stored(whole).tobytes() + whole.labels.numpy().astype("<i8").tobytes())
    assert whole.digest == opened(name).digest == expected.hexdigest()
    assert len(decoded) == 1 + COUNT


def test_what_is_too_large_for_memory_is_read_when_it_is_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, few, order = opened(name), opened(name, n=7), torch.randperm(COUNT, generator=torch.Generator()).tolist()
    permuted = opened(name, ids=order)
    monkeypatch.setattr(images, "MOST_IN_MEMORY", 1000)
    choices: list[tuple[dict[str, Any], Images]] = [({}, whole), ({"n": 7}, few), ({"ids": order}, permuted)]
    for choice, right in choices:
        lazy = opened(name, **choice)
        assert isinstance(lazy.pixels, Chosen) and lazy.digest == right.digest
        assert lazy.pixels.shape == stored(right).shape and lazy.pixels.nbytes == stored(right).nbytes
        for rows in (slice(2, 5), slice(None), torch.tensor([6, 0, 6]), torch.arange(len(lazy)) % 2 == 0):
            assert torch.equal(lazy[rows], right[rows])


def test_a_large_folder_of_one_size_goes_through_the_cache_as_well_with_the_same_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for k in range(5):
        photograph(k, 30, 20).convert("L" if k < 4 else "RGB").save(tmp_path / "photos" / "a" / f"{k}.png")
    name = f"folder:{tmp_path / 'photos'}"
    right = [open_data(name, ids=ids).digest for ids in (None, [3, 1])]
    assert not decoded and not (tmp_path / "cache").exists()
    monkeypatch.setattr(own, "MOST_IN_MEMORY", 1000)
    assert [open_data(name, ids=ids).digest for ids in (None, [3, 1])] == right
    assert len(decoded) == 6


@pytest.mark.parametrize("change", ["content", "same size and time", "added", "removed", "renamed"])
def test_a_change_of_the_pictures_is_noticed(name: str, tmp_path: Path, change: str) -> None:
    before = opened(name)
    file = tmp_path / "photos" / "class0" / "0020.jpg"
    match change:
        case "content":
            photograph(99, 50, 60).save(file)
        case "same size and time":  # as of a copy that keeps times: all BMPs of one size have as many bytes
            file = file.with_name("0018.bmp")
            about, content = file.stat(), file.read_bytes()
            file.write_bytes(content[:4000] + bytes(len(content) - 4000))
            os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
            assert (file.stat().st_size, file.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)
        case "added":
            photograph(99, 50, 60).save(file.with_name("new.png"))
        case "removed":
            file.unlink()
        case "renamed":
            file.rename(file.with_name("0000a.jpg"))
    after = opened(name)
    assert after.digest != before.digest and len(after) == COUNT + {"added": 1, "removed": -1}.get(change, 0)


def test_pictures_that_change_while_they_are_read_are_an_error(name: str, tmp_path: Path) -> None:
    images = opened(name)
    shutil.rmtree(kept(tmp_path, "pixels").parent)
    cache = picture_cache.PictureCache(*_pictures(name))
    photograph(99, 50, 60).save(tmp_path / "photos" / "class0" / "0020.jpg")
    with pytest.raises(DataError, match="changed since it was opened"):
        cache[:3]
    (tmp_path / "photos" / "class0" / "0020.jpg").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        cache[:3]
    assert len(images) == COUNT


def _pictures(name: str) -> Any:
    return read_image_folder(Path(name.removeprefix("folder:")), "test")[0], Transform(24, (20, 20))


def test_damage_of_any_kind_is_made_good_and_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], decoded: list[str]
) -> None:
    right = opened(name)
    folder = kept(tmp_path, "pixels").parent
    random = np.random.default_rng(0)
    said = 0
    for _ in range(60):
        file = folder / sorted(os.listdir(folder))[int(random.integers(len(os.listdir(folder))))]
        content = bytearray(file.read_bytes())
        at = int(random.integers(len(content)))
        match random.integers(4):
            case 0:
                content[at] ^= 1 << int(random.integers(8))
            case 1:
                content[at : at + 5000] = random.bytes(len(content[at : at + 5000]))
            case 2:
                del content[at:]
            case _:
                content += random.bytes(77)
        file.write_bytes(content)
        if random.integers(6) == 0:
            file.unlink()
        found = opened(name)
        assert found.digest == right.digest and torch.equal(found[:], right[:])
        said += "are damaged" in capsys.readouterr().err
    print(f"60 damages of the cache: all made good, {said} said to be of images; {len(decoded)} pictures decoded")
    assert said > 10


def test_an_image_whose_check_is_not_compared_would_be_wrong(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the test above."""
    right = opened(name)
    pixels = kept(tmp_path, "pixels")
    content = bytearray(pixels.read_bytes())
    content[100] ^= 1
    pixels.write_bytes(content)
    with monkeypatch.context() as patched:
        patched.setattr(image_store.ImageStore, "sound", lambda self, rows, images: np.ones(len(rows), bool))
        assert not torch.equal(opened(name)[:], right[:])
    assert torch.equal(opened(name)[:], right[:])


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, path: Path, mode: str, room: int) -> None:
        self.file, self.room = open(path, mode), room  # noqa: SIM115

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(content))


def test_a_full_disk_is_an_error_that_says_what_to_do_and_loses_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=5))
        with pytest.raises(DataError, match=r"24 images take 28,800 bytes, and 5 are free.*ROBUSTBENCH_LOCAL_CACHE"):
            opened(name)
    with monkeypatch.context() as patched:
        patched.setattr(image_store, "open", lambda path, mode: Full(path, mode, 9000), raising=False)
        with pytest.raises(DataError, match=r"No space left.*Free some space"):
            opened(name)
    before = len(decoded)
    assert len(opened(name)) == COUNT
    assert len(decoded) - before == COUNT - 7  # 7 of 1,200 bytes each were written


def test_a_cache_that_cannot_be_written_is_an_error_that_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="ROBUSTBENCH_LOCAL_CACHE"):
        opened(name)


READ = """
import sys
from robustbench_local.data.load import open_data
print(open_data(sys.argv[1], resize=24, crop=20).digest)
"""


def reading(name: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", READ, name], stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_processes_at_once_and_processes_killed_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))
    make_photographs(tmp_path / "photos", 300, smallest=200, largest=400)
    name = f"folder:{tmp_path / 'photos'}"
    right = opened(name).digest
    pictures = tmp_path / "cache" / "pictures"
    shutil.rmtree(pictures)
    both = [reading(name) for _ in range(2)]
    assert [each.communicate()[0].strip() for each in both] == [right, right]
    random, done = np.random.default_rng(0), []
    for _ in range(5):
        shutil.rmtree(pictures)
        first = reading(name)
        while not any(path.stat().st_size for path in pictures.glob("*/checks")):
            time.sleep(0.01)
        time.sleep(float(random.uniform(0, 0.6)))
        first.send_signal(signal.SIGKILL)
        first.wait()
        done.append(int(np.fromfile(next(pictures.glob("*/checks")), np.uint64).astype(bool).sum()))
        assert opened(name).digest == right
    print(f"killed after {sorted(done)} of 300 pictures: each run after it gave the same digest")
    assert len(set(done)) > 2


def test_earlier_states_of_a_folder_are_removed_after_a_week_of_rest(name: str, tmp_path: Path) -> None:
    opened(name)
    old = kept(tmp_path, "pixels").parent
    (tmp_path / "photos" / "class0" / "0020.jpg").unlink()
    opened(name)
    assert old.exists()
    os.utime(old, (time.time() - 8 * 24 * 3600,) * 2)
    opened(name)
    assert not old.exists() and kept(tmp_path, "pixels").exists()


def test_a_note_of_another_place_is_not_believed(name: str, tmp_path: Path) -> None:
    opened(name)
    note = kept(tmp_path, "summary-*.json")
    other = note.with_name("summary-0.json")
    shutil.copy(note, other)
    assert image_store.read_note(note.parent, note.stem) and not image_store.read_note(note.parent, "summary-0")
    record = json.loads(note.read_text())
    note.write_text(json.dumps(record | {"digest": "0" * 64}))
    assert image_store.read_note(note.parent, note.stem) is None
