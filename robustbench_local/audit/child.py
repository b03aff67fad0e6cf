"""In a process of its own: a model's answers, while clocks go on by days and its files and connections are watched."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from robustbench_local.audit.clocks import Clocks
from robustbench_local.audit.watch import Watch
from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.models.formats.python import module_of

# seconds by which clocks are ahead: times of day, days of the week, months and years, and no round number
LATER = (21_613.7, 43_201.9, 64_817.3, 3 * 86_400 + 31.1, 101 * 86_400 + 7.9, 400 * 86_400 + 3.3)


def main() -> None:
    """Read the model and the question from the folder that the command names, write the answer into it."""
    folder = Path(sys.argv[1])
    batches, ids, seed, since = torch.load(folder / "question", weights_only=True)
    watch = Watch(since, os.environ["TORCHINDUCTOR_CACHE_DIR"])
    for name, file in json.loads(os.environ["ROBUSTBENCH_LOCAL_FILES"]).items():
        module_of(Path(file), name)
    model = torch.load(folder / "model", weights_only=False)  # written by the process that started this one
    x = batches[0].to(next((parameter.device for parameter in model.parameters()), batches[0].device))

    def ask(x: torch.Tensor) -> torch.Tensor:
        with watch.watching():
            return call(model, x, Draws(seed, ids.to(x.device)).stream("audit:ask")).cpu()

    with as_deployed(model), full_float32(), torch.no_grad():
        logits = [ask(each.to(x)) for each in batches]
        clocks, later = Clocks(), []
        for ahead in LATER:
            clocks.ahead = ahead
            later.append(ask(x))
    torch.save((logits, later, sorted({*watch.files}), sorted({*watch.connections})), folder / "answer")
