"""What an attack learns before it sees a judged image: from whose images, at what cost, and what it notes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config import plugins
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ConfigError, DataError
from robustbench_local.core.losses import ce
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.data.load import open_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.grids.run import run_grid
from robustbench_local.metrics.summary import summarise
from robustbench_local.storage.store import Store
from tests.helpers.learner import COUNT, JUDGED, LINF, POOL, SEEN, Learner, network


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


def test_own_images_come_from_the_pool_and_the_seed_draws_them() -> None:
    for seed in (0, 0, 1):
        Judge(seed=seed)(network(), JUDGED, Learner(), LINF, attacker=POOL)
    first, same, other = (x for x, _ in SEEN)
    assert torch.equal(first, same) and not torch.equal(first, other)
    for x, y in SEEN:
        match = (POOL.x[None] == x[:, None]).flatten(2).all(2)
        assert (match.sum(1) == 1).all() and torch.equal(POOL.labels[match.nonzero()[:, 1]], y)


def test_it_is_prepared_once_and_batches_change_nothing() -> None:
    verdicts = [Judge(batch_size=size)(network(), JUDGED, Learner(), LINF, attacker=POOL) for size in (1, 7, COUNT)]
    assert len(SEEN) == 3
    for verdict in verdicts:
        assert verdict.prepared_forwards == 15 and verdict.prepared_backwards == 0
        assert not verdict.forwards.any()  # what was spent on its own images is not the judged images' cost
        for name, values in verdict.notes.items():
            assert torch.equal(values.nan_to_num(-1), verdicts[0].notes[name].nan_to_num(-1))


def test_notes_are_per_sample_and_nan_where_there_is_none() -> None:
    wrong = Tensors(JUDGED.x, JUDGED.labels.clone(), JUDGED.ids)
    wrong.labels[3] = (wrong.labels[3] + 1) % 3  # errs already, so it is not attacked
    verdict = Judge(batch_size=6)(network(), wrong, Learner(), LINF, attacker=POOL)
    assert verdict.notes["known"].isnan().nonzero().flatten().tolist() == [3]
    corner = JUDGED.x[:, 0, 0, 0]
    expected = torch.where((corner > 0.5) & (torch.arange(COUNT) != 3), corner, torch.nan)
    assert torch.equal(verdict.notes["high"].nan_to_num(-1), expected.nan_to_num(-1))
    results = summarise(verdict, ["a", "b", "c"])
    assert results["notes"]["high"] == pytest.approx(expected.nanmean().item())
    assert results["prepared_forwards"] == 15


def test_an_attack_that_learns_nothing_gets_no_images() -> None:
    verdict = Judge()(network(), JUDGED, Learner(wanted=0), LINF)
    assert SEEN[0][0].shape == (0, 3, 2, 2) and verdict.prepared_forwards == 0


def test_without_images_of_its_own_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Learner learns from 5 images .* attacker=\(x, y\)"):
        evaluate(network(), JUDGED.x, JUDGED.labels, Learner(), LINF)
    with pytest.raises(ConfigError, match=r"Learner learns from 51 images .* there are 50"):
        evaluate(network(), JUDGED.x, JUDGED.labels, Learner(wanted=51), LINF, attacker=(POOL.x, POOL.labels))
    with pytest.raises(ConfigError, match=r"\(1, 2, 2\), the judged \(3, 2, 2\)"):
        evaluate(network(), JUDGED.x, JUDGED.labels, Learner(), LINF, attacker=(POOL.x[:, :1], POOL.labels))


def test_judged_images_are_nobodys_own() -> None:
    mixed = torch.cat([POOL.x, JUDGED.x[4:6]]), torch.cat([POOL.labels, JUDGED.labels[4:6]])
    with pytest.raises(DataError, match=r"2 of the attacker's 52 images"):
        evaluate(network(), JUDGED.x, JUDGED.labels, Learner(), LINF, attacker=mixed)
    as_arrays: Any = POOL.x.numpy(), POOL.labels
    with pytest.raises(DataError, match=r"attacker is .*an array of float32.* must be .a torch tensor"):
        evaluate(network(), JUDGED.x, JUDGED.labels, Learner(), LINF, attacker=as_arrays)


def test_preparing_grants_no_more_access_than_attacking() -> None:
    @dataclass(frozen=True)
    class Greedy(Learner):
        def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
            oracle.grad(x, y, ce)
            return self

    with pytest.raises(AccessError, match="granted LABELS and asked for gradients"):
        Judge()(network(), JUDGED, Greedy(), LINF, attacker=POOL)

    @dataclass(frozen=True)
    class White(Learner):
        access: ClassVar[Access] = Access.GRADIENTS

    @dataclass(frozen=True)
    class Climber(Learner):
        def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
            return White()

    with pytest.raises(ConfigError, match="another kind"):
        Judge()(network(), JUDGED, Climber(), LINF, attacker=POOL)


def test_the_budget_holds_while_preparing() -> None:
    @dataclass(frozen=True)
    class Asks(Learner):
        def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
            for turn in range(4):
                assert ((oracle.labels(x) >= 0) == (turn < 2)).all()
            return self

    verdict = Judge(budget=2)(network(), JUDGED, Asks(), LINF, attacker=POOL)
    assert verdict.prepared_forwards == 10


def test_what_is_asked_beside_the_target_is_on_no_meter_and_retires_nobody() -> None:
    @dataclass(frozen=True)
    class Beside(Attack):
        def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
            own = oracle.beside(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), Access.GRADIENTS)
            for _ in range(3):
                own.grad(x, y, ce)
            assert (own.forwards == 3).all() and not own.done.any()
            return x

    verdict = Judge(budget=1)(network(), JUDGED, Beside(), LINF)
    assert not verdict.forwards.any() and not verdict.backwards.any()


GRID = """
data: mnist
source: bundled
n: 8
models: zoo:mnist/none
attacks: [learner, fgsm]
threats: ["linf:0.1"]
device: cpu
"""


@pytest.fixture()
def _grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a grid of an attack that learns; the name `learner` finds it."""
    (tmp_path / "learning.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    load = plugins._load

    def with_learner(group: plugins.Group, name: str, base: type[Any]) -> type[Any]:
        return MnistLearner if name == "learner" else load(group, name, base)

    monkeypatch.setattr(plugins, "_load", with_learner)


@dataclass(frozen=True)
class MnistLearner(Learner):
    origin: str = "nobody knows"

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        SEEN.append((x, y))
        return replace(self, known=0.0)

    def sources(self) -> dict[str, str]:
        return {"origin": self.origin}


@pytest.mark.usefixtures("_grid")
@pytest.mark.parametrize("split", ["test", "train"])
def test_a_grid_gives_training_images_that_are_not_judged(split: str) -> None:
    row, plain = run_grid("learning.yaml", split=split, save="x_adv")
    assert row["status"] == "ok", row
    mine = fingerprint(SEEN[0][0])
    train = open_data("mnist", split="train", source="bundled")
    judged = open_data("mnist", split=split, source="bundled", n=8)
    assert len(mine) == 5 and torch.isin(mine, fingerprint(train[:])).all()
    assert not torch.isin(mine, fingerprint(judged[:])).any()
    assert row["results"]["notes"] == {"high": None, "known": 0.0}  # no MNIST image is white in the corner
    assert "attacker_digest" in row["definition"] and "attacker_digest" not in plain["definition"]
    assert row["definition"]["attack_sources"] == {"origin": "nobody knows"}
    arrays = Store(Path("results/learning")).arrays(row["key"])
    assert arrays["note_known"].tolist() == [0.0] * 8 and np.isnan(arrays["note_high"]).all()
    assert arrays["fingerprint"].tolist() == fingerprint(judged[:]).tolist()


@pytest.mark.usefixtures("_grid")
def test_what_is_read_names_the_row() -> None:
    first, _ = run_grid("learning.yaml")
    other, _ = run_grid("learning.yaml", attacks=[{"learner": {"origin": "elsewhere"}}, "fgsm"])
    more, _ = run_grid("learning.yaml", split="train", n=9)
    assert len({first["key"], other["key"], more["key"]}) == 3
    with pytest.raises(ConfigError, match="every training image"):
        run_grid("learning.yaml", split="train", n=None)


@pytest.mark.usefixtures("_grid")
def test_a_dry_run_predicts_what_preparing_takes() -> None:
    learning: dict[str, Any] = {
        "attacks": [{"substitute": {"seeds": 10, "rounds": 3, "epochs": 1}}, {"universal": {"images": 12, "epochs": 2}}]
    }
    predicted = run_grid("learning.yaml", dry_run=True, **learning)
    assert [(row["prepared_forwards"], row["prepared_backwards"]) for row in predicted] == [(40, 0), (24, 24)]
    measured = [row["results"] for row in run_grid("learning.yaml", **learning)]
    for name in ("prepared_forwards", "prepared_backwards"):
        assert [row[name] for row in predicted] == [row[name] for row in measured]
    longer = run_grid("learning.yaml", dry_run=True, attacks=[{"universal": {"images": 12, "epochs": 2000}}])
    assert longer[0]["seconds"] > predicted[1]["seconds"]


def test_a_fingerprint_tells_images_apart_by_their_least_bit() -> None:
    x = torch.rand(50, 3, 8, 8)
    other = x.clone()
    other[torch.arange(50), 1, 2, 3] = other[torch.arange(50), 1, 2, 3].nextafter(torch.tensor(2.0))
    swapped = x[:, :, :, [1, 0, 2, 3, 4, 5, 6, 7]]
    marks = torch.cat([fingerprint(x), fingerprint(other), fingerprint(swapped)])
    assert len(marks.unique()) == 150
    last = x.contiguous(memory_format=torch.channels_last).double()
    assert torch.equal(fingerprint(last), marks[:50])
