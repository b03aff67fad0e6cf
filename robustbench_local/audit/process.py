"""The same question in a process that has never seen the model."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32

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


def _answer() -> None:
    """In the new process: read the question, write the answer."""
    model, x, ids, seed = torch.load(sys.argv[1], weights_only=False)  # written by the process that started this one
    with as_deployed(model), full_float32(), torch.no_grad():
        logits = call(model, x, Draws(seed, ids).stream("audit:ask"))
    torch.save(logits.cpu(), sys.argv[2])
