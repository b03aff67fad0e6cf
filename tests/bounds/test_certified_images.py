"""The rule above all: no attack breaks a certified image, in any norm, of any network that bounds are known of."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.certify import certify
from robustbench_local.core.errors import BoundsError
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model
from robustbench_local.models.zoo import zoo_names

# short, but in earnest; each in the norms that it knows
ATTACKS: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 40, "restarts": 2},
    "apgd": {"steps": 40},
    "best": {"effort": 0.5},
    "square": {"steps": 500},
    "fab": {"steps": 30},
}
NETS = [name for name in zoo_names() if name.startswith("mnist/")]
WITHOUT = {"autoencoder", "noise_fusion", "noise_layers", "smoothing", "thermometer"}  # random, rejecting, or encoded
THREATS = ("linf:0.05", "linf:0.15", "l2:0.3", "l1:1")


def fallen(model: nn.Module, x: Tensor, y: Tensor, threat: str, attacks: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Of the certified images, how many each attack breaks; "certified": how many there are."""
    kept = certify(model, x, y, threat).certified
    found = {"certified": int(kept.sum())}
    if found["certified"]:
        for name, settings in attacks.items():
            found[name] = int((~evaluate(model, x[kept], y[kept], name, threat, **settings).robust).sum())
    return found


@pytest.mark.parametrize("name", NETS)
def test_of_every_network_bounds_are_known_or_refused(name: str) -> None:
    model, (x, y) = load_model(f"zoo:{name}"), load_data("mnist", n=1, source="bundled")
    if name.partition("/")[2] in WITHOUT:
        with pytest.raises(BoundsError, match="no bound is known of"):
            certify(model, x, y, "linf:0.01")
    else:
        assert bool(certify(model, x, y, "linf:0.01").certified.all())


@pytest.mark.slow
@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("name", [name for name in NETS if name.partition("/")[2] not in WITHOUT])
def test_no_certified_image_falls(name: str, threat: str) -> None:
    x, y = load_data("mnist", n=12, source="bundled")
    found = fallen(load_model(f"zoo:{name}"), x, y, threat, ATTACKS)
    assert sum(count for attack, count in found.items() if attack != "certified") == 0, found


def test_a_certificate_that_is_wrong_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = load_model("zoo:mnist/none"), load_data("mnist", n=3, source="bundled")
    assert fallen(model, x, y, "linf:0.02", {"pgd": {}}) == {"certified": 3, "pgd": 0}
    monkeypatch.setattr(Ball, "around", lambda x, threat: Ball(x.double(), threat.norm, threat.eps / 20))
    assert fallen(model, x, y, "linf:0.2", {"pgd": {}})["pgd"] > 0
