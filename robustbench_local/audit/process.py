"""The same question in a process that has never seen the model."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.models.formats.python import module_of

PATIENCE = 120  # seconds


def asked_afresh(model: nn.Module, x: Tensor, ids: Tensor, seed: int) -> tuple[Tensor | None, str]:
    """(logits (n, K) on the CPU, "") of the model, pickled, in a new Python process; (None, why) where that fails.

    The same draws as Subject.ask would give images x with these ids.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "question", Path(folder) / "answer"
        try:
            with question.open("wb") as file:
                torch.save((model, x, ids, seed), file)
        except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
            return None, f"{type(error).__name__}: {error}"
        command = [sys.executable, "-c", f"from {__name__} import _answer; _answer()", str(question), str(answer)]
        known = {**os.environ, "ROBUSTBENCH_LOCAL_PATH": json.dumps(sys.path)}
        known["ROBUSTBENCH_LOCAL_FILES"] = json.dumps(_named_by_path(model))
        start = "import json, os, sys; sys.path[:] = json.loads(os.environ['ROBUSTBENCH_LOCAL_PATH']); "
        command[2] = start + command[2]
        try:
            done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return None, f"no answer within {PATIENCE} s"
        if done.returncode:
            return None, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it ended without a word"
        logits: Tensor = torch.load(answer, weights_only=True)
        return logits, ""


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


def _answer() -> None:
    """In the new process: read the question, write the answer."""
    for name, file in json.loads(os.environ["ROBUSTBENCH_LOCAL_FILES"]).items():
        module_of(Path(file), name)
    model, x, ids, seed = torch.load(sys.argv[1], weights_only=False)  # written by the process that started this one
    with as_deployed(model), full_float32(), torch.no_grad():
        logits = call(model, x, Draws(seed, ids).stream("audit:ask"))
    torch.save(logits.cpu(), sys.argv[2])
