"""Verdicts on a pretended device beside the CPU's, and how often a step of an attack makes the host wait there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from robustbench_local.core.attack import Attack
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from tests.helpers.pretended_device import DEVICE, pretended
from tests.helpers.short_attacks import STEPS, learnt_from
from tests.helpers.small_networks import MODELS, images, network


def on_device(kind: str = "deterministic") -> tuple[nn.Module, Tensors]:
    """A small network and images, both on the pretended device."""
    data = images(network())
    return MODELS[kind](network()).to(DEVICE), moved(data)


def moved(data: Tensors) -> Tensors:
    return Tensors(data.x.to(DEVICE), data.labels.to(DEVICE), data.ids.to(DEVICE))


def verdicts(judge: Judge, attack: Attack, threat: ThreatModel, kind: str) -> tuple[Verdict, Verdict]:
    """(the CPU's, the device's)."""
    own = learnt_from()
    host = judge(MODELS[kind](network()), images(network()), attack, threat, attacker=own)
    with pretended():
        model, data = on_device(kind)
        return host, judge(model, data, attack, threat, attacker=moved(own))


def per_step(make: Callable[[int], Attack], threat: ThreatModel) -> float:
    """Waits of the host for each step more; make: the attack with so many steps."""
    lengths = (3 * STEPS, STEPS, 3 * STEPS)  # the first sends what is kept on the device
    _, short, long = (sum(waits(make(length), threat).values()) for length in lengths)
    return (long - short) / (2 * STEPS)


def waits(attack: Attack, threat: ThreatModel) -> Mapping[str, int]:
    """{kind: how often} in a whole verdict."""
    with pretended() as met:
        model, data = on_device()
        own = moved(learnt_from())
        met.clear()
        Judge()(model, data, attack, threat, attacker=own)
        return dict(met)
