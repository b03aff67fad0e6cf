"""Several attacks on the same images: the worst case per image, and how they are named and shown."""

from __future__ import annotations

import pytest
import torch

from robustbench_local.core.errors import ConfigError
from robustbench_local.evaluation.verdicts import Verdicts
from robustbench_local.metrics.rates import wilson
from tests.helpers.verdicts import a_verdict


def bits(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


def three(**changes: object) -> Verdicts:
    """Two attacks within one threat, each of which breaks what the other does not, and one within another."""
    return Verdicts(
        (
            a_verdict(attack="fgsm", threat="linf:0.1", clean=bits(1, 1, 1, 0), robust=bits(1, 0, 1, 0), **changes),
            a_verdict(attack="pgd", threat="linf:0.1", clean=bits(1, 1, 1, 0), robust=bits(1, 1, 0, 0), **changes),
            a_verdict(attack="pgd", threat="l2:1", clean=bits(1, 1, 1, 0), robust=bits(0, 1, 1, 0), **changes),
        )
    )


def test_the_worst_case_is_per_image() -> None:
    found = three()
    assert found.robust("linf:0.1").tolist() == [1, 0, 0, 0]  # the least of two means would be half
    worst = found.worst("linf:0.1")
    assert (worst.value, worst.low, worst.high) == (0.25, *wilson(1, 4))
    assert found.worst("l2:1").value == 0.5
    assert found.robust_accuracy == 0 and found.clean_accuracy == 0.75


def test_of_a_random_model_the_least_share_of_draws_counts() -> None:
    one = a_verdict(attack="a", threat="linf:0.1", bits=bits(1, 0, 1, 1, 0, 0, 1, 1).reshape(4, 2))
    other = a_verdict(attack="b", threat="linf:0.1", bits=bits(1, 1, 0, 1, 0, 0, 1, 0).reshape(4, 2))
    assert Verdicts((one, other)).robust("linf:0.1").tolist() == [0.5, 0.5, 0, 0.5]


def test_a_corruption_is_in_no_worst_case() -> None:
    fog = a_verdict(attack="fog", threat="none", robust=bits(0, 0, 0, 0), corrupted=bits(1, 0, 0, 0))
    found = Verdicts((*three(), fog))
    assert found.threats == ("linf:0.1", "l2:1") and found.worst("linf:0.1").value == 0.25
    assert found.to_frame()["corrupted"].tolist()[3] == 0.25
    alone = Verdicts((fog,))
    assert repr(alone) == "Verdicts(1 verdict on 4 images: clean 75.0 %)" and "all of them" not in alone._repr_html_()
    with pytest.raises(ConfigError, match="corruption_accuracy"):
        _ = alone.robust_accuracy


def test_they_are_found_by_place_and_by_name() -> None:
    found = three()
    assert found["pgd", "l2:1"] is found[2] and found[-1] is found[2] and list(found[:2]) == list(found)[:2]
    with pytest.raises(KeyError, match=r"fgsm, linf:0\.1"):
        found["fgms", "linf:0.1"]
    with pytest.raises(KeyError, match=r"l2:1"):
        found.robust("l2:2")


def test_a_terminal_shows_one_line_and_a_notebook_the_worst_case() -> None:
    found = three()
    assert repr(found).count("\n") == 0 and "robust at most 25.0 % (4.6-69.9) within linf:0.1" in repr(found)
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + 3 + 2 and "all of them" in html and "<img" not in html


def test_a_notebook_shows_each_image_that_fell_once() -> None:
    x = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    html = three(x=x)._repr_html_()
    assert (
        html.count("<figure") == 3
        and "image 1: class 1 becomes 0 (fgsm)" in html
        and "image 2: class 1 becomes 0 (pgd)" in html
    )


def test_a_frame_has_a_row_per_verdict() -> None:
    frame = three().to_frame()
    assert list(zip(frame["attack"], frame["threat"], strict=True))[2] == ("pgd", "l2:1")
    assert frame["robust"].tolist() == [0.5, 0.5, 0.5] and frame["images"].tolist() == [4, 4, 4]
