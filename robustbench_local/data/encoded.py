"""Pictures as files hold them, undecoded: the one form in which folders, lists and tables hand them over."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Bytes, Labels
from robustbench_local.data.pictures import Content, has_colour, picture_size, read_picture
from robustbench_local.data.transform import Transform


class Encoded(Protocol):
    """N pictures. place: what errors and the cache call them, such as "folder:PATH test"."""

    @property
    def place(self) -> str: ...
    def __len__(self) -> int: ...

    def stamps(self) -> Iterator[bytes]:
        """What changes whenever one of them does, or their order. OSError where a file is gone."""
        ...

    def read(self, rows: Sequence[int]) -> Iterator[tuple[str, Content]]:
        """(name, file or its content) of each row, in that order; cheapest where it rises."""
        ...


Listed = tuple[Encoded, Labels, tuple[str, ...]]  # pictures, labels (N,), names of the classes


@dataclass(frozen=True)
class Files:
    """A file for each picture."""

    place: str
    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def stamps(self) -> Iterator[bytes]:
        return map(file_stamp, self.files)

    def read(self, rows: Sequence[int]) -> Iterator[tuple[str, Content]]:
        return ((str(self.files[row]), self.files[row]) for row in rows)


def file_stamp(file: Path) -> bytes:
    """Path, size and times of a file. The time of its last change cannot be set back, as that of writing can."""
    about = file.stat()
    return os.fsencode(file.absolute()) + b"\0%d %d %d\n" % (about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@dataclass(frozen=True)
class InMemory:
    """A few pictures of one size, decoded whenever they are asked for: uint8 (n, C, H, W)."""

    pictures: Encoded

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def nbytes(self) -> int:
        """In colour, by the header of the first."""
        _, content = next(self.pictures.read([0]))
        width, height = picture_size(content)
        return 3 * width * height * len(self)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Bytes:
        chosen = np.arange(len(self))[rows].tolist()
        images: list[Bytes] = []
        first = ""
        for name, content in self.pictures.read(chosen):
            images.append(read_picture(content, name=name))
            first = first or name
            check_size(name, images[-1], images[0].shape, None, first)
        channels = max(map(len, images))
        if channels == 1 and len(images) < len(self) and has_any_colour(self.pictures):
            channels = 3  # so that every part of a split has the channels of the whole
        return np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])


def has_any_colour(pictures: Encoded) -> bool:
    return any(has_colour(content) for _, content in pictures.read(range(len(pictures))))


def check_size(
    name: str, image: Bytes, shape: tuple[int, ...], transform: Transform | None, first: str = "the first"
) -> None:
    """DataError where an image is of another height or width than others."""
    if image.shape[1:] != shape[1:]:
        hint = "give crop as well" if transform else "resize and crop make them so (as resize=256 crop=224)"
        raise DataError(
            f"{name} is {image.shape[2]}x{image.shape[1]}, but {first} is {shape[2]}x{shape[1]}: all must have one"
            f" size, and {hint}"
        )
