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
