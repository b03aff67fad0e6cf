"""Every attack with settings that make it short, for small networks and images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from robustbench_local.config.plugins import ATTACKS, find_attack, listing
from robustbench_local.core.attack import Attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import Tensors
from tests.helpers.small_networks import network

# {attack: settings that make it short}; of those with steps, by what name they count them and how many they are given
SHORT: dict[str, dict[str, Any]] = {
    "adba": {"searches": 3},
    "apgd": {"restarts": 2},
    "autoattack": {},
    "best": {"effort": 0.02},
    "bim": {},
    "boundary": {"candidates": 4},
    "cw": {"searches": 2},
    "ddn": {},
    "deepfool": {},
    "ead": {"searches": 2},
    "fab": {},
    "fgsm": {},
    "fmn": {},
    "hopskipjump": {"candidates": 4, "evaluations": 8},
    "jsma": {},
    "mim": {},
    "nearest": {"passes": 101},
    "nes": {"samples": 4},
    "noise": {},
    "one_pixel": {"population": 6},
    "patch": {"side": 1, "images": 8, "batch": 4},
    "pdpgd": {"polish": 0.5},
    "pgd": {"restarts": 2},
    "sigma_zero": {},
    "sparse_autoattack": {"steps": 4, "queries": 4},
    "sparse_l1": {},
    "sparse_rs": {},
    "spatial": {"rotations": 3, "translations": 2},
    "spgd": {"restarts": 2},
    "spsa": {"samples": 4},
    "square": {},
    "substitute": {"seeds": 8, "epochs": 1, "rounds": 2},
    "universal": {"images": 8, "batch": 4},
}
LENGTHS = {
    **dict.fromkeys(SHORT, "steps"),
    **dict.fromkeys(
        ("autoattack", "best", "fgsm", "jsma", "nearest", "noise", "sparse_autoattack", "spatial", "substitute"), ""
    ),
    **{"one_pixel": "generations", "patch": "epochs", "universal": "epochs"},
}
ELSEWHERE = {"torchattacks", "foolbox", "art", "pyautoattack", "replay", "transfer"}  # the last two in on_grids.py
THREATS = {"linf": "linf:0.03", "l2": "l2:0.2", "l1": "l1:1.5", "l0": "l0:2", "none": "none"}
TINY = {"linf": "linf:3e-5", "l2": "l2:2e-4", "l1": "l1:1.5e-3", "l0": "l0:1", "none": "none"}  # little breaks
WIDE = {"linf": "linf:0.4", "l2": "l2:5", "l1": "l1:100"}  # all breaks, before AutoAttack's thousands of queries
STEPS = 4


def attack(name: str, length: int = STEPS) -> Attack:
    setting = LENGTHS[name]
    return find_attack(name, SHORT[name] | ({setting: length} if setting else {}))


def norms(name: str) -> list[str]:
    """The norms that it is tried in, the first of them by default."""
    known = {str(norm) for norm in attack(name).norms}
    return [norm for norm in THREATS if norm in known and (name != "substitute" or norm == "linf")]


def threat(name: str, norm: str) -> ThreatModel:
    return ThreatModel.parse(WIDE[norm] if name == "autoattack" else THREATS[norm])


def own_attacks() -> Iterator[str]:
    """Attacks that compute themselves: no corruption, and nobody else's."""
    for name in (row.name for row in listing(ATTACKS)):
        if name not in ELSEWHERE and not isinstance(find_attack(name, {}), Corruption):
            yield name


def learnt_from() -> Tensors:
    """What an attack that learns is given: images of its own."""
    x = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return Tensors(x, network()(x).argmax(1), torch.arange(1000, 1024))
