"""Rows as a grid writes them, made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robustbench_local.core.threat import ThreatModel
from robustbench_local.metrics.rates import wilson
from robustbench_local.storage.row import CERTIFICATE, LEFT_OUT, Row, row_key
from robustbench_local.storage.store import Store

SOMETIMES = (
    "adaptive",
    "attack_under",
    "attack_sources",
    "attacker_digest",
    "corruption",
    "behaviour_digest",
    "model_about",
    "transform",
    "variant",
    "a_new_key",
)
FOG = {"name": "fog", "settings": {"severity": 3}, "version": 1}
# for every key of a definition another value than a_row gives it; access and eps follow from these
OTHER: dict[str, Any] = {
    "data": "mnist",
    "split": "train",
    "data_digest": "e" * 64,
    "ids": "4:8",
    "model": "resnet",
    "weights_digest": "v" * 64,
    "defense": "jpeg",
    "defense_settings": {"quality": 50},
    "defense_version": 2,
    "attack": "apgd",
    "attack_settings": {"steps": 40},
    "attack_version": 2,
    "threat": "linf:4/255",
    "seed": 1,
    "count": "last",
    "precision": "fast",
    "targets": "random",
    "budget": 100,
    "eot": 1,
    "draws": 5,
    "adaptive": False,
    "attack_under": FOG,
    "attack_sources": {"zoo:mnist/none": "f" * 64},
    "attacker_digest": "a" * 64,
    "behaviour_digest": "b" * 64,
    "model_about": {"expects": "0-255"},
    "transform": {"resize": 256, "crop": [224, 224]},
    "variant": "int8",
    "a_new_key": "of a later version",
}


def a_row(robust: list[Any] | None, **about: Any) -> tuple[Row, np.ndarray]:
    """A row as a grid makes it, and its bits: (N,), or (N, R) of a random model; robust=None is a cell that failed."""
    definition = {
        "data": "cifar10",
        "split": "test",
        "data_digest": "d" * 64,
        "ids": "0:4",
        "model": "preact_small",
        "weights_digest": "w" * 64,
        "defense": "none",
        "defense_settings": {},
        "defense_version": 1,
        "attack": "pgd",
        "attack_settings": {},
        "attack_version": 1,
        "access": "gradients",
        "threat": "linf:8/255",
        "seed": 0,
        "count": "all",
        "precision": "float32",
        "targets": None,
        "budget": None,
        "eot": 20,
        "draws": 20,
    }
    flags, families = about.pop("flags", []), about.pop("families", None)
    assert about.keys() <= {*definition, *SOMETIMES}
    definition |= about
    threat = str(definition["threat"])
    definition["eps"] = 0.0 if threat == "none" else ThreatModel.parse(threat).eps
    row = Row(key=row_key(definition), definition=definition, **({"families": families} if families else {}))
    if robust is None:
        return Row(row, status="error", error={"type": "ModelError", "message": "logits\nare NaN"}), np.zeros(0)
    bits = np.array(robust, dtype=bool)
    mean = float(bits.mean())
    interval = list(wilson(mean * len(bits), len(bits)))
    results = {
        "n": len(bits),
        "stochastic": bits.ndim == 2,
        "clean_accuracy": 1.0,
        "clean_interval": list(wilson(4, 4)),
        "robust_accuracy": mean,
        "robust_interval": interval,
        "robust_accuracy_8bit": mean,
        "forwards_mean": 11.0,
        "backwards_mean": 10.0,
        "distance_median": None,
        "seconds": 1.5,
        "flags": flags,
        "per_class": [],
    }
    if "corruption" in about:
        results |= {"corruption_accuracy": mean, "corruption_interval": interval}
    return Row(row, status="ok", results=results), bits


def stored(folder: Path, *made: tuple[Row, np.ndarray], audited: bool = True, **also: Any) -> Store:
    """A store of such rows with their arrays, and an audit that found nothing; also: more arrays, or a function of the
    bits that gives them.
    """
    store = Store(folder)
    for row, bits in made:
        shares = bits if bits.ndim == 1 else bits.mean(1) > 0.5
        arrays = {"robust": shares, "clean": np.ones_like(shares), "ids": np.arange(len(shares))}
        arrays |= {"labels": np.arange(len(shares)) % 2, "distance": np.full(len(shares), 0.03)}
        arrays |= {"forwards": np.arange(len(shares)) + 1, "backwards": np.arange(len(shares))}
        arrays |= {"bits": bits} if bits.ndim == 2 else {}
        arrays |= {name: make(bits) if callable(make) else make for name, make in also.items()}
        store.write(row["key"], row, arrays if row["status"] == "ok" else None)
    if audited:
        keys = sorted(row["key"] for row, _ in made)
        store.keep_audit(f"{row_key({'rows': keys})}.json", {"rows": keys, "findings": [], "retries": []})
    return store


def certify(store: Store, certified: list[int] | None, why: str = "it draws", **about: Any) -> Row:
    """A certificate in that store, of the model and images of `a_row`; certified=None: no bound is known, and why.

    about: keys of the definition, and `confidence` of one by sampling.
    """
    confidence = about.pop("confidence", None)
    shared, _ = a_row([1])
    kept = {key: value for key, value in shared.definition.items() if key in CERTIFICATE and key != "eps"}
    definition = kept | {"certificate": "crown", "certificate_version": 1} | about
    definition["eps"] = ThreatModel.parse(str(definition["threat"])).eps
    row = Row(definition=definition)
    key = row_key(definition)
    if certified is None:
        return store.write(key, Row(row, status="error", error={"type": LEFT_OUT, "message": f"no bound: {why}"}))
    bits = np.array(certified, dtype=bool)
    results = {
        "n": len(bits),
        "certified_accuracy": float(bits.mean()),
        "certified_interval": list(wilson(int(bits.sum()), len(bits))),
        "confidence": confidence,
        "draws": None if confidence is None else 10_000,
        "seconds": 1.5,
    }
    arrays = {"labels": np.zeros(len(bits), np.int64), "ids": np.arange(len(bits)), "certified": bits}
    arrays["radius" if confidence else "margin"] = np.where(bits, 0.5, -0.5).astype(np.float32)
    return store.write(key, Row(row, status="ok", results=results), arrays)
