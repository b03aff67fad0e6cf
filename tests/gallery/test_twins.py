"""Which images a page shows, and that they are kept as they were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

import robustbench_local as rbl
from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from robustbench_local.gallery.twins import FirstImages, chosen, twins
from robustbench_local.grids.arrays import arrays_of


def arrays(fell: list[int], forwards: list[int], distance: list[float], **about: Any) -> dict[str, Any]:
    n = len(forwards)
    robust = np.ones(n, bool)
    robust[fell] = False
    made = {"clean": np.ones(n, bool), "robust": robust, "forwards": np.array(forwards), "distance": np.array(distance)}
    return made | about


def test_from_the_first_to_fall_over_the_median_to_the_last() -> None:
    order = [4, 0, 2, 1, 3]
    forwards = [20, 40, 30, 50, 10, 5]
    found = chosen(arrays([0, 1, 2, 3, 4], forwards, [0.1] * 6), False, 3)
    assert (found.places, found.ranks, found.fell, found.looked) == ((order[0], order[2], order[4]), (1, 3, 5), 5, 6)
    assert chosen(arrays([0, 1, 2, 3, 4], forwards, [0.1] * 6), False, 9).places == tuple(order)
    assert chosen(arrays([0, 1, 2, 3, 4], forwards, [0.1] * 6), False, 1).places == (4,)


def test_ties_go_by_distance_and_attacks_that_minimise_by_distance_alone() -> None:
    some = arrays([0, 1, 2], [7, 7, 3], [0.3, 0.1, 0.2])
    assert chosen(some, False, 3).places == (2, 1, 0)
    assert chosen(some, True, 3).places == (1, 2, 0)


def test_what_was_wrong_already_did_not_fall_and_where_none_did_robust_ones_are_shown() -> None:
    wrong = arrays([0, 1], [1, 1, 1], [0.1] * 3, clean=np.array([False, False, True]))
    found = chosen(wrong, False, 9)
    assert (found.places, found.ranks, found.fell) == ((2,), (0,), 0)
    assert chosen(arrays([2], [1, 1, 1], [0.1] * 3), False, 9, looked=2).places == (0, 1)  # it is beyond these


def test_the_first_images_are_kept_as_far_as_they_fit() -> None:
    images = torch.arange(10.0).view(10, 1, 1, 1)
    first = FirstImages(most_bytes=4 * 5)
    for start in (0, 3, 6, 9):
        first(slice(start, start + 3), images[start : start + 3])
    assert first.count == 5 and first[torch.tensor([4, 0])].flatten().tolist() == [4.0, 0.0]
    assert FirstImages(most_bytes=3).count == 0


def test_twins_are_what_the_judge_saw() -> None:
    x, y = rbl.load_data("mnist", n=12, source="bundled")
    model = rbl.load_model("zoo:mnist/none")
    images, first = Tensors(x, y, torch.arange(12)), FirstImages()
    verdict = Judge()(model, images, PGD(steps=5), ThreatModel.parse("linf:0.2"), keep=first)
    some = chosen(arrays_of(verdict, None), False, 3, first.count)
    found = twins(some, some.places, verdict, images, first)
    assert found is not None and len(some.places) == 3
    for attacked, answers, sure in (
        (found.x, found.before, found.before_confidence),
        (found.x_adv, found.after, found.after_confidence),
    ):
        confidence, answer = model(torch.from_numpy(attacked)).softmax(1).max(1)
        assert answer.tolist() == answers.tolist() and np.allclose(confidence.detach(), sure, atol=1e-5)
    assert found.labels.tolist() == found.before.tolist() and not (found.after == found.labels).any()
    assert twins(replace(some, places=()), (), verdict, images, first) is None
