"""Files that are either whole or not there: written beside their final name, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from robustbench_local.core.errors import StoreError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_TEMPORARY = ".tmp"
_ABANDONED_AFTER_SECONDS = 3600.0
_swept: set[Path] = set()  # folders cleared of what killed writers left, once by this process


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write (and read back); it appears as `path` when the block ends well, and not at all otherwise.

    Safe against a kill at any instant and against other writers of the same path: the last one wins. The
    parent folder is made, again where it was removed meanwhile. StoreError where the disk is full or the folder cannot
    be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        with _created(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not os.fstat(file.fileno()).st_nlink:  # somebody removed it meanwhile, or the folder
                file.seek(0)
                with whole_file(path) as again:
                    shutil.copyfileobj(file, again)
                return
        os.replace(temporary, path)
        _sync_folder(path.parent)
        if path.parent not in _swept:
            _swept.add(path.parent)
            sweep(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path.name} in {path.parent.absolute()}: {cause(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _created(file: Path) -> BinaryIO:
    for _ in range(20):
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # somebody removed the folder this instant
            return open(file, "x+b")
    return open(file, "x+b")


def sweep(folder: Path) -> None:
    """Remove what killed writers left behind: temporary files older than an hour."""
    for left in folder.glob(f".*{_TEMPORARY}"):
        with contextlib.suppress(OSError):  # another process sweeps as well
            if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
                left.unlink()


Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """What tells a file from another that takes its place; None where there is none. OSError where it is no plain file,
    but a folder or a pipe.
    """
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file")
    return about.st_ino, about.st_mtime_ns, about.st_size


def set_aside(path: Path, seen: Stamp) -> Path | None:
    """Rename a damaged file to NAME.damaged -> its new name; None where that cannot be, or where another file was
    written in its place since it was `seen`.
    """
    aside = path.with_name(f"{path.name}.damaged")
    with contextlib.suppress(OSError):
        if stamp(path) == seen:
            os.replace(path, aside)
            return aside
    return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process is in such a block for that folder. A lock ends with its process.

    Where the system has no such locks, it waits for nobody.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the operating system has a way to ask for it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def cause(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Free some space or name another folder; what was written before is intact"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "the folder is read-only. Name a folder you may write to, or change its permissions"
    return str(error)
