"""Verdicts on a pretended device beside the CPU's, and how often a step of an attack makes the host wait there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from robustbench_local.core.attack import Attack
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from tests.helpers.pretended_device import DEVICE, pretended
from tests.helpers.short_attacks import STEPS, TINY, attack, learnt_from
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


def per_step(name: str, norm: str) -> float:
    """Waits of the host for each step more, in a ball in which hardly an image breaks."""
    counts = [waits(name, ThreatModel.parse(TINY[norm]), length).values() for length in (STEPS, 3 * STEPS)]
    return (sum(counts[1]) - sum(counts[0])) / (2 * STEPS)


def waits(name: str, threat: ThreatModel, length: int) -> Mapping[str, int]:
    """{kind: how often} in a whole verdict."""
    with pretended() as met:
        model, data = on_device()
        own = moved(learnt_from())
        met.clear()
        Judge()(model, data, attack(name, length), threat, attacker=own)
        return dict(met)
