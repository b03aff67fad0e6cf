"""A cell that is split by its images ends as it does in one go, and nothing but its own parts makes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config.plugins import find_attack
from robustbench_local.config.schema import GridConfig, ModelConfig
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import StoreError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.images import load_images
from robustbench_local.data.load import open_data
from robustbench_local.defenses.none import Undefended
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.part_verdict import joined
from robustbench_local.grids import shards
from robustbench_local.grids.cell import Cell, Task
from robustbench_local.grids.execute import Outcome, execute
from robustbench_local.grids.kept_images import KeptImages
from robustbench_local.grids.shards import Part, Shards, execute_part, merged, parts_of
from robustbench_local.models.load import load_model
from robustbench_local.storage.store import Store
from robustbench_local.training.spec import ModelSpec
from tests.helpers import short_attacks
from tests.helpers.learner import Learner
from tests.helpers.small_networks import Jittered, network

COUNT, BATCH = 30, 5
WORK = ("seconds", "checked_forwards", "judged_forwards")  # what parts spend for themselves
CPU = torch.device("cpu")


class Detector(Defended):
    """Rejects what is brighter than most images."""

    rejects = Rejection.DETECTION

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = self.net(x)
        return torch.cat([logits, 20 * (x.mean((1, 2, 3)) - 0.53)[:, None]], 1)


class Levels(Preprocess):
    """A few grey levels."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 7).round() / 7


class Blind(nn.Module):
    """No gradient gets through for bright images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.net(torch.where((x.mean((1, 2, 3)) > 0.5)[:, None, None, None], x.detach(), x))
        return seen


class Declared(nn.Module):
    """States an accuracy that it has on its first images only."""

    clean_accuracy = 0.99

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(x)}


@dataclass(frozen=True)
class Dies(Attack):
    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        raise OSError("no such luck")


@dataclass(frozen=True)
class Case:
    attack: str
    threat: str = "linf:0.03"
    model: Callable[[nn.Module], nn.Module] = lambda net: net
    cell: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


CASES = {
    "a fixed model": Case("pgd"),
    "a suite": Case("best"),
    "a random model": Case("pgd", model=Jittered),
    "by scores of a random model": Case("square", model=Jittered),
    "a detector": Case("apgd", "linf:0.02", Detector),
    "the nearest image": Case("deepfool", "l2:0.2"),
    "the nearest image by labels": Case("boundary", "l2:0.2"),
    "a corruption": Case("gaussian_noise", "none"),
    "a corruption of a random model": Case("brightness", "none", Jittered),
    "naive": Case("pgd", model=lambda net: Deployed(net, [Levels()]).eval(), cell={"adaptive": False}),
    "adaptive": Case("pgd", model=lambda net: Deployed(net, [Levels()]).eval()),
    "targets": Case("pgd", "linf:0.1", config={"targets": "random"}),
    "targets of a random model": Case("pgd", "linf:0.1", Jittered, config={"targets": "least_likely"}),
    "under a corruption": Case("pgd", config={"attack_under": "brightness:2", "save": "x_adv"}),
    "scores kept": Case("fgsm", config={"save": "scores"}),
    "images kept": Case("pgd", model=Jittered, config={"save": "x_adv"}),
    "in double precision": Case(
        "fmn", "l2:0.5", lambda net: net.double(), config={"precision": "float64", "save": "x_adv"}
    ),
    "no gradients": Case("pgd", "linf:0.01", Blind),
    "cautions": Case("pgd", model=Declared),
}


def task_of(case: Case) -> Task:
    """On images labelled as the network sees them, of which every sixth is wrong."""
    pixels = np.random.default_rng(5).integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)
    labels = network()(torch.from_numpy(pixels) / 255).argmax(1)
    labels[::6] = (labels[::6] + 1) % 4
    images = load_images("toy", "test", pixels, labels.numpy(), slice(0, COUNT), tuple("abcd"), CPU)
    known = case.attack in short_attacks.SHORT
    attack = short_attacks.attack(case.attack) if known else find_attack(case.attack, {})
    spec = ModelSpec("toy", ModelConfig("toys:net"), "none", Undefended(), None)
    cell = Cell(spec, case.attack, attack, ThreatModel.parse(case.threat), 0, "all", eot=2, draws=3)
    settings = {"batch_size": BATCH, "allow_chance": True} | case.config
    config = GridConfig(data="toy", models="toys:net", attacks=case.attack, **settings)
    return Task("toy", replace(cell, **case.cell), config, images, "0" * 64)


def split(task: Task, model: nn.Module, parts: Sequence[slice]) -> list[Part]:
    found = [execute_part(task, model, rows) for rows in parts]
    return [part for part in found if isinstance(part, Part)]


def differing(one: Outcome, other: Outcome) -> list[str]:
    """The names of all that is not the same to the last bit, but for the work that was done."""
    rows = [{**each.row["results"], **dict.fromkeys(WORK, 0)} for each in (one, other)]
    names = [name for name in rows[0].keys() | rows[1].keys() if repr(rows[0].get(name)) != repr(rows[1].get(name))]
    names += [
        name for name in one.row.keys() | other.row.keys() if name != "results" and one.row[name] != other.row[name]
    ]
    for name in one.arrays.keys() | other.arrays.keys():
        a, b = one.arrays.get(name), other.arrays.get(name)
        if a is None or b is None or a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            names.append(name)
    return names


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_parts_together_are_the_whole_to_the_last_bit(case: Case, tmp_path: Path) -> None:
    """In memory, and by way of files; cells where some is broken and some is not, of several parts and batches each."""
    task, model = task_of(case), case.model(network())
    whole = execute(task, model)
    assert whole.row.ok, whole.row["error"]["traceback"]
    assert 0 < whole.row["results"]["robust_accuracy"] < whole.row["results"]["clean_accuracy"] <= 1
    parts = parts_of(task, 8)  # the next multiple of the batch size
    assert parts == [slice(0, 10), slice(10, 20), slice(20, 30)]
    made = split(task, model, parts)
    assert differing(merged(task, made), whole) == []
    store = Shards(tmp_path)
    for part in made:
        assert not store.there(task, part.rows) and store.find(task, part.rows) is None
        store.keep(part)
    assert all(store.there(task, rows) for rows in parts)
    outcome = store.merged(task, parts)
    assert outcome is not None and differing(outcome, whole) == []
    assert Store(tmp_path).write(task.key, outcome.row, outcome.arrays).ok
    store.remove(task, parts)
    assert not any((tmp_path / "running").rglob("*.*"))


def test_what_is_counted_is_added_up() -> None:
    task, model = task_of(CASES["no gradients"]), Blind(network())
    (flag,) = [each for each in execute(task, model).row["results"]["flags"] if each.startswith("no_gradient:")]
    made = split(task, model, [slice(0, 10), slice(10, 20), slice(20, 30)])
    counts = [part.verdict.found.faults["no_gradient"] for part in made]
    assert min(counts) > 0 and flag == f"no_gradient:{sum(counts)}"


def test_what_follows_from_all_images_is_found_anew() -> None:
    task, model = task_of(CASES["cautions"]), Declared(network())
    few = task.judge.part(model, task.images, task.cell.attack, task.cell.threat, slice(1, 3))
    assert joined([few]).flags[-1] == "output_form:dict"  # of two images, both right, nothing is certain
    made = split(task, model, [slice(0, 3), slice(3, 30)])
    assert merged(task, made).row["results"]["flags"][-2:] == ["output_form:dict", "below_declared"]


def test_work_is_what_all_parts_took(tmp_path: Path) -> None:
    task, model = task_of(CASES["a fixed model"]), network()
    whole, made = execute(task, model).row["results"], split(task, model, [slice(0, 10), slice(10, 30)])
    found = merged(task, made).row["results"]
    for name in WORK:
        assert found[name] == sum(getattr(part.verdict, name) for part in made), name
    assert found["checked_forwards"] == 2 * whole["checked_forwards"]
    assert found["judged_forwards"] > whole["judged_forwards"]  # the first question of the checks, once more
    known = AnswerCache()
    shared = [execute_part(task, model, rows, known=known) for rows in (slice(0, 10), slice(10, 30))]
    less = merged(task, [part for part in shared if isinstance(part, Part)]).row["results"]
    assert less["judged_forwards"] == whole["judged_forwards"]
    assert whole["checked_forwards"] < less["checked_forwards"] < found["checked_forwards"]  # whether it changed


def test_another_size_changes_nothing_but_near_ties() -> None:
    model, count = load_model("zoo:mnist/adversarial_training"), 120
    images = open_data("mnist", source="bundled", n=count, device=CPU)
    spec = ModelSpec("mnist", ModelConfig("toys:net"), "none", Undefended(), None)
    attack = find_attack("pgd", {"steps": 5})
    cell = Cell(spec, "pgd", attack, ThreatModel.parse("linf:0.33"), 0, "all")
    config = GridConfig(data="mnist", models="toys:net", attacks="pgd", save="x_adv")
    task = Task("toy", cell, config, images, "0" * 64)
    parts = parts_of(task, 37)
    assert parts == [slice(0, 37), slice(37, 74), slice(74, 111), slice(111, 120)]
    one, other = execute(task, model), merged(task, split(task, model, parts))
    assert 0.3 < one.row["results"]["robust_accuracy"] < 0.97
    assert one.arrays["x_adv"].shape == other.arrays["x_adv"].shape and (one.arrays["ids"] == other.arrays["ids"]).all()
    differ = one.arrays["robust"] != other.arrays["robust"]
    margins = []
    for outcome in (one, other):
        with torch.no_grad():
            top = model(torch.from_numpy(np.array(outcome.arrays["x_adv"]))).topk(2, 1).values
        margins.append((top[:, 0] - top[:, 1]).numpy())
    assert not (differ & (margins[0] > 1e-3) & (margins[1] > 1e-3)).any() and differ.sum() <= 1


def test_a_broken_merge_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    task, model = task_of(CASES["images kept"]), Jittered(network())
    whole, made = execute(task, model), split(task, model, [slice(0, 10), slice(10, 20), slice(20, 30)])
    monkeypatch.setattr(shards, "joined", lambda parts: joined(parts[::-1]))
    assert {"ids", "labels", "robust", "bits"} <= {*differing(merged(task, made), whole)}
    monkeypatch.setattr(shards, "joined", lambda parts: joined([parts[0], parts[2], parts[2]]))
    assert {"ids", "bits", "scores"} <= {*differing(merged(task, made), whole)}


def test_only_its_own_parts_in_their_order_make_a_cell() -> None:
    task, model = task_of(CASES["a fixed model"]), network()
    rows = [slice(0, 10), slice(10, 20), slice(20, 30)]
    a, b, c = split(task, model, rows)
    other = replace(task, cell=replace(task.cell, seed=1))
    foreign = split(other, model, [rows[1]])[0]
    for parts, words in [
        ((a, c, b), "20:30 come where those from 10 on"),
        ((b, c), "10:20 come where those from 0 on"),
        ((a, c), "20:30 come where those from 10 on"),
        ((a, a, b, c), "0:10 come where those from 10 on"),
        ((a, b), "images 20:30 are in none of its 2 parts"),
        ((), "images 0:30 are in none"),
        ((a, foreign, c), f"of another cell, {other.key}, not {task.key}"),
        ((a, replace(c, rows=rows[1]), b), "10:20 is of other images, or in another order"),
        ((a, replace(b, rows=slice(10, 31))), "10:31 come where"),
    ]:
        with pytest.raises(StoreError, match=words):
            merged(task, parts)
    verdict, back = b.verdict, torch.arange(9, -1, -1)
    shuffled = replace(b, verdict=replace(verdict, ids=verdict.ids[back], labels=verdict.labels[back]))
    with pytest.raises(StoreError, match="10:20 is of other images, or in another order"):
        merged(task, [a, shuffled, c])


def changed_byte(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 16
    path.write_bytes(bytes(whole))


DAMAGES: dict[str, Callable[[Path, str, str], object]] = {
    "a byte of its arrays": lambda folder, part, other: changed_byte(folder / f"{part}.npz"),
    "a byte of its record": lambda folder, part, other: changed_byte(folder / f"{part}.json"),
    "cut short": lambda folder, part, other: (folder / f"{part}.npz").write_bytes(b"PK\x03\x04"),
    "no arrays": lambda folder, part, other: (folder / f"{part}.npz").unlink(),
    "another part's arrays": lambda folder, part, other: (folder / f"{other}.npz").replace(folder / f"{part}.npz"),
    "another part": lambda folder, part, other: [
        (folder / f"{other}.{kind}").replace(folder / f"{part}.{kind}") for kind in ("json", "npz")
    ],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_part_that_is_damaged_or_foreign_is_named_and_made_again(
    damage: Callable[[Path, str, str], object], tmp_path: Path
) -> None:
    task, model = task_of(CASES["images kept"]), Jittered(network())
    rows, store, folder = [slice(0, 15), slice(15, 30)], Shards(tmp_path), tmp_path / "running" / "shards"
    made = split(task, model, rows)
    for part in made:
        store.keep(part)
    damage(folder, f"{task.key}.15-30", f"{task.key}.0-15")
    with pytest.warns(UserWarning, match=r"[.]15-30[.]json counts as missing: .*; it is .*[.]damaged now"):
        assert store.find(task, rows[1]) is None
    assert not store.there(task, rows[1]) and store.find(task, rows[1]) is None  # and nothing more is said
    assert store.merged(task, rows[1:]) is None
    for part in made:
        store.keep(part)
    outcome = store.merged(task, rows)
    assert outcome is not None and differing(outcome, execute(task, model)) == []


def test_a_full_disk_while_images_are_merged_is_the_error_of_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    task, model = task_of(CASES["images kept"]), Jittered(network())
    made = split(task, model, [slice(0, 15), slice(15, 30)])

    def full(self: KeptImages, rows: slice, part: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(KeptImages, "put", full)
    outcome = merged(task, made)
    assert not outcome.row.ok and "No space left" in outcome.row.failure


def test_a_part_of_other_pixels_is_missing(tmp_path: Path) -> None:
    """As where the images changed under a name that says what they were."""
    task, model, store = task_of(CASES["a fixed model"]), network(), Shards(tmp_path)
    for part in split(task, model, [slice(0, 10), slice(10, 30)]):
        store.keep(part)
    pixels = np.array(task.images.pixels)
    pixels[12, 0, 0, 0] ^= 1
    other = replace(task, images=replace(task.images, pixels=pixels))
    assert other.key == task.key and store.find(other, slice(0, 10)) is not None
    with pytest.warns(UserWarning, match="it is of other images, or of another cell"):
        assert store.find(other, slice(10, 30)) is None


def test_a_part_of_another_name_or_version_is_missing(tmp_path: Path) -> None:
    task, store, folder = task_of(CASES["a fixed model"]), Shards(tmp_path), tmp_path / "running" / "shards"
    (part,) = split(task, network(), [slice(0, 15)])
    store.keep(replace(part, key="f" * 24))
    for kind in ("json", "npz"):
        (folder / f"{'f' * 24}.0-15.{kind}").rename(folder / f"{task.key}.0-15.{kind}")
    with pytest.warns(UserWarning, match="it is the part"):
        assert not store.there(task, part.rows)
    store.keep(part)
    file = folder / f"{task.key}.0-15.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 99}))
    with pytest.warns(UserWarning, match="it has schema 99"):
        assert store.find(task, part.rows) is None


def test_what_is_not_split() -> None:
    task = task_of(CASES["a fixed model"])
    assert parts_of(task, 30) is None and parts_of(task, 29) is None  # in whole batches they are all
    assert parts_of(task, 25) == [slice(0, 25), slice(25, 30)]
    bare = replace(task, config=replace(task.config, batch_size=None))
    assert parts_of(bare, 29) == [slice(0, 29), slice(29, 30)]
    assert parts_of(replace(task, cell=replace(task.cell, attack=Learner())), 10) is None
    assert parts_of(replace(task, config=replace(task.config, budget=100)), 10) is None
    for name in ("best", "autoattack"):  # whose members learn nothing from images of the attacker's
        assert parts_of(replace(task, cell=replace(task.cell, attack=short_attacks.attack(name))), 10) is not None


def test_a_part_that_dies_is_the_error_of_the_cell() -> None:
    task, model = task_of(CASES["a fixed model"]), network()
    outcome = execute_part(replace(task, cell=replace(task.cell, attack=Dies())), model, slice(10, 20))
    assert isinstance(outcome, Outcome) and outcome.row["status"] == "error" and not outcome.arrays
    assert outcome.row.failure == "OSError: no such luck"


def test_parts_of_several_machines_name_them_all() -> None:
    task, model = task_of(CASES["a fixed model"]), network()
    a, b = split(task, model, [slice(0, 10), slice(10, 30)])
    b = replace(b, environment={**b.environment, "device": "another"})
    where = merged(task, [a, b]).row["environment"]
    assert where == {**a.environment, "device": f"{a.environment['device']} + another"}
