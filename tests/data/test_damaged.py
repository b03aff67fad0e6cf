"""Arrays of a user's that are damaged, hostile or meant otherwise: one DataError, before time or memory is gone."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.random._generator import Generator

from robustbench_local.core.errors import DataError
from robustbench_local.data import images
from robustbench_local.data import npy as npy_files
from robustbench_local.data.images import Chosen
from robustbench_local.data.load import open_data
from tests.helpers.stored import stored

X = np.random.default_rng(0).integers(0, 256, (6, 8, 9), dtype=np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])


def npy(array: npt.NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def announced(
    shape: Any, descr: list[tuple[str, str]] | str = "|u1", content: bytes = b"", fortran: str = "False"
) -> bytes:
    """An .npy file whose header says what it likes."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content


def npz(compression: int = zipfile.ZIP_DEFLATED, **members: Any) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(f"{name}.npy", member if isinstance(member, bytes) else npy(np.asarray(member)))
    return content.getvalue()


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("sprung",)


HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "an .npy": npy(X),
    "a pickle": pickle.dumps([Trap()]),
    "an empty zip": npz(),
    "other things": npz(z=X),
    "half": npz(x=X, y=Y)[:200],
    "no headers": npz(x=b"hello", y=b""),
    "a pickled member": npz(x=X, y=npy(np.array([None] * 6))[:-9] + pickle.dumps(Trap())),
    "petabytes": npz(x=announced((1 << 30, 1 << 20)), y=Y),
    "more than integers": npz(x=announced((1 << 40, 1 << 40)), y=Y),
    "fewer than none": npz(x=announced((-1, 8, 9)), y=Y),
    "no such type": npz(x=announced((6, 8, 9), "<q9"), y=Y),
    "records": npz(x=announced((6,), [("a", "<u4")], bytes(24)), y=Y),
    "dates": npz(x=X, y=Y.astype("m8[s]")),
    "a deep header": npz(x=announced("(" * 5000), y=Y),
    "a long header": npz(x=b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 31), y=Y),
    "one byte less": npz(x=npy(X)[:-1], y=Y),
    "one byte more": npz(x=npy(X) + b"\0", y=Y),
    "negative labels": npz(x=X, y=Y - 1),
    "labels of a database": npz(x=X, y=Y + 10**9),
    "labels beyond int64": npz(x=X, y=Y.astype(np.uint64) + np.uint64(1 << 63)),
    "float labels": npz(x=X, y=Y.astype(np.float32)),
    "bool labels": npz(x=X, y=Y > 0),
    "labels of text": npz(x=X, y=list("abcabc")),
    "one label": npz(x=X, y=np.int64(3)),
    "one-hot labels": npz(x=X, y=np.eye(3)[Y].astype(int)),
    "one name": npz(x=X, y=Y, classes="cat"),
    "a name twice": npz(x=X, y=Y, classes=["cat", "cat", "dog"]),
    "names of numbers": npz(x=X, y=Y, classes=[0.5, 1.5, 2.5]),
    "no pixels": npz(x=np.zeros((6, 0, 9), np.uint8), y=Y),
    "complex": npz(x=X.astype(complex), y=Y),
    "1x1 or three channels": npz(x=np.full((6, 1, 1, 3), 99, np.uint8), y=Y),
    "3 wide or three channels": npz(x=np.full((6, 3, 8, 3), 99, np.uint8), y=Y),
    "1 wide or one channel": npz(x=np.full((6, 1, 8, 1), 99, np.uint8), y=Y),
    "four channels": npz(x=np.full((6, 4, 8, 9), 99, np.uint8), y=Y),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_one_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.npz").write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=r"d\.npz"):
        open_data(f"arrays:{tmp_path / 'd.npz'}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int) -> None:
    monkeypatch.setattr(npy_files, "_BOMB", (1 << 20, 100))  # of 256 MiB: making one takes longer than refusing it
    (tmp_path / "d.npz").write_bytes(npz(compression, x=np.zeros((64, 256, 256), np.uint8), y=np.zeros(64, np.uint8)))
    with pytest.raises(DataError, match=r"x would take 4194432 bytes, out of \d{3,5} in the file"):
        open_data(f"arrays:{tmp_path / 'd.npz'}")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (b"", npy(Y)),
        (npy(X)[:-1], npy(Y)),
        (npy(X), npy(Y)[:-1]),
        (npy(X), npy(Y) + b"\0"),
        (npz(x=X, y=Y), npy(Y)),
        (npy(X), npz(y=Y)),
        (pickle.dumps(Trap()), npy(Y)),
        (announced((1 << 40, 8, 9), content=X.tobytes()), npy(Y)),
        (npy(X), npy(np.array([None] * 6))),
        (npy(X), npy(Y * 10**9)),
    ],
)
def test_a_damaged_npy_is_one_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: bytes, labels: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.npy").write_bytes(images)
    (tmp_path / "d_labels.npy").write_bytes(labels)
    with pytest.raises(DataError, match=r"d(_labels)?\.npy"):
        open_data(f"arrays:{tmp_path / 'd.npy'}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"d{suffix}")
    with pytest.raises(DataError, match="no regular file"):
        open_data(f"arrays:{tmp_path / f'd{suffix}'}")


def test_labels_may_be_as_high_as_their_names_reach(tmp_path: Path) -> None:
    names = [f"species {i}" for i in range(120_000)]
    y = np.array([0, 1, 119_999, 2, 3, 4])
    np.savez(tmp_path / "d.npz", x=X, y=y, classes=names)
    images = open_data(f"arrays:{tmp_path / 'd.npz'}", n=3)
    assert len(images.classes) == 120_000 and len(images.labels.unique()) == 3
    np.savez(tmp_path / "d.npz", x=X, y=y)
    with pytest.raises(DataError, match=r"labels span \[0, 119999\]: give 0 to 99999 .* by `classes`"):
        open_data(f"arrays:{tmp_path / 'd.npz'}")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("labels", [Y.astype(">i4"), Y.astype(np.uint64), Y[:, None]])
def test_honest_arrays_of_any_order_are_read(
    tmp_path: Path, order: Literal["C", "F"], labels: npt.NDArray[Any]
) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "d.npz", x=np.asarray(X, order=order), y=labels)
        images = open_data(f"arrays:{tmp_path / 'd.npz'}")
        np.testing.assert_array_equal(stored(images)[:, 0], X)
        assert images.labels.tolist() == Y.tolist()
    np.save(tmp_path / "d.npy", np.asarray(X, order=order))
    np.save(tmp_path / "d_labels.npy", labels)
    np.testing.assert_array_equal(stored(open_data(f"arrays:{tmp_path / 'd.npy'}"))[:, 0], X)


def damaged(content: bytes, random: Generator) -> bytes:
    """The content with bits flipped, a part overwritten, cut out or doubled, or its end missing."""
    at, length = (int(random.integers(len(content))) for _ in "ab")
    match random.integers(5):
        case 0:
            return content[:at] + bytes([content[at] ^ 1 << int(random.integers(8))]) + content[at + 1 :]
        case 1:
            return content[:at] + random.bytes(8) + content[at + 8 :]
        case 2:
            return content[:at] + content[at + 1 + length % 64 :]
        case 3:
            return content[: at + length % 64] + content[at:]
        case _:
            return content[:at]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_an_error_or_changes_nothing(tmp_path: Path, compression: int) -> None:
    whole = npz(compression, x=X, y=Y, classes=["cat", "dog", "emu"])
    file = tmp_path / "d.npz"
    file.write_bytes(whole)
    right = open_data(f"arrays:{file}").digest
    random = np.random.default_rng(compression)
    refused = 0
    for _ in range(200):
        file.write_bytes(damaged(whole, random))
        try:
            found = open_data(f"arrays:{file}")
        except DataError as error:
            assert "d.npz" in str(error)
            refused += 1
        else:
            assert found.digest == right
    assert refused > 100


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_archive_that_is_not_compressed_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Literal["C", "F"]
) -> None:
    file = tmp_path / "d.npz"
    np.savez(file, y=Y, x=np.asarray(X, order=order))
    right = open_data(f"arrays:{file}")
    assert not isinstance(npy_files.Npz(file)["x"], np.memmap)
    monkeypatch.setattr(npy_files, "_MAPPED_FROM", 300)
    assert isinstance(npy_files.Npz(file)["x"], np.memmap)
    monkeypatch.setattr(images, "MOST_IN_MEMORY", 100)
    mapped = open_data(f"arrays:{file}")
    assert isinstance(mapped.pixels, Chosen) and mapped.digest == right.digest
    assert torch.equal(mapped[:], right[:]) and torch.equal(mapped[torch.tensor([5, 0])], right[torch.tensor([5, 0])])
    content = bytearray(file.read_bytes())
    content[content.index(np.asarray(X, order=order).tobytes("A")) + 7] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz .*CRC"):
        open_data(f"arrays:{file}")
    file.write_bytes(b"a prefix, as of a self-extracting archive" + npz(zipfile.ZIP_STORED, x=X, y=Y))
    np.testing.assert_array_equal(npy_files.Npz(file)["x"], X)


def test_a_compressed_archive_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npy_files, "_MOST_UNPACKED", 500)
    np.savez_compressed(tmp_path / "d.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"x is compressed and would take 560 bytes of memory: save it by np\.savez"):
        open_data(f"arrays:{tmp_path / 'd.npz'}")


def test_large_arrays_of_floats_are_turned_into_bytes_as_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "d.npy", X.astype(np.float32) / 255)
    np.save(tmp_path / "d_labels.npy", Y)
    right = open_data(f"arrays:{tmp_path / 'd.npy'}")
    monkeypatch.setattr(images, "MOST_IN_MEMORY", 100)
    mapped = open_data(f"arrays:{tmp_path / 'd.npy'}", ids=[5, 3, 4])
    assert isinstance(mapped.pixels, Chosen) and torch.equal(mapped[:], right[torch.tensor([5, 3, 4])])
    first = mapped.first(2)
    assert isinstance(first.pixels, Chosen) and torch.equal(first[:], mapped[:2]) and first.labels.tolist() == [2, 0]
    bad = X.astype(np.float32) / 255
    bad[5, 3, 3] = 0.3
    np.save(tmp_path / "d.npy", bad)
    with pytest.raises(DataError, match="multiples of 1/255"):
        open_data(f"arrays:{tmp_path / 'd.npy'}")
