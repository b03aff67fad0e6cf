"""What a few images tell of what all will cost: by a clock on which each question takes a millisecond."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config.plugins import find_attack
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import Norm
from robustbench_local.grids import pilot as pilots
from robustbench_local.grids import trials
from robustbench_local.grids.cell import Task
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.pace import Pace
from robustbench_local.grids.pilot import Passes, Pilot, pilot
from robustbench_local.grids.trials import Trials
from robustbench_local.storage.checkpoints import weights_digest

MOST = 1500  # questions about an image that does not fall
FALLEN = 3  # and about one that falls at once
PACE = Pace(Passes(1e-4, 1e-4, 0, 0), 10, False, 40)


class Yielding(Attack):
    """Asks about each image as often as `lives` says."""

    access = Access.SCORES

    def lives(self, ids: Tensor) -> Tensor:
        """The first image to the end, the others a hundred times."""
        return torch.where(ids == ids.min(), MOST, 100)

    def __call__(self, oracle: Any, x: Any, y: Any, threat: Any, draws: Any) -> Any:
        lives = self.lives(draws.ids)
        for question in range(int(lives.max())):
            rows = (lives > question).nonzero()[:, 0]
            oracle[rows].logits(x[rows])
        return x

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return MOST, 0


class OneByOne(Yielding):
    """Asks about one image until it is done with it."""

    def __call__(self, oracle: Any, x: Any, y: Any, threat: Any, draws: Any) -> Any:
        for k in range(len(x)):
            for _ in range(MOST):
                oracle[torch.tensor([k])].logits(x[k : k + 1])
        return x


class Uneven(Yielding):
    """Of ten images nine fall at once and one does not: of these ones two thirds are given up after a while."""

    def lives(self, ids: Tensor) -> Tensor:
        return torch.where(ids % 10 == 5, torch.where(ids // 10 % 3 == 0, MOST, 150), FALLEN)

    def __call__(self, oracle: Any, x: Any, y: Any, threat: Any, draws: Any) -> Any:
        cheap = (self.lives(draws.ids) == FALLEN).nonzero()[:, 0]
        for _ in range(FALLEN):
            oracle[cheap].logits((y[cheap] == 1).float().view(-1, 1, 1, 1).expand_as(x[cheap]))  # black is a one there
        return super().__call__(oracle, x, y, threat, draws)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(pilots, "clock", lambda _device: next(ticks) / 1000)


def opened(folder: Path, attack: Attack, n: int = 40, **defense: Any) -> tuple[Task, nn.Module]:
    """The cell of that attack on a network that is right about each of its images."""
    about: dict[str, Any] = {"data": "mnist", "source": "bundled", "n": n, "models": ["zoo:mnist/none"]}
    about |= {"attacks": ["fgsm"], "threats": ["linf:1"], "allow_large": True, "device": "cpu", "results": str(folder)}
    about |= {"defenses": [defense]} if defense else {}
    (folder / "uneven.yaml").write_text("\n".join(f"{name}: {value}" for name, value in about.items()))
    grid = Grid.open(str(folder / "uneven.yaml"), {}, Progress())
    vars(grid.cells[0])["attack"] = attack
    model = grid.builder.build(grid.groups[0].spec)
    return grid.task(grid.cells[0], weights_digest(model)), model


def test_a_trial_leaves_the_model_as_it_was_and_ends_in_time(tmp_path: Path, ticking: None) -> None:
    task, model = opened(tmp_path, Yielding())
    before = weights_digest(model)
    trial = pilot(task, model, 8, 0.05)
    assert trial is not None and not trial.whole and len(trial.alive) == 8 and trial.calls <= 50
    assert weights_digest(model) == before and not any(weight.grad is not None for weight in model.parameters())


def alive_after(folder: Path, attack: Attack) -> int:
    """Of 4 images, how many a trial that was ended says are still attacked."""
    trial = pilot(*opened(folder, attack), 4, 0.3)
    assert trial is not None and not trial.whole
    assert trial.ended.forwards == (4 - len(trial.alive)) * 100 and trial.lost == 4 - len(trial.alive)
    return len(trial.alive)


def test_what_an_attack_gave_up_is_told_from_what_waits_for_its_turn(
    tmp_path: Path, ticking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert alive_after(tmp_path, Yielding()) == 1
    assert alive_after(tmp_path, OneByOne()) == 4
    monkeypatch.setattr(pilots, "LULL", 10**9)  # the check above catches a trial that sees nobody given up
    assert alive_after(tmp_path, Yielding()) == 4


def test_a_question_of_several_draws_is_about_the_same_images(tmp_path: Path, ticking: None) -> None:
    noise = {"training": False, "kind": "gaussian", "amplitude": 0.1}
    trial = pilot(*opened(tmp_path, find_attack("pgd"), noise_fusion=noise), 8, 0.048)
    assert trial is not None and 45 <= trial.calls <= 49 and not trial.whole
    assert len(trial.alive) == 8 and trial.kept == 1 and trial.ended.asked == 0


def expected(folder: Path, n: int) -> tuple[float, float]:
    """Passes per image of the uneven attack as its trials tell them, and as they are."""
    task, model = opened(folder, Uneven(), n)
    lives = Uneven().lives(task.judge.sees(task.images).ids)
    most = Passes(MOST, 0, 0, 0)
    told = Trials.of(task, model, PACE, most, trained=True)
    return told.spent(most).forwards, float(lives.double().mean())


def test_images_that_cost_very_differently(tmp_path: Path, ticking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOMENT", "LONG"):
        monkeypatch.setattr(trials, name, 0.1)
    told, true = expected(tmp_path, 120)
    assert 1 / 1.5 < told / true < 1.5
    with monkeypatch.context() as other:
        other.setattr(trials, "MOST", trials.LEAST)  # a few images for all: none of the dear is among them
        told, true = expected(tmp_path, 120)
        assert told < true / 1.5
    monkeypatch.setattr(trials, "DEEPEST", 0.0)  # those that are left for as dear as can be
    told, true = expected(tmp_path, 120)
    assert told > 1.5 * true


@pytest.mark.parametrize(
    ("kept", "share"), [(1.0, 1.0), (0.5, (1 + 2.302585) / 10), (1 / 4, (1 + 0.9) / 10), (2**-0.5, (1 + 4.324555) / 10)]
)
def test_what_was_left_goes_on_to_fall_as_it_did(kept: float, share: float) -> None:
    """Power laws in closed form: of S passes 1 was spent, of 10; the mean of min(t, 10) where P(t > u) = u^-a."""
    trial = Pilot(3, 10, Passes(102, 0, 0, 0), Passes(2, 0, 0, 0), alive=(0,), kept=kept, whole=False)
    told = Trials(None, trial, None).spent(Passes(1000, 0, 0, 0))
    assert told.forwards == pytest.approx((2 + 1000 * share) / 3, rel=1e-3)


@pytest.mark.parametrize(("n", "lasts"), [(2, 1 + 2.302585), (4, 1 + 2 * 2.302585 - 0.9)])
def test_a_batch_is_asked_about_for_as_long_as_its_last_image(n: int, lasts: float) -> None:
    """Closed form: of 4 images 2 were left after 10 calls and 100 passes each, of 1000; half goes with each doubling.

    Of a batch of 2 images one is left, of a batch of 4 two: of two the mean of the longer of the two lives.
    """
    trial = Pilot(4, 10, Passes(206, 0, 0, 0), Passes(6, 0, 0, 0), alive=(0, 1), kept=0.5, whole=False)
    told = Trials(None, trial, None).calls(Passes(1000, 0, 0, 0), n)
    assert told == pytest.approx(10 * lasts, rel=1e-3)
