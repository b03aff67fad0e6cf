"""The rule above all: no attack breaks a certified image, in any norm, of any network that bounds are known of."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.certify import certify
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.attack import Attack
from robustbench_local.core.errors import BoundsError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model
from robustbench_local.models.zoo import zoo_names
from tests.helpers import short_attacks

# short, but in earnest; of what is not here 20 steps
EARNEST: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 40, "restarts": 2},
    "apgd": {"steps": 40},
    "best": {"effort": 0.5},
    "square": {"steps": 500},
    "fab": {"steps": 30},
}
NETS = zoo_names()
# random, rejecting, or encoded
WITHOUT = {"autoencoder", "noise_fusion", "noise_layers", "noise_layers_learnt", "smoothing", "thermometer"}
KNOWN = [name for name in NETS if name.partition("/")[2] not in WITHOUT]
# by data set: balls, and how many images; of CIFAR-10 few, for its networks are dear to bound
THREATS = {
    "mnist": (("linf:0.05", "linf:0.15", "l2:0.3", "l1:1"), 12),
    "cifar10": (("linf:1/2040", "linf:1/255", "l2:1/20", "l1:1/5"), 2),
}
# of networks trained with certificates, which are quick to bound: more images, in larger balls
CERTIFIED = {
    "mnist/ibp": (("linf:0.1", "linf:0.3", "l2:0.3", "l1:0.3"), 50),
    "cifar10/ibp": (("linf:2/255", "linf:8/255", "l2:1/10", "l1:1/2"), 20),
}
CASES = [
    (name, threat, count)
    for name in KNOWN
    for threats, count in {THREATS[name.partition("/")[0]], CERTIFIED.get(name, THREATS[name.partition("/")[0]])}
    for threat in threats
]


def attacks_in(threat: str) -> dict[str, Attack]:
    """Every attack of the house that knows such a ball, each long enough to break what it can."""
    norm = ThreatModel.parse(threat).norm
    named = {name: short_attacks.attack(name, 20) for name in short_attacks.own_attacks()}
    named |= {name: find_attack(name, settings) for name, settings in EARNEST.items()}
    return {name: attack for name, attack in named.items() if norm in attack.norms}


def fallen(
    model: nn.Module, x: Tensor, y: Tensor, threat: str, attacks: dict[str, Attack], data: str = "mnist"
) -> dict[str, int]:
    """Of the certified images, how many each attack breaks; "certified": how many there are."""
    kept = certify(model, x, y, threat, method="ibp" if len(x) > 20 else "crown").certified
    found = {"certified": int(kept.sum())}
    learnt_from = load_data(data, split="train", n=100, source="bundled")
    if found["certified"]:
        for name, attack in attacks.items():
            verdict = evaluate(model, x[kept], y[kept], attack, threat, attacker=learnt_from, keep_images=False)
            found[name] = int((~verdict.robust).sum())
    return found


@pytest.mark.parametrize("name", NETS)
def test_of_every_network_bounds_are_known_or_refused(name: str) -> None:
    data = name.partition("/")[0]
    model, (x, y) = load_model(f"zoo:{name}"), load_data(data, n=2, source="bundled")
    y = model(x).argmax(1)
    if name not in KNOWN:
        with pytest.raises(BoundsError, match="no bound is known of"):
            certify(model, x, y, "linf:0.01")
    elif data == "mnist":
        assert bool(certify(model, x, y, "linf:0.01").certified.all())
    else:
        assert bool(certify(model, x, y, "linf:0.01", method="ibp").margins.isfinite().all())


@pytest.mark.slow
def test_the_attacks_are_those_of_the_house() -> None:
    for norm in ("linf", "l2", "l1"):
        known = {name for name in short_attacks.own_attacks() if norm in short_attacks.attack(name).norms}
        assert set(attacks_in(f"{norm}:0.1")) == known and {"best", "autoattack", "substitute"} <= known


@pytest.mark.slow
@pytest.mark.parametrize(("name", "threat", "count"), CASES)
def test_no_certified_image_falls(name: str, threat: str, count: int) -> None:
    data = name.partition("/")[0]
    x, y = load_data(data, n=count, source="bundled")
    found = fallen(load_model(f"zoo:{name}"), x, y, threat, attacks_in(threat), data)
    print(name, threat, found)
    assert sum(broken for attack, broken in found.items() if attack != "certified") == 0, found


def test_a_certificate_that_is_wrong_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = load_model("zoo:mnist/none"), load_data("mnist", n=3, source="bundled")
    pgd = {"pgd": find_attack("pgd")}
    assert fallen(model, x, y, "linf:0.02", pgd) == {"certified": 3, "pgd": 0}
    monkeypatch.setattr(Ball, "around", lambda x, threat: Ball(x.double(), threat.norm, threat.eps / 20))
    assert fallen(model, x, y, "linf:0.2", pgd)["pgd"] > 0
