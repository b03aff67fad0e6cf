"""Damaged files of every format: a model or an error of ours, whatever the bytes; counts are printed (-s)."""

from __future__ import annotations

import json
import os
import random
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_local import load_model
from robustbench_local.core.errors import RobustBenchError

CASES = 25 * int(os.environ.get("ROBUSTBENCH_LOCAL_FUZZ", "1"))
NET = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
X = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def export(path: Path) -> None:
    torch.export.save(torch.export.export(NET, (X,)), path)


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(NET, X).save(path)


def onnx(path: Path) -> None:
    torch.onnx.export(NET, (X,), path, dynamo=False, input_names=["x"], output_names=["out"])


def skops(path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    pytest.importorskip("skops.io").dump(LogisticRegression().fit(X.flatten(1).numpy(), [0, 1, 0, 1]), path)


def described(path: Path) -> None:
    path.write_text("model: zoo:mnist/none\nexpects: 0-255\nnormalise: {mean: [0.5], std: [0.5]}\nclasses: 10\n")


def python(path: Path) -> None:
    path.write_text("import torch\n\ndef make():\n    return torch.nn.Flatten()\n")


FILES: dict[str, Callable[[Path], None]] = {
    "net.pt2": export,
    "net.ts": script,
    "net.onnx": onnx,
    "net.skops": skops,
    "model.yaml": described,
    "damaged_net.py": python,
}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The bytes cut short, with some changed, some taken out, or a part repeated."""
    spot = draw.randrange(len(content))
    match draw.randrange(4):
        case 0:
            return content[:spot]
        case 1:
            changed = bytearray(content)
            for _ in range(draw.choice((1, 4, 64))):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
            return bytes(changed)
        case 2:
            return content[:spot] + content[spot + draw.randrange(1, 64) :]
        case _:
            return content[:spot] + content[max(0, spot - 32) :]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_a_model_or_an_error_of_ours(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    whole, counts, draw = (tmp_path / name).read_bytes(), Counter[str](), random.Random(name)
    for case in range(CASES):
        folder = tmp_path / str(case)
        folder.mkdir()
        (folder / name).write_bytes(damaged(whole, draw))
        spec = f"{folder / name}:make" if name == "damaged_net.py" else str(folder / name)
        try:
            load_model(spec)
            counts["loaded"] += 1
        except RobustBenchError as error:
            assert str(error)
            counts["refused"] += 1
    print(name, json.dumps(counts))
    assert sum(counts.values()) == CASES and counts["refused"]
