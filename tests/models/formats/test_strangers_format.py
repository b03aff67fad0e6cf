"""A format from somebody else's package is found as ours are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robustbench_local import load_model
from robustbench_local.core.errors import ModelError
from robustbench_local.models.load import formats, open_model
from tests.helpers.packages import installed

CODE = """
import torch
from torch import nn
from robustbench_local.models.format import Asked, Format, Loaded, file_identity

class Table(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x.flatten(1) @ self.weight

class Text(Format):
    prefixes = ("text",)
    suffixes = (".txt",)
    summary = "weights as text: net.txt"

    def load(self, asked: Asked) -> Loaded:
        rows = [[float(word) for word in line.split()] for line in asked.file.read_text().splitlines()]
        return Loaded(Table(torch.tensor(rows)), identity=file_identity(asked.file))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "text_format.py").write_text(CODE)
    installed(tmp_path, "text_format", "[robustbench_local.formats]\ntext = text_format:Text\nzoo = text_format:Text\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    formats.cache_clear()
    yield tmp_path
    formats.cache_clear()
    sys.modules.pop("text_format", None)


def test_it_loads_by_suffix_and_by_prefix_and_takes_no_name_of_ours(folder: Path) -> None:
    (folder / "net.txt").write_text("1 0\n0 1\n1 1\n")
    (folder / "other").write_text("1 0\n0 1\n1 2\n")
    x = torch.rand(4, 3, 1, 1)
    weight = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    assert torch.equal(load_model("net.txt")(x), x.flatten(1) @ weight)
    assert open_model("text:other")[1] != open_model("net.txt")[1] == open_model("text:net.txt")[1]
    assert type(load_model("zoo:mnist/none")).__name__ == "Sequential"
    (folder / "net.txt").write_text("one two\n")
    with pytest.raises(ModelError, match=r"cannot be loaded as weights as text.*could not convert"):
        load_model("net.txt")
