"""Suites whose members learn first: what each is given, what it may ask, what it costs, and that it then runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.substitute import Substitute
from robustbench_local.attacks.universal import Universal
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ConfigError
from robustbench_local.core.losses import ce
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.judge import Judge
from tests.helpers.learner import JUDGED, LINF, POOL, Learner, network

SUBSTITUTE = Substitute(seeds=12, rounds=3, epochs=4, batch=8)
UNIVERSAL = Universal(images=20, epochs=3, batch=10)


@dataclass(frozen=True)
class Learning(Suite):
    """Two members that learn, and one that does not."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"substitute": SUBSTITUTE, "universal": UNIVERSAL, "fgsm": FGSM()}


@dataclass(frozen=True)
class Forgetful(Learning):
    """A broken twin: what its members learnt is lost."""

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        super().prepare(oracle, x, y, threat, draws)
        return self


@dataclass(frozen=True)
class Only(Suite):
    """One member, of less access than the suite."""

    access: ClassVar[Access] = Access.GRADIENTS

    member: Attack = field(default_factory=Learner)

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"only": self.member}


@dataclass(frozen=True)
class Bare(Learning):
    """The same without the one that does not learn."""

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"substitute": SUBSTITUTE, "universal": UNIVERSAL}


def broken(suite: Suite, batch: int = 20) -> Tensor:
    verdict = Judge(batch_size=batch)(network(), JUDGED, suite, ThreatModel.parse("linf:0.2"), attacker=POOL)
    return verdict.clean & ~verdict.robust


def test_what_its_members_learnt_fells_images() -> None:
    assert Bare().own_images == 20
    assert broken(Bare()).sum() >= 5
    assert torch.equal(broken(Bare(), batch=3), broken(Bare()))
    assert (broken(Learning()) >= broken(Bare())).all()
    with pytest.raises(NotImplementedError):
        broken(Forgetful())


def test_preparing_costs_the_sum_and_is_paid_once() -> None:
    for size in (3, 20):
        verdict = Judge(batch_size=size)(network(), JUDGED, Learning(), LINF, attacker=POOL)
        assert (verdict.prepared_forwards, verdict.prepared_backwards) == Learning().prepare_cost(3)
    assert Learning().prepare_cost(3) == (12 * 4 + 20 * 3, 20 * 3)
    robust = verdict.clean & verdict.robust
    assert robust.any() and (verdict.forwards[robust] <= Learning().cost(3)[0]).all()


def test_a_member_may_ask_no_more_than_alone() -> None:
    @dataclass(frozen=True)
    class Greedy(Learner):
        def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
            oracle.grad(x, y, ce)
            return self

    @dataclass(frozen=True)
    class Climber(Learner):
        def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
            return FGSM()

    with pytest.raises(AccessError, match="granted LABELS and asked for gradients"):
        Judge()(network(), JUDGED, Only(member=Greedy()), LINF, attacker=POOL)
    with pytest.raises(ConfigError, match="Climber became another kind"):
        Judge()(network(), JUDGED, Only(member=Climber()), LINF, attacker=POOL)
    with pytest.raises(ConfigError, match="Only learns from 5 images"):
        Judge()(network(), JUDGED, Only(), LINF)


def test_what_a_member_reads_names_the_suite() -> None:
    other = replace(SUBSTITUTE, white_box="pgd")
    one, two = Only(member=SUBSTITUTE).sources(), Only(member=other).sources()
    assert one.keys() == {"only: white_box"} and one != two
