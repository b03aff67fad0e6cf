"""How a Python process of our own is started, which finds every module that this one finds."""

from __future__ import annotations

import json
import os
import sys

_PATH = "ROBUSTBENCH_LOCAL_PATH"


def command(module: str) -> list[str]:
    """Runs main() of that module, with the `environment` below."""
    start = f"import json, os, sys; sys.path[:] = json.loads(os.environ[{_PATH!r}]); from {module} import main; main()"
    return [sys.executable, "-c", start]


def environment(**more: str) -> dict[str, str]:
    """This process's, its path of modules, and more."""
    return {**os.environ, _PATH: json.dumps(sys.path), **more}


def of_worker(threads: int) -> dict[str, str]:
    """What a process is told that computes with so many threads, beside others.

    It keeps the memory that it freed: tensors of the same sizes come again at every step, and to ask the system for
    their pages anew took two workers a fifth of their time (mnist_breaks, n=200). What the user says counts last.
    """
    kept = ":".join(f"glibc.malloc.{name}_threshold={2**32 - 1}" for name in ("trim", "mmap"))
    own = os.environ.get("GLIBC_TUNABLES")
    return environment(
        OMP_NUM_THREADS=str(threads),
        MKL_NUM_THREADS=str(threads),
        PYTHONUNBUFFERED="1",
        GLIBC_TUNABLES=f"{kept}:{own}" if own else kept,
    )
