"""Files that are either whole or not there: written beside their final name, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from robustbench_local.errors import StoreError

_TEMPORARY = ".tmp"
_ABANDONED_AFTER_SECONDS = 3600.0


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write (and read back); it appears as `path` when the block ends well, and not at all otherwise.

    Safe against a kill at any instant and against other writers of the same path: the last one wins. The
    parent folder is made. StoreError where the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path.name} in {path.parent.absolute()}: {_cause(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sweep(folder: Path) -> None:
    """Remove what killed writers left behind: temporary files older than an hour."""
    for left in folder.glob(f".*{_TEMPORARY}"):
        with contextlib.suppress(OSError):  # another process sweeps as well
            if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
                left.unlink()


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


def _cause(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Free some space or name another folder; what was written before is intact"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "the folder is read-only. Name a folder you may write to, or change its permissions"
    return str(error)
