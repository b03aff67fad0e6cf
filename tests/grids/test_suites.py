"""Suites: what they stand for in each norm and at each access."""

from __future__ import annotations

import pytest

from robustbench_local.config.plugins import find_attack, named
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.threat import Norm
from robustbench_local.grids.suites import SUITES, chosen


def attacks(suite: str, norm: Norm, access: Access = Access.GRADIENTS) -> list[Attack]:
    """Those that have something to do in this norm."""
    found = [find_attack(*named(entry, "attack")) for entry in chosen([f"suite:{suite}"], access, "mnist", [norm])]
    return [attack for attack in found if norm in attack.norms and attack.access is not Access.NONE]


@pytest.mark.parametrize("suite", ["standard", "full"])
@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2, Norm.L1])
def test_pgd_begins_at_random_as_published_and_at_the_clean_image(suite: str, norm: Norm) -> None:
    assert {find_attack("pgd"), find_attack("pgd", {"random_start": False})} <= {*attacks(suite, norm)}


@pytest.mark.parametrize("suite", ["ci", "release", "standard", "full"])
def test_in_l0_scores_are_searched_beside_gradients(suite: str) -> None:
    names = [type(attack).__name__ for attack in attacks(suite, Norm.L0)]
    assert names == ["Best", "SparseRS"]
    alone = [attack for attack in attacks(suite, Norm.L0, Access.SCORES) if attack.access is Access.SCORES]
    assert [type(attack).__name__ for attack in alone] == ["SparseRS"]


@pytest.mark.parametrize("suite", ["ci", "release", "standard", "full"])
def test_scores_are_searched_once_where_they_are_all_there_is(suite: str) -> None:
    alone = [attack for attack in attacks(suite, Norm.LINF, Access.SCORES) if attack.access is Access.SCORES]
    assert [type(attack).__name__ for attack in alone] == ["Square"]


@pytest.mark.parametrize("suite", ["ci", "release", "standard", "full"])
def test_outside_of_l0_nothing_is_asked_that_only_knows_it(suite: str) -> None:
    entries = chosen([f"suite:{suite}"], Access.GRADIENTS, "mnist", [Norm.LINF])
    assert not any("sparse_rs" in str(entry) for entry in entries)
    assert suite in SUITES
