"""A verdict on some of the images is that of a judge who was asked about all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.errors import DataError, ModelError
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from robustbench_local.evaluation.part_verdict import joined
from tests.helpers.small_networks import COUNT, LINF, Jittered, images, network

ATTACK = PGD(steps=3)
PARTS = [slice(0, 8), slice(8, 24), slice(24, COUNT)]


class Listed(Tensors):
    """With names of its classes, as data sets have them."""

    classes = ("a", "b", "c", "d")


def by_class() -> Listed:
    """Many images sorted by class, all right but for more than half of class 1."""
    x = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        y = network()(x).argmax(1)
    for other, count in ((2, 50), (3, 90)):
        y[(y == other).nonzero()[:count, 0]] = 1
    order = y.argsort(stable=True)
    return Listed(x[order], y[order], torch.arange(len(x)))


def in_parts(judge: Judge, data: Tensors) -> Verdict:
    return joined([judge.part(network(), data, ATTACK, LINF, rows) for rows in PARTS])


def same(one: Verdict, other: Verdict) -> bool:
    names = ("ids", "labels", "clean", "robust", "robust_8bit", "forwards", "backwards", "x_adv", "scores", "distance")
    alike = all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
    return alike and one.flags == other.flags and one.notes.keys() == other.notes.keys()


def test_a_part_of_one_class_is_judged_by_what_all_images_say() -> None:
    """By itself it is at chance: answers dealt out at random are right as often where there is one class."""
    data, net = by_class(), network()
    first, count = data.labels.bincount().tolist()[:2]
    rows = slice(first, first + count)
    judge = Judge(batch_size=64, allow_chance=False)
    part = judge.part(net, data, ATTACK, LINF, rows)
    assert part.flags == () and 0.3 < part.found.tensors["clean"].float().mean() < 0.6
    alone = Listed(data.x[rows], data.labels[rows], data.ids[rows])
    with pytest.raises(ModelError, match="where chance gives"):
        judge(net, alone, ATTACK, LINF)
    allowed = Judge(batch_size=64, allow_chance=True)(net, alone, ATTACK, LINF)
    assert {"at_chance", "few_classes:1/4"} <= {*allowed.flags}


@pytest.mark.parametrize("targets", [None, "random", "least_likely", "given"])
def test_parts_aim_as_the_whole_does(targets: Any) -> None:
    data = images(network())
    given = (data.labels + 1 + torch.arange(COUNT) % 3) % 4
    judge = Judge(batch_size=8, targets=given if targets == "given" else targets)
    whole = judge(network(), data, ATTACK, LINF)
    assert same(in_parts(judge, data), whole)
    if targets == "given":  # the twin: targets of other images
        moved = (data.labels + 1 + torch.arange(8, 8 + COUNT) % 3) % 4
        assert not same(in_parts(Judge(batch_size=8, targets=moved), data), whole)


def test_a_part_has_its_images_and_hands_on_their_places() -> None:
    data, model = images(network()), Jittered(network())
    judge, kept = Judge(batch_size=4, eot=2, draws=3), torch.zeros(16, 3, 8, 8)
    whole = judge(model, data, ATTACK, LINF)

    def keep(rows: slice, x_adv: Tensor) -> None:
        kept[rows] = x_adv

    part = judge.part(model, data, ATTACK, LINF, PARTS[1], keep=keep)
    assert torch.equal(kept, whole.x_adv[8:24]) and len(part.x_adv) == 0
    part = judge.part(model, data, ATTACK, LINF, PARTS[1])
    assert torch.equal(part.x_adv, kept) and torch.equal(part.ids, data.ids[8:24])


def test_what_a_model_does_in_any_part_it_did() -> None:
    data = images(network())
    a, b, c = (Judge(batch_size=8).part(network(), data, ATTACK, LINF, rows) for rows in PARTS)
    vars(b).update(wrote=True, forms=frozenset({"tuple"}))
    vars(c).update(changed=True, forms=frozenset({"dict"}), flags=("nan_logits",))
    flags = joined([a, b, c]).flags
    assert flags == ("nan_logits", "changed", "writes_input", "output_form:dict", "output_form:tuple")
    assert joined([a]).flags == ()


@pytest.mark.parametrize("rows", [slice(0, 0), slice(20, COUNT + 1), slice(-5, 3), slice(9, 4)])
def test_what_is_no_part_is_refused(rows: slice) -> None:
    data = images(network())
    with pytest.raises(DataError, match=rf"images {rows.start}:{rows.stop} are to be judged: some of 0:{COUNT}"):
        Judge().part(network(), data, ATTACK, LINF, rows)
