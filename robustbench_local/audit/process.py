"""A model as it was before anybody asked it, to be asked in a process of its own."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import torch
from torch import Tensor, nn

from robustbench_local.core.child import command, environment
from robustbench_local.core.errors import ModelError

PATIENCE = 120  # seconds
CHILD = "robustbench_local.audit.child"


@dataclass(frozen=True)
class Answers:
    """logits: (n, K) to each batch of images; later: to the first batch by other clocks.

    files: which the model wrote as it answered, or read though they are younger than the audit. connections: to whom.
    """

    logits: tuple[Tensor, ...]
    later: tuple[Tensor, ...]
    files: tuple[str, ...]
    connections: tuple[str, ...]


class Untouched:
    """Keeps the model and the environment as they are now. Classes that no import finds are taken along."""

    def __init__(self, model: nn.Module) -> None:
        self._folder = tempfile.TemporaryDirectory()  # gone with this object
        self._since, self._why = time.time(), ""
        self._environment = environment(
            ROBUSTBENCH_LOCAL_FILES=json.dumps(_named_by_path(model)),
            PYTHONDONTWRITEBYTECODE="1",
            TMPDIR=self._own("temporary"),
            TORCHINDUCTOR_CACHE_DIR=self._own("compiled"),
        )
        try:
            with self._file("model").open("wb") as file:
                torch.save(model, file, pickle_module=cloudpickle)
        except Exception as error:  # a stranger's module may refuse in any way
            self._why = f"{type(error).__name__}: {error}"

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _own(self, name: str) -> str:
        self._file(name).mkdir()
        return str(self._file(name))

    def ask(self, batches: Sequence[Tensor], ids: Tensor, seed: int) -> Answers:
        """The answers to each of batches, images (n, C, H, W) with these ids, by the draws of Subject.ask.

        ModelError where the model cannot be pickled, or cannot answer there.
        """
        if self._why:
            raise ModelError(self._why)
        torch.save(([x.cpu() for x in batches], ids.cpu(), seed, self._since), self._file("question"))
        words = [*command(CHILD), self._folder.name]
        try:
            done = subprocess.run(words, env=self._environment, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise ModelError(f"no answer within {PATIENCE} s") from None
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["without a word"]
            raise ModelError(f"it ended with exit code {done.returncode}: {said[-1]}")
        return Answers(*map(tuple, torch.load(self._file("answer"), weights_only=True)))


def _named_by_path(model: nn.Module) -> dict[str, str]:
    """{module: file} of the model's classes, where importing the module would not find that file."""
    names = {type(part).__module__ for part in model.modules()} - {"__main__"}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in names}
    return {name: file for name, file in files.items() if file is not None and file != _found(name)}


def _found(module: str) -> str | None:
    """The file that importing a module for the first time would load."""
    with suppress(ImportError, ValueError):
        spec = (
            importlib.machinery.PathFinder.find_spec(module) if "." not in module else importlib.util.find_spec(module)
        )
        return None if spec is None else spec.origin
    return None
