"""Memory is bounded by the batch: what a verdict, an oracle and an attack hold at once on large images."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks._targets import MOST, contenders
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.access import Access
from robustbench_local.core.device import trim_memory
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.losses import margin
from robustbench_local.core.oracle import Oracle
from robustbench_local.data.load import open_data
from robustbench_local.evaluation import batch_size
from robustbench_local.evaluation.batch_size import COPIES, MEMORY, activations, first_guess
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.evaluation.preflight import Tally
from robustbench_local.grids.kept_images import check_room
from tests.helpers.small_networks import LINF, images, network


class Paid(nn.Module):
    """Gives scores only, and may be asked so many times of an image."""

    access, queries_per_image = Access.SCORES, 40

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)


class Squares(nn.Module):
    """exp(x^2), averaged, times a matrix: square keeps x, exp its result, and the matrix is the model's own."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.linspace(-1, 1, 3 * classes).sin().view(3, classes))
        self.seen: list[tuple[int, bool]] = []  # images at once, and whether for a gradient

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((len(x), x.requires_grad))
        matrix = self.get_buffer("matrix")
        return x.square().exp().mean((2, 3)) @ matrix


def one(height: int, width: int) -> tuple[Tensor, Draws]:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)), Draws(0, torch.arange(1))


def test_what_a_pass_keeps_is_counted_once_and_without_the_weights() -> None:
    x, draws = one(70, 90)
    assert activations(Squares(), x, draws) == 2 * x.nbytes
    assert activations(nn.Sequential(Squares(), nn.Linear(3, 50).requires_grad_(False)), x, draws) == 2 * x.nbytes
    assert activations(nn.Flatten(), x, draws) == 0


def test_small_images_come_in_the_usual_batches_and_large_ones_as_memory_holds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Tally()
    assert first_guess(Squares(), *one(64, 64), asked) == 250 and asked.forwards == 0
    x, draws = one(224, 224)
    assert first_guess(Squares(), x, draws, asked) == MEMORY // ((COPIES + 2) * x.nbytes) and asked.forwards == 1
    assert first_guess(Squares(), *one(65, 65), asked) == 250  # never more than usual
    monkeypatch.setattr(batch_size, "MEMORY", 1000)
    assert first_guess(Squares(), x, draws, asked) == 1


@pytest.mark.parametrize("name, threat", [("one_pixel", "l0:1"), ("nes", "linf:1/255"), ("universal", "linf:1/255")])
def test_no_query_holds_more_images_than_it_may(name: str, threat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "MEMORY", 6 * (COPIES + 2) * 3 * 66 * 70 * 4)  # 6 images
    settings: dict[str, Any] = {
        "one_pixel": {"generations": 1},
        "nes": {"steps": 1},
        "universal": {"images": 20, "epochs": 1},
    }[name]
    x = torch.rand(24, 3, 66, 70, generator=torch.Generator().manual_seed(2))
    model = Squares()
    y = model(x).argmax(1)
    del model.seen[:]
    attack = find_attack(name, settings)
    evaluate(model, x, y, attack, threat, attacker=(0.9 * x[:20].flip(0), y[:20]))
    assert max(count for count, graded in model.seen if graded or name == "universal") <= 6
    assert 6 <= max(count for count, _ in model.seen) <= 24


def test_gradients_asked_in_turn_are_those_asked_at_once() -> None:
    model = network().double()
    data = images(model, torch.float64)
    draws = Draws(0, data.ids, dtype=torch.float64)
    found = []
    scale = torch.arange(1.0, 1 + len(data.x), dtype=torch.float64)  # a loss may hold tensors of all samples
    for width in (256, 7):
        oracle = Oracle(model, data.x, data.labels, LINF, Access.GRADIENTS, draws, width=width)
        graded = oracle.grad(data.x, data.labels, lambda logits, y: scale * margin(logits, y))
        found.append((*graded, *oracle.jacobian(data.x), oracle.forwards, oracle.backwards))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(*found, strict=True))


def test_a_verdict_without_its_images_is_otherwise_the_same() -> None:
    model = network()
    data = images(model)
    whole, without = (evaluate(model, data.x, data.labels, "pgd", LINF, keep_images=keep) for keep in (True, False))
    assert len(whole.x_adv) == len(data.x) and tuple(without.x_adv.shape) == (0, 3, 8, 8)
    for field in fields(whole):
        a, b = getattr(whole, field.name), getattr(without, field.name)
        if field.name not in ("x", "x_adv", "seconds", "notes"):
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, field.name


def test_a_model_without_gradients_is_not_asked_for_a_batch_size() -> None:
    model, (x, draws) = Paid(), one(224, 224)
    assert first_guess(model, x, draws, Tally()) == MEMORY // (COPIES * x.nbytes) and not model.asked


def test_a_model_with_a_budget_of_its_own_hands_its_images_on_as_well() -> None:
    model = Paid()
    data = images(network())
    y = model(data.x).argmax(1)
    kept = torch.zeros_like(data.x)
    judge, attack = Judge(batch_size=7), find_attack("square", {"steps": 5})

    def keep(rows: slice, x_adv: Tensor) -> None:
        kept[rows] = x_adv

    without = judge(model, Tensors(data.x, y, data.ids), attack, LINF, keep=keep)
    whole = judge(model, Tensors(data.x, y, data.ids), attack, LINF)
    assert len(without.x_adv) == 0 and torch.equal(kept, whole.x_adv)


def test_of_many_classes_those_are_looked_at_that_are_near() -> None:
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([3, 3, 0, 99, 7])
    for row, found, own in zip(logits, contenders(logits, y), y, strict=True):
        others = row.index_fill(0, own, -torch.inf).topk(MOST - 1).indices
        assert set(found.tolist()) == {int(own), *others.tolist()} and len(found) == MOST
    assert torch.equal(contenders(logits[:, :MOST], y % MOST)[0], torch.arange(MOST))


@pytest.mark.parametrize("name, threat", [("deepfool", "l2:1"), ("fab", "linf:0.1"), ("jsma", "l0:30")])
def test_attacks_on_40_classes_find_what_they_find_with_all_gradients(
    name: str, threat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And take at most 16 backward passes a step. The runner-up is the nearest here, and all classes alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(27, 40)).double()
    x = torch.rand(6, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    attack = find_attack(name, {"gamma": 1.0} if name == "jsma" else {})
    few = evaluate(model, x, y, attack, threat, precision="float64")
    monkeypatch.setattr(f"robustbench_local.attacks.{name}.MOST", 40)
    monkeypatch.setattr("robustbench_local.attacks._targets.MOST", 40)
    all_of_them = evaluate(model, x, y, attack, threat, precision="float64")
    assert few.success is not None and all_of_them.success is not None
    assert torch.equal(few.success, all_of_them.success) and bool(few.success.eq(1).all())
    assert torch.allclose(few.distance, all_of_them.distance, rtol=0.02)
    if name == "jsma":
        assert torch.equal(few.x_adv, all_of_them.x_adv)
    assert int(few.backwards.sum()) * 2 < int(all_of_them.backwards.sum())


def test_images_that_a_row_cannot_hold_are_refused_before_anything_runs() -> None:
    data = open_data("mnist", source="bundled", n=16)
    check_room(data, "float64")
    object.__setattr__(data, "pixels", torch.zeros(1, dtype=torch.uint8).expand(10_000, 3, 224, 224))
    with pytest.raises(ConfigError, match=r"10000 images of \(3, 224, 224\) are 5.6 GiB, and a row holds 4"):
        check_room(data, "float32")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own call")
def test_freed_memory_goes_back_between_batches_of_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def held() -> int:
        """Bytes in memory, pages of files aside."""
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])

    before = held()
    pieces = [torch.zeros(25_000) for _ in range(2000)]  # 200 MB in pieces that the C library keeps when they are freed
    last = torch.zeros(1000)
    del pieces
    trim_memory(last.device)
    assert held() - before < 40 * 2**20
    calls: list[int] = []
    monkeypatch.setattr("robustbench_local.evaluation.judge.trim_memory", lambda device: calls.append(1))
    for side in (64, 66):
        x = torch.rand(6, 3, side, side)
        evaluate(Squares(), x, Squares()(x).argmax(1), "fgsm", "linf:1/255", batch_size=2)
    assert len(calls) == 3  # of the larger ones' batches
