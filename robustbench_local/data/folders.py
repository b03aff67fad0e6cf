"""A user's own images: a folder with one folder per class."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import Counter
from pathlib import Path, PurePath

import numpy as np

from robustbench_local.core.errors import DataError
from robustbench_local.core.escaping import shown
from robustbench_local.data.catalogue import SPLITS
from robustbench_local.data.encoded import Files, Listed
from robustbench_local.data.labels_file import LABELS_FILE, read_labels
from robustbench_local.data.numbering import numbered, renumbered
from robustbench_local.data.pictures import OTHER_SUFFIXES, SUFFIXES

CLASSES_FILE = "classes.txt"


def read_image_folder(path: Path, split: str) -> Listed:
    """PATH/class/*.png, .jpg, .bmp, .webp and the like: classes and files in the order of their names.

    PATH/test/class and PATH/train/class where there are two splits; without them PATH is the test split. The classes
    are those of both splits together, in the order of their names as text, as torchvision's ImageFolder sorts them (so
    that 10 comes before 9), or those of PATH/classes.txt, one a line, where there is one. Nothing is decoded before it
    is asked for. One channel if all images of the split are grey, else RGB.

    Where labels.csv lies in PATH (or in both splits), it names the pictures and their labels instead, in its order; the
    folders then mean nothing. Links are followed, in either case, wherever they lead.

    DataError names what is no such folder, an image that is unreadable, of another size or of a kind that is not read,
    and a class that has none. Other files are left out with a warning, those with a dot before their name without.
    """
    try:
        if not path.is_dir():
            raise DataError(f"folder:{path} is not a folder")
        return _read(path, split)
    except OSError as error:
        raise DataError(f"folder:{path} cannot be read: {error}") from error


def _read(path: Path, split: str) -> Listed:
    roots = {name: path / name for name in SPLITS if (path / name).is_dir()} or {"test": path}
    if split not in roots:
        raise DataError(
            f"folder:{path} has no {split} split: put its classes into {path / split}"
            + (" (a class of its own may be called neither test nor train)" if path not in roots.values() else "")
        )
    if path not in roots.values() and (path / LABELS_FILE).is_file():
        raise DataError(f"{path / LABELS_FILE} lies beside the splits: put one into {', '.join(roots)} each")
    if any((root / LABELS_FILE).is_file() for root in roots.values()):
        return _read_lists(path, split, roots)
    folders = {name: _class_folders(root) for name, root in roots.items()}
    listed = _listed(path / CLASSES_FILE)
    classes = listed or tuple(sorted(set().union(*folders.values())))
    left_out: list[str] = []
    files = [_image_files(roots[split] / name, left_out) if name in folders[split] else [] for name in classes]
    _check_classes(path, folders, listed)
    if not any(files):
        expected = f"expected {roots[split]}/CLASS/NAME with {', '.join(sorted(SUFFIXES))}"
        raise DataError(f"{roots[split]} holds no image: {expected}")
    for name, found in zip(classes, files, strict=True):  # a class may lack images in one split, not in all
        others = [root / name for other, root in roots.items() if other != split and name in folders[other]]
        if not found and not listed and not any(_image_files(other, []) for other in others):
            raise DataError(f"{roots[split] / name} holds no image: remove it, or give the class some")
    if left_out:
        some = shown(", ".join(left_out[:3]), "terminal") + (", ..." if len(left_out) > 3 else "")
        warnings.warn(
            f"folder:{path}: {len(left_out)} files of {split} are no images by their names and were left out: {some}",
            stacklevel=6,
        )
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    return Files(f"folder:{path} {split}", [file for found in files for file in found]), labels, classes


def _read_lists(path: Path, split: str, roots: dict[str, Path]) -> Listed:
    """The pictures that lists name, in their order."""
    for root in roots.values():
        if not (root / LABELS_FILE).is_file():
            raise DataError(f"{root} has no {LABELS_FILE}, and the other split has: give both one, or neither")
    lists = {name: read_labels(root / LABELS_FILE) for name, root in roots.items()}
    own = lists.pop(split)
    others = (label for listed in lists.values() for _, label in listed)
    labels, classes = numbered(f"folder:{path}", [label for _, label in own], others)
    if names := _listed(path / CLASSES_FILE):
        labels, classes = renumbered(f"folder:{path}", labels, classes, names)
    return Files(f"folder:{path} {split}", [file for file, _ in own]), labels, classes


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)


def _class_folders(root: Path) -> set[str]:
    """The names of the classes; DataError where an image lies beside their folders, or a name is no text."""
    names = set()
    for entry in _visible(root):
        if entry.is_dir():
            names.add(entry.name)
        elif PurePath(entry.name).suffix.lower() in SUFFIXES | OTHER_SUFFIXES:
            raise DataError(f"{entry.path!r} lies beside the folders of the classes: put it into that of its class")
    for name in names:
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
            raise DataError(f"{root} has a class {name!r}: rename it, a name holds no control characters and is UTF-8")
    return names


def _listed(file: Path) -> tuple[str, ...]:
    """The classes that a file lists; none where there is no such file."""
    if not file.is_file():
        return ()
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text: write the name of one class a line") from error
    twice, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(f'{file} lists "{twice}" twice: write each class once, in the order of their numbers')
    return tuple(names)


def _check_classes(path: Path, folders: dict[str, set[str]], listed: tuple[str, ...]) -> None:
    """DataError on a class that a list lacks, and on one whose name is spelt in two ways by the two splits."""
    for name in sorted(set().union(*folders.values())):
        if listed and name not in listed:
            raise DataError(f'{path / CLASSES_FILE} does not list "{name}", which is a folder: list every class there')
    test, train = (folders.get(split, set()) for split in SPLITS)
    alone = {_folded(name): name for name in train - test}
    for name in sorted(test - train):
        if (other := alone.get(_folded(name))) is not None:
            raise DataError(f'folder:{path} calls a class "{name}" in test and "{other}" in train: rename one')


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _image_files(folder: Path, left_out: list[str]) -> list[Path]:
    """The images of a class, by name; other files are added to `left_out`."""
    files = []
    for entry in _visible(folder):
        suffix = PurePath(entry.name).suffix.lower()
        if entry.is_dir():
            raise DataError(f"{entry.path!r} is a folder: images lie directly in that of their class, {folder}")
        if suffix in SUFFIXES and not entry.is_file():
            raise DataError(f"{entry.path!r} cannot be read as an image: it is a pipe, a device or a link to nowhere")
        if suffix in SUFFIXES:
            files.append(Path(entry.path))
        elif suffix in OTHER_SUFFIXES:
            raise DataError(f"{entry.path!r} is of a kind that is not read: convert it to .png, or move it away")
        else:
            left_out.append(entry.name)
    return files
