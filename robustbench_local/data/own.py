"""A user's own data, wherever they lie: KIND:PATH. A new kind is a reader and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from robustbench_local.core.errors import DataError
from robustbench_local.data.arrays import read_arrays
from robustbench_local.data.catalogue import Split
from robustbench_local.data.encoded import InMemory, Listed
from robustbench_local.data.folders import read_image_folder
from robustbench_local.data.images import MOST_IN_MEMORY
from robustbench_local.data.parquet import read_parquet
from robustbench_local.data.picture_cache import PictureCache
from robustbench_local.data.pictures import picture_size
from robustbench_local.data.saved_datasets import read_saved_dataset
from robustbench_local.data.transform import Transform

_PICTURES: dict[str, Callable[[Path, str], Listed]] = {
    "folder": read_image_folder,
    "parquet": read_parquet,
    "hf": read_saved_dataset,
}
_ARRAYS: dict[str, Callable[[Path, str], Split]] = {"arrays": read_arrays}


def is_own(name: str) -> bool:
    """Whether that names a place of the user's, rather than a data set that is known."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in (*_PICTURES, *_ARRAYS)


def holds_pictures(name: str) -> bool:
    """Whether it holds image files, of any size, and not arrays of one."""
    return is_own(name) and name.partition(":")[0] in _PICTURES


def read_own(name: str, split: str, transform: Transform | None) -> Split:
    """Pixels, labels and names of the classes of a split; few pictures of one size are decoded as they are asked for,
    others go through the cache.
    """
    kind, _, path = name.partition(":")
    place = _place(name, path)
    if kind in _ARRAYS:
        return _ARRAYS[kind](place, split)
    pictures, labels, classes = _PICTURES[kind](place, split)
    plain = InMemory(pictures)
    small = transform is None and plain.nbytes <= MOST_IN_MEMORY
    return plain if small else PictureCache(pictures, transform), labels, classes


def crop_for(name: str, size: tuple[int, int], *, split: str = "test") -> tuple[int, int] | None:
    """The crop that makes photographs images of a model's own size, (height, width). None where `name` holds no
    photographs, or where the first of them has that size already.
    """
    if not holds_pictures(name):
        return None
    kind, _, path = name.partition(":")
    pictures, _, _ = _PICTURES[kind](_place(name, path), split)
    _, content = next(pictures.read([0]))
    width, height = picture_size(content)
    return None if (height, width) == size else size


def kinds_of_pictures() -> str:
    """In words: "folder:PATH, parquet:PATH, hf:PATH"."""
    return ", ".join(f"{kind}:PATH" for kind in _PICTURES)


def _place(name: str, path: str) -> Path:
    try:
        name.encode()  # it goes into rows and tables
        found = Path(path).expanduser()
    except (UnicodeEncodeError, RuntimeError) as error:
        raise DataError(f"{name!r} names no place: {error}") from None
    if not path or "\0" in path:
        raise DataError(f"{name!r} names no place: write folder:PATH or arrays:PATH")
    return found
