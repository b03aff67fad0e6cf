"""Several defenses as one model: what comes where, what its row says, and that each attack meets the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_local.config.schema import ModelConfig
from robustbench_local.core.defense import call, is_stochastic
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, PluginError
from robustbench_local.data.load import load_data
from robustbench_local.defenses.bit_depth import BitDepth
from robustbench_local.defenses.jpeg import JPEG
from robustbench_local.grids.run import run_grid
from robustbench_local.models.load import load_model
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from robustbench_local.training.builder import ModelBuilder
from robustbench_local.training.spec import ModelSpec

GRID = """
data: mnist
source: bundled
n: 12
models: mnist_small
attacks: [fgsm]
threats: ["linf:0.1"]
device: cpu
"""


def plan(entry: Any, data: str = "mnist", architecture: str = "mnist_small") -> ModelSpec:
    return ModelBuilder(torch.device("cpu")).spec(data, ModelConfig(architecture), entry)


def make(entry: Any, **where: Any) -> torch.nn.Module:
    return ModelBuilder(torch.device("cpu")).build(plan(entry, **where))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "toy.yaml").write_text(GRID)
    return tmp_path


def test_what_comes_first_meets_the_image_first() -> None:
    x, _ = load_data("mnist", n=10, source="bundled")
    x = (x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    net = load_model("zoo:mnist/none")
    jpeg, bits = JPEG(20), BitDepth(2)
    entry = [{"jpeg": {"quality": 20}}, {"bit_depth": {"bits": 2}}]
    expected = net(bits.apply(jpeg.apply(x, None), None))
    assert torch.equal(make(entry)(x), expected)
    other = net(jpeg.apply(bits.apply(x, None), None))
    assert torch.equal(make(entry[::-1])(x), other) and not torch.equal(expected, other)


def test_a_wrapper_stands_before_the_trained_network_of_the_zoo() -> None:
    x, _ = load_data("mnist", n=10, source="bundled")
    net = load_model("zoo:mnist/adversarial_training")
    model = make([{"bit_depth": {"bits": 3}}, "adversarial_training"])
    assert torch.equal(model(x), net(BitDepth(3).apply(x, None)))
    composed, alone = plan(["jpeg", "adversarial_training"]), plan("adversarial_training")
    assert composed.recipe == alone.recipe and composed.defense == alone.defense  # the zoo's settings
    assert not ModelBuilder(torch.device("cpu")).needs_training(composed)
    assert torch.equal(make(["bit_depth", "none"])(x), make("bit_depth")(x))


def test_one_in_a_list_is_that_one() -> None:
    assert plan(["jpeg"]) == plan("jpeg")


def test_random_parts_draw_apart() -> None:
    model = make(["crop_rescale", "crop_rescale", "resize_pad"])
    assert is_stochastic(model)
    x, _ = load_data("mnist", n=30, source="bundled")
    draws = Draws(0, torch.arange(30))
    assert torch.equal(call(model, x, draws), call(model, x, draws[:]))
    rows = torch.tensor([4, 2])
    torch.testing.assert_close(call(model, x[rows], draws[rows]), call(model, x, draws)[rows])
    once = call(make("crop_rescale"), x, draws)
    assert not torch.allclose(call(model, x, draws), once)


def test_a_finished_model_can_be_wrapped_twice() -> None:
    shop = ModelBuilder(torch.device("cpu"))
    model = shop.build(shop.spec("mnist", ModelConfig("zoo:mnist/none"), ["median", "bit_depth"]))
    x, _ = load_data("mnist", n=4, source="bundled")
    assert torch.equal(model(x), make(["median", "bit_depth"])(x))


def test_the_row_names_the_whole(folder: Path) -> None:
    entries = [
        "jpeg",
        [{"jpeg": {"quality": 50}}, "bit_depth"],
        [{"jpeg": {"quality": 60}}, "bit_depth"],
        ["jpeg", "adversarial_training"],
        [{"jpeg": {"quality": 90}}, {"jpeg": {"quality": 40}}],
    ]
    rows = run_grid("toy.yaml", defenses=entries)
    assert [row["status"] for row in rows] == ["ok"] * 5
    names = [row["definition"]["defense"] for row in rows]
    assert names == ["jpeg", "jpeg + bit_depth", "jpeg + bit_depth", "jpeg + adversarial_training", "jpeg + jpeg"]
    alone, first, second, trained, twice = (row["definition"]["defense_settings"] for row in rows)
    assert alone["quality"] == 75
    assert first["jpeg.quality"] == 50 and second["jpeg.quality"] == 60 and first["bit_depth.bits"] == 4
    assert trained["jpeg.quality"] == 75 and trained["adversarial_training.threat"] == "linf:0.3"
    assert twice["jpeg#1.quality"] == 90 and twice["jpeg#2.quality"] == 40
    versions = [row["definition"]["defense_version"] for row in rows]
    assert versions[:2] == [JPEG.version, [JPEG.version, BitDepth.version]]
    assert len({row["key"] for row in rows}) == 5
    again = run_grid("toy.yaml", defenses=entries)
    assert [row["key"] for row in again] == [row["key"] for row in rows]
    table = (folder / "results" / "toy" / "table.md").read_text()
    assert "jpeg + adversarial_training" in table and "jpeg + bit_depth (jpeg.quality=50)" in table


@pytest.mark.parametrize(
    "entry, error, text",
    [
        (["adversarial_training", "jpeg"], ConfigError, "put it last"),
        (["jpg", "none"], PluginError, "jpeg"),
        ([], ConfigError, "write a name"),
        ([["jpeg", "median"], "none"], ConfigError, "write a name"),
        ([{"jpeg": {"quality": 500}}, "none"], ConfigError, "quality"),
    ],
)
def test_mistakes_are_errors_before_anything_runs(entry: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        plan(entry)
