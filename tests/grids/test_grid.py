"""Grids from file to rows: what they mean, that they resume, that failures stay where they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustbench_local.config import reading
from robustbench_local.config.plugins import find_defense
from robustbench_local.core.errors import ConfigError, DataError, ModelError, PluginError, RobustBenchError, StoreError
from robustbench_local.core.progress import Progress
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.plan import read_config, resolve
from robustbench_local.grids.run import run, run_grid
from robustbench_local.models import zoo
from robustbench_local.storage import checkpoints
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.sealing import sealed
from robustbench_local.training.builder import ModelBuilder
from robustbench_local.training.recipes import parse_recipe
from robustbench_local.training.zoo_builder import make

MODELS = """
import os
import torch
from torch import nn

def linear():
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        net[1].weight.copy_(torch.linspace(-1, 1, 7840).view(10, 784).cos())
        net[1].bias.zero_()
    return net

class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = linear()

    def forward(self, x):
        if os.environ.get("MOOD") == "bad":
            raise OSError("not in the mood")
        return self.net(x)

moody = Moody
"""

GRID = """
data: mnist
source: bundled
n: 16
models: ["toys:linear"]
attacks: [fgsm, {pgd: {steps: 2}}]
threats: ["linf:0.1"]
device: cpu
"""

SMALL = {"epochs": 1, "batch": 100, "validation": 1800, "watched": 20}


class Record(Progress):
    """Keeps what is said; `stop_at` interrupts, as Ctrl-C would, once that many lines were said."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.lines: list[str] = []
        self.stop_at = stop_at

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, what: str, share: float) -> None:
        if self.stop_at is not None and len(self.lines) >= self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a grid and a module of models, an empty cache and an empty zoo."""
    (tmp_path / "toys.py").write_text(MODELS)
    (tmp_path / "toy.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    monkeypatch.delitem(__import__("sys").modules, "toys", raising=False)
    return tmp_path


def cells(name: str, **overrides: Any) -> list[str]:
    config = read_config(name, overrides)
    return [str(cell) for cell in resolve(config, ModelBuilder(torch.device("cpu"), config.source))]


def test_a_grid_gives_rows_and_tables(folder: Path) -> None:
    rows = run_grid("toy.yaml")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert [row["definition"]["attack"] for row in rows] == ["fgsm", "pgd"]
    assert rows[0]["definition"]["ids"] == "0:16" and rows[0]["results"]["n"] == 16
    assert rows[0]["environment"]["torch"] == torch.__version__
    assert (folder / "results/toy/table.md").exists() and (folder / "results/toy/table.csv").exists()
    assert len(list((folder / "results/toy/rows").glob("*.json"))) == 2


def test_an_attack_may_have_fewer_images_in_a_table_of_its_own(folder: Path) -> None:
    attacks = ["fgsm", {"pgd": {"steps": 2, "n": 4}}, {"noise": {"n": 16}}]
    rows = run_grid("toy.yaml", attacks=attacks)
    assert [row["definition"]["ids"] for row in rows] == ["0:16", "0:4", "0:16"]
    assert rows[1]["results"]["n"] == 4
    assert (folder / "results/toy/table.md").read_text().count("## ") == 2
    with pytest.raises(ConfigError, match="n of pgd is 0: it must be a whole number, at least 1"):
        cells("toy.yaml", attacks=[{"pgd": {"n": 0}}])


def test_a_defense_and_an_attack_may_have_draws_of_their_own(folder: Path) -> None:
    smoothed = {"randomized_smoothing": {"samples": 32, "eot": 2, "draws": 3}}
    given = {"models": "mnist_small", "defenses": ["none", smoothed], "attacks": ["fgsm", {"pgd": {"draws": 7}}]}
    config = read_config("toy.yaml", {**given, "draws": 5, "eot": 4})
    judges = [cell.judge(config) for cell in resolve(config, ModelBuilder(torch.device("cpu")))]
    assert [(judge.eot, judge.draws) for judge in judges] == [(4, 5), (4, 7), (2, 3), (2, 7)]
    with pytest.raises(ConfigError, match="draws of randomized_smoothing is 0: it must be a whole number, at least 1"):
        cells("toy.yaml", models="mnist_small", defenses=[{"randomized_smoothing": {"draws": 0}}])


def test_an_attack_may_leave_random_models_out(folder: Path) -> None:
    attacks = ["fgsm", {"noise": {"random_models": False}}]
    rows = run_grid("toy.yaml", attacks=attacks, defenses=["none", {"noise_fusion": {"training": False}}])
    run = [(row["definition"]["attack"], row["results"]["stochastic"]) for row in rows]
    assert run == [("fgsm", False), ("noise", False), ("fgsm", True)]
    assert "not run" not in (folder / "results/toy/table.md").read_text()  # a table of random models has no such column
    with pytest.raises(ConfigError, match="random_models of pgd is 0: it must be true or false"):
        cells("toy.yaml", attacks=[{"pgd": {"random_models": 0}}])


def test_the_same_again_does_nothing_and_force_does_it_anew(folder: Path) -> None:
    first = run_grid("toy.yaml")
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "results/toy/rows").iterdir()}
    assert run_grid("toy.yaml") == first
    assert {path: path.stat().st_mtime_ns for path in (folder / "results/toy/rows").iterdir()} == stamps
    again = run_grid("toy.yaml", force=True)
    assert {path: path.stat().st_mtime_ns for path in (folder / "results/toy/rows").iterdir()} != stamps
    for old, new in zip(first, again, strict=True):
        assert {**old["results"], "seconds": 0} == {**new["results"], "seconds": 0}


def test_a_cell_of_a_neighbouring_grid_is_taken_over(folder: Path) -> None:
    first = run_grid("toy.yaml")
    (folder / "wider.yaml").write_text("defaults: [toy, _self_]\nattacks: [fgsm, {pgd: {steps: 2}}, noise]\n")
    assert [row["status"] for row in run_grid("wider.yaml", dry_run=True)] == ["done", "done", "to do"]
    assert not (folder / "results/wider/rows").exists()
    progress = Record()
    rows = run_grid("wider.yaml", progress=progress)
    assert rows[:2] == [sealed({**row, "grid": "wider"}) for row in first]
    assert [line.endswith("done before, in results/toy") for line in progress.lines[:3]] == [True, True, False]
    store = Grid.open("wider.yaml", {}, Progress()).store
    assert all(store.arrays(row["key"]) for row in rows)
    (folder / "results/toy/rows" / f"{first[0]['key']}.npz").write_bytes(b"damaged")
    (folder / "results/wider/rows" / f"{first[0]['key']}.json").unlink()
    with pytest.warns(UserWarning, match="counts as missing"):
        assert run_grid("wider.yaml")[0]["created"] >= first[0]["created"]
    (folder / "results/aside").mkdir()
    (folder / "results/aside/rows.tar.xz").write_bytes(b"damaged")
    progress = Record()
    run_grid("wider.yaml", force=True, progress=progress)
    run_grid("wider.yaml", n=15, progress=progress)
    (folder / "kept.yaml").write_text("defaults: [toy, _self_]\nsave: x_adv\n")
    kept = run_grid("kept.yaml", progress=progress)
    assert all("x_adv" in row["arrays"] for row in kept)
    assert not any("done before" in line for line in progress.lines)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 15},
        {"ids": "1:17"},
        {"seeds": 1},
        {"threats": ["linf:0.2"]},
        {"precision": "float64"},
        {"count": "last"},
        {"models": ["toys:moody"]},
        {"attacks": ["fgsm", {"pgd": {"steps": 3}}]},
        {"budget": 50},
    ],
)
def test_what_defines_a_cell_is_in_its_key(change: dict[str, Any]) -> None:
    before = {row["key"] for row in run_grid("toy.yaml")}
    after = {row["key"] for row in run_grid("toy.yaml", **change)}
    assert before != after


def test_batch_size_defines_nothing() -> None:
    first = run_grid("toy.yaml")
    assert run_grid("toy.yaml", batch_size=5) == first


def test_a_failing_model_keeps_its_error_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOOD", "bad")
    rows = run_grid("toy.yaml", models=["toys:moody", "toys:linear"])
    assert [row["status"] for row in rows] == ["error", "error", "ok", "ok"]
    assert "not in the mood" in rows[0]["error"]["message"]
    assert "forward" in rows[0]["error"]["traceback"]
    monkeypatch.setenv("MOOD", "good")
    progress = Record()
    rows = run_grid("toy.yaml", models=["toys:moody", "toys:linear"], progress=progress)
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert sum("done before" in line for line in progress.lines) == 2


def test_what_is_to_be_saved_is_saved_though_the_cell_was_done_before(folder: Path) -> None:
    """A grid that had run once had nothing to do, and saved nothing."""
    run_grid("toy.yaml")
    store = Grid.open("toy.yaml", {}, Progress()).store
    for save, names in (("scores", {"scores", "clean_scores"}), ("x_adv", {"x_adv", "fingerprint", "scores"})):
        assert {row["status"] for row in run_grid("toy.yaml", save=save, dry_run=True)} == {"to do"}
        saved = run_grid("toy.yaml", save=save)
        assert all(names <= store.arrays(row["key"]).keys() for row in saved)
        progress = Record()
        assert run_grid("toy.yaml", save=save, progress=progress) == saved
        assert run_grid("toy.yaml", progress=progress) == saved  # and who wants less takes what is there
        assert sum("done before" in line for line in progress.lines) == 4


@pytest.mark.filterwarnings("ignore:.*counts as missing")
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_removed_while_the_grid_runs_is_made_again(folder: Path, force: bool) -> None:
    first = run_grid("toy.yaml")

    class Remover(Record):
        def line(self, text: str) -> None:
            super().line(text)
            if len(self.lines) in (1, 2):
                shutil.rmtree(folder / "results")

    progress = Remover()
    rows = run_grid("toy.yaml", progress=progress, force=force)
    assert any("removed" in line for line in progress.lines)
    own = dict.fromkeys(("seconds", "checked_forwards", "judged_forwards"))  # of who measured, and what it knew before
    for old, new in zip(first, rows, strict=True):
        assert {**old["results"], **own} == {**new["results"], **own}
    stored = Grid.open("toy.yaml", {}, Progress()).store.rows()
    assert [row["key"] for row in stored] == sorted(row["key"] for row in rows)
    assert (folder / "results/toy/table.md").exists()


def test_interrupted_it_keeps_what_is_finished(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_grid("toy.yaml", progress=Record(stop_at=1))
    assert len(list((folder / "results/toy/rows").glob("*.json"))) == 1
    progress = Record()
    rows = run_grid("toy.yaml", progress=progress)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert ["done before" in line for line in progress.lines] == [True, False]


def test_adversarial_images_are_kept_losslessly_if_asked_for() -> None:
    opened = Grid.open("toy.yaml", {"save": "x_adv"}, Progress())
    row = run(opened)[1]
    arrays = opened.store.arrays(row["key"])
    x = opened.images["mnist", None][:].numpy()
    assert arrays["x_adv"].dtype == "float32" and arrays["x_adv"].shape == x.shape
    assert abs(arrays["x_adv"] - x).max() <= 0.1 + 1e-6
    assert (arrays["clean"] & ~arrays["robust"]).any()  # the toy is broken, so there is something to keep
    bare = opened.store.arrays(run_grid("toy.yaml", force=True)[1]["key"])
    scored = opened.store.arrays(run_grid("toy.yaml", force=True, save="scores")[1]["key"])
    assert set(arrays) - set(scored) == {"x_adv", "fingerprint"}
    assert set(scored) - set(bare) == {"clean_scores", "scores"}
    assert (scored["scores"].argmax(1) == bare["predicted"]).all()


def test_a_dry_run_runs_nothing(folder: Path) -> None:
    rows = run_grid("toy.yaml", dry_run=True)
    assert [(row["status"], row["forwards"], row["backwards"]) for row in rows] == [("to do", 1, 1), ("to do", 2, 2)]
    assert all(row["seconds"] > 0 for row in rows)
    assert not (folder / "results").exists()
    run_grid("toy.yaml", attacks=["fgsm"])
    assert [row["status"] for row in run_grid("toy.yaml", dry_run=True)] == ["done", "to do"]
    rows = run_grid("toy.yaml", dry_run=True, defenses=["resize_pad"], eot=7)
    assert [(row["forwards"], row["backwards"]) for row in rows] == [(7, 7), (14, 14)]  # draws are paid for


def test_a_dry_run_counts_what_the_norm_asks_for(folder: Path) -> None:
    rows = run_grid("toy.yaml", dry_run=True, attacks=["best"], threats=["linf:0.1", "l2:1"])
    inside, outside = sorted((row["forwards"], row["backwards"]) for row in rows)
    assert outside == (inside[0] + 501, inside[1] + 285)  # in L2 FAB's rounds come on top


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"attcks": ["fgsm"]}, ConfigError, 'did you mean "attacks"'),
        ({"attacks": ["fgms"]}, PluginError, 'did you mean "fgsm"'),
        ({"attacks": [{"pgd": {"stpes": 4}}]}, ConfigError, 'did you mean "steps"'),
        ({"attacks": [{"pgd": 4}]}, ConfigError, "write a name, or"),
        ({"attacks": [{"pgd": {"threat": "l0:3"}}]}, ConfigError, "does not know the norm"),
        ({"attacks": []}, ConfigError, "no cell"),
        ({"defenses": ["nonne"]}, PluginError, 'did you mean "none"'),
        ({"defenses": ["adversarial_training"]}, ConfigError, "finished model"),
        ({"models": ["mnist_smal"]}, ModelError, 'did you mean "mnist_small"'),
        ({"models": ["toys:liner"]}, ModelError, 'did you mean "linear"'),
        ({"models": ["zoo:mnist/nonexistent"]}, ModelError, "in the zoo"),
        ({"models": [{"name": "mnist_small", "weigths": "x"}]}, ConfigError, 'did you mean "weights"'),
        ({"models": [{"name": "mnist_small", "weights": "nowhere.pt"}]}, ModelError, "nowhere.pt"),
        ({"models": {"cifar10": ["preact_small"]}}, ConfigError, "data is mnist"),
        ({"data": "mnits"}, DataError, 'did you mean "mnist"'),
        ({"n": 5000}, DataError, "5000"),
        ({"n": "many"}, ConfigError, "a whole number"),
        ({"ids": 650}, ConfigError, "base 60"),
        ({"threats": ["lnf:0.1"]}, RobustBenchError, 'did you mean "linf"'),
        ({"threats": ["linf:0.7"]}, RobustBenchError, "grey"),
        ({"precision": "float16"}, ConfigError, "float16"),
        ({"device": "gpu"}, ConfigError, "unknown device"),
        ({"weights": "a.pt", "models": ["mnist_small", "fast_cnn"]}, ConfigError, "one model"),
    ],
)
def test_a_mistake_is_an_error_before_anything_runs(
    change: dict[str, Any], kind: type[Exception], words: str, folder: Path
) -> None:
    with pytest.raises(kind, match=words):
        run_grid("toy.yaml", **change)
    assert not (folder / "results").exists()


def test_a_folder_that_cannot_be_written_to_is_an_error_before_anything_runs(folder: Path) -> None:
    (folder / "results").write_text("a file where a folder should be")
    progress = Record()
    with pytest.raises(StoreError):
        run_grid("toy.yaml", progress=progress)
    assert not progress.lines


def test_threats_stand_per_data_set_or_per_attack() -> None:
    listed = cells(
        "toy.yaml",
        data=["mnist", "cifar10"],
        models={"mnist": ["mnist_small"], "cifar10": ["preact_small"]},
        threats={"mnist": ["linf:0.3"], "cifar10": ["linf:8/255", "l0:1"]},
        attacks=["noise", "fgsm", {"pgd": {"threat": "l2:0.5"}}],
    )
    assert listed == [
        "mnist mnist_small none | noise linf:0.3 seed 0",
        "mnist mnist_small none | fgsm linf:0.3 seed 0",
        "mnist mnist_small none | pgd l2:0.5 seed 0",
        "cifar10 preact_small none | noise linf:8/255 seed 0",
        "cifar10 preact_small none | noise l0:1 seed 0",
        "cifar10 preact_small none | fgsm linf:8/255 seed 0",
        "cifar10 preact_small none | pgd l2:0.5 seed 0",
    ]


def test_a_file_of_ones_own_may_extend_a_packaged_one(folder: Path) -> None:
    (folder / "mine.yaml").write_text("defaults: [cifar10_pgd, _self_]\nattacks: [fgsm]\nseeds: [3, 4]\n")
    assert len(cells("mine.yaml")) == 2 * 2


@pytest.mark.parametrize("name", reading.names("grid"))
def test_packaged_grids_are_sound(name: str, folder: Path) -> None:
    overrides: dict[str, Any] = {}
    if name == "image_folder":
        with pytest.raises(ConfigError, match="needs a value for data"):
            read_config(name, {})
        overrides = {"data": "mnist", "models": ["mnist_small"]}
    if name.startswith("reference"):
        with pytest.raises(ConfigError, match="weights"):
            read_config(name, {})
        overrides = {"models": ["mnist_small"], "weights": None}
    assert cells(name, **overrides)


@pytest.mark.parametrize("name", reading.names("zoo"))
def test_packaged_recipes_are_sound(name: str) -> None:
    """And what a grid says in the words of a recipe is that recipe, so that what the zoo holds is not trained again."""
    values = reading.read(reading.find("zoo", name), {})
    recipe = parse_recipe(values, name)
    plan = ModelBuilder(torch.device("cpu")).spec(
        values["data"], config_model(values["architecture"]), values["defense"]
    )
    assert plan.recipe == replace(recipe, defense=recipe.defense.as_trained())


def config_model(name: str, **more: Any) -> Any:
    from robustbench_local.config.schema import ModelConfig

    return ModelConfig(name, **more)


def test_a_bare_defense_takes_the_settings_of_the_zoo() -> None:
    builder = ModelBuilder(torch.device("cpu"))
    bare = builder.spec("cifar10", config_model("preact_small"), "adversarial_training")
    assert bare.defense.method == "fgsm_rs"  # type: ignore[attr-defined]
    assert bare.recipe is not None and bare.recipe.schedule.epochs == 20
    named = builder.spec("cifar10", config_model("preact_small"), {"adversarial_training": {"steps": 3}})
    assert named.defense.method == "pgd" and named.defense.steps == 3  # type: ignore[attr-defined]


def test_a_model_is_trained_once_and_then_read(folder: Path) -> None:
    overrides: dict[str, Any] = {
        "models": [{"name": "fast_cnn", "schedule": SMALL}],
        "defenses": ["none", "adversarial_training"],
        "attacks": ["fgsm"],
    }
    assert [row["status"] for row in run_grid("toy.yaml", dry_run=True, **overrides)] == ["must train"] * 2
    progress = Record()
    first = run_grid("toy.yaml", progress=progress, **overrides)
    assert [row["status"] for row in first] == ["ok", "ok"]
    assert sum(line.startswith("training") for line in progress.lines) == 2
    assert len(list((folder / "cache/models").glob("*.safetensors"))) == 2
    progress = Record()
    assert run_grid("toy.yaml", progress=progress, **overrides) == first
    assert not any(line.startswith("training") for line in progress.lines)
    overrides["models"][0]["schedule"] = SMALL | {"lr": 0.1}
    assert run_grid("toy.yaml", dry_run=True, **overrides)[0]["status"] == "must train"


def test_rows_of_a_recipe_that_another_machine_trained_are_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides: dict[str, Any] = {
        "models": [{"name": "fast_cnn", "schedule": SMALL}],
        "defenses": ["adversarial_training", "squeeze_detector"],
        "attacks": ["fgsm"],
        "allow_chance": True,
    }
    first = run_grid("toy.yaml", **overrides)
    assert [row["status"] for row in first] == ["ok", "ok"] and len({row["origin"] for row in first}) == 2
    shutil.rmtree(folder / "cache")
    assert [row["status"] for row in run_grid("toy.yaml", dry_run=True, **overrides)] == ["done"] * 2
    progress = Record()
    assert run_grid("toy.yaml", progress=progress, **overrides) == first
    said = [line.partition(": ")[2] for line in progress.lines]
    assert said == ["done before, by the same recipe on another machine", "done before"] * 2
    own = weights_digest
    with monkeypatch.context() as patch:  # the same recipe trained here as well, to other weights
        for place in ("bench", "shelf", "preview"):
            patch.setattr(f"robustbench_local.grids.{place}.weights_digest", lambda net: own(net)[::-1])
        ModelBuilder(torch.device("cpu"), "bundled").build(Grid.open("toy.yaml", overrides, Progress()).cells[0].model)
        assert run_grid("toy.yaml", **overrides) == first
        here = run_grid("toy.yaml", force=True, **overrides)
        assert {row["key"] for row in here}.isdisjoint(row["key"] for row in first)
        assert run_grid("toy.yaml", **overrides) == here
    shutil.rmtree(folder / "cache")
    changes: list[dict[str, Any]] = [
        {"force": True},
        {"n": 3},
        {"save": "scores"},
        {"attacks": ["fgsm", "noise"]},
        {"models": [{"name": "fast_cnn", "schedule": SMALL | {"lr": 0.1}}]},
    ]
    for change in changes:
        status = {row["status"] for row in run_grid("toy.yaml", dry_run=True, **{**overrides, **change})}
        assert status == {"must train"}, change


def test_a_defense_that_cannot_be_fitted_stops_no_other_and_a_dry_run_says_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(find_defense("squeeze_detector"))

    def dies(self: object, net: nn.Module) -> nn.Module:
        raise RuntimeError("no such detector")

    overrides: dict[str, Any] = {"defenses": ["squeeze_detector", "none"], "attacks": ["fgsm"]}
    with monkeypatch.context() as patch:
        patch.setattr(kind, "around", dies)
        rows = run_grid("toy.yaml", **overrides)
    assert [row["status"] for row in rows] == ["error", "ok"] and "no such detector" in rows[0]["error"]["message"]
    run_grid("toy.yaml", **overrides)
    shutil.rmtree(folder / "cache")
    progress = Record()
    assert {row["status"] for row in run_grid("toy.yaml", dry_run=True, progress=progress, **overrides)} == {"done"}
    assert not progress.lines


def test_a_zoo_model_is_made_measured_and_found_by_its_recipe(folder: Path) -> None:
    small = {f"schedule.{key}": value for key, value in SMALL.items()}
    path, figures = make(
        "mnist/none", {**small, "source": "bundled", "n": 32, "device": "cpu", "attack": "fgsm"}, Progress()
    )
    assert path == folder / "zoo/mnist/none.safetensors"
    assert figures["n"] == 32 and 0 <= figures["robust_accuracy"] <= figures["clean_accuracy"] <= 1
    entry = zoo.zoo_entry("mnist/none")
    assert entry.figures == json.loads(json.dumps(figures)) and entry.metadata["minutes"]

    schedule = entry.recipe["schedule"]
    progress = Record()
    model = {"name": entry.architecture, "schedule": schedule}
    rows = run_grid(
        "toy.yaml",
        models=[model],
        attacks=["fgsm"],
        n=32,
        threats=[figures["threat"]],
        allow_chance=True,
        progress=progress,
    )
    assert not any(line.startswith("training") for line in progress.lines)
    assert rows[0]["results"]["clean_accuracy"] == figures["clean_accuracy"]
    assert rows[0]["results"]["robust_accuracy"] == figures["robust_accuracy"]

    weights = checkpoints.load(path)[0]
    again = {**small, "source": "bundled", "n": 8, "attack": "pgd", "remeasure": True}
    progress = Record()
    assert make("mnist/none", again, progress)[1]["n"] == 8
    assert not any(line.startswith("epoch") for line in progress.lines)
    state, notes = checkpoints.load(path)
    assert json.loads(notes["figures"])["attack"].startswith("PGD") and notes["minutes"] == entry.metadata["minutes"]
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())


def test_making_a_zoo_model_refuses_a_mistake_before_it_trains() -> None:
    progress = Record()
    for overrides in ({"schedule.epocs": 1}, {"architecture": "mnist_smal"}, {"attack": "pgdd"}, {"treat": "linf:0.1"}):
        with pytest.raises(RobustBenchError, match="did you mean"):
            make("mnist/none", {**overrides, "source": "bundled"}, progress)
    assert not progress.lines


def test_overrides_are_parsed_as_hydra_does() -> None:
    assert reading.parse(["n=100", "ids=1000:10000", "attacks=[fgsm,{pgd:{steps:10}}]", "threats=[linf:4/255]"]) == {
        "n": 100,
        "ids": "1000:10000",
        "attacks": ["fgsm", {"pgd": {"steps": 10}}],
        "threats": ["linf:4/255"],
    }
    for wrong in ("n", "attacks=fgsm,pgd", "~n", "attacks=[fgsm"):
        with pytest.raises(ConfigError, match=r"list|key=value"):
            reading.parse([wrong])


def test_an_application_of_hydras_keeps_its_own_state(folder: Path) -> None:
    from hydra import compose, initialize_config_dir, version

    (folder / "app.yaml").write_text("port: 80\n")
    with initialize_config_dir(str(folder), version_base="1.2"):
        read_config("toy.yaml", {})
        assert compose("app").port == 80
        assert version.base_at_least("1.2") and not version.base_at_least("1.3")
    read_config("toy.yaml", {})
    from hydra.core.global_hydra import GlobalHydra

    assert not GlobalHydra.instance().is_initialized()
