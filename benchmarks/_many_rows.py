"""A results folder of many rows, made up: each as a grid stores it, with its arrays, and an audit for each model.

An image has a difficulty, a model a strength and an attack a power; what is stronger than the image's difficulty breaks
it, give or take. So models differ as models do: some beyond doubt, most by no more than luck.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_local.audit import records
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.metrics.rates import rate
from robustbench_local.metrics.summary import per_class
from robustbench_local.storage.row import Row, row_key
from robustbench_local.storage.store import Store

CLASSES = 10
_TRACE = 24  # steps that a row keeps of how its attack went on
_CHECKS = 9  # of an audit
_ARCHITECTURES = ("preact_small", "resnet18", "wide_resnet", "convnext", "vit_small")
_FAMILIES = {"jpeg": "preprocessing", "trades": "adversarial training", "median": "denoising", "none": ""}
_ATTACKS = {"pgd": "gradients", "apgd": "gradients", "square": "scores", "fgsm": "gradients", "hopskipjump": "labels"}


@dataclass(frozen=True)
class Shape:
    """How many rows: models x attacks x radii, each over so many images. draws: of random models, 0 of fixed ones."""

    models: int
    attacks: int
    radii: int = 1
    images: int = 500
    draws: int = 0

    @property
    def rows(self) -> int:
        return self.models * self.attacks * self.radii


def make(folder: Path, shape: Shape, seed: int = 0) -> Store:
    """Store them all. Two seeds are the same cells, on the same images, of other weights."""
    store = Store(folder)
    labels = np.arange(shape.images) % CLASSES
    hard = np.random.default_rng(0).random(shape.images)
    for model in range(shape.models):
        rng = np.random.default_rng([seed, model])
        strength = 0.3 + 0.4 * np.random.default_rng([0, model]).random() + 0.02 * rng.standard_normal()
        keys = []
        for attack in range(shape.attacks):
            for radius in range(1, 1 + shape.radii):
                power = 0.1 * radius / shape.radii + 0.2 * np.random.default_rng([1, attack]).random()
                margin = strength + 0.3 - power - hard
                noise = 0.1 * rng.standard_normal((shape.images, max(1, shape.draws)))
                row = _row(shape, model, attack, radius, labels, margin[:, None] + noise > 0, seed)
                arrays = row.pop("arrays")
                keys.append(store.write(row["key"], row, arrays).key)
        _audit(store, keys)
    return store


def _row(
    shape: Shape, model: int, attack: int, radius: int, labels: Any, bits: np.typing.NDArray[np.bool_], seed: int
) -> dict[str, Any]:
    """The record, with its arrays in it."""
    defense = list(_FAMILIES)[model // len(_ARCHITECTURES) % len(_FAMILIES)]
    kind = list(_ATTACKS)[attack % len(_ATTACKS)]
    n, eps = shape.images, 2 * radius
    definition = {
        "data": "cifar10",
        "split": "test",
        "data_digest": "d" * 64,
        "ids": f"0:{n}",
        "model": _ARCHITECTURES[model % len(_ARCHITECTURES)],
        "weights_digest": f"{(1 + seed) * 10**6 + model:064x}",
        "defense": defense,
        "defense_settings": {"quality": model // len(_ARCHITECTURES), "gradient": "surrogate"},
        "defense_version": 1,
        "attack": kind,
        "attack_settings": {"steps": 10 * (1 + attack // len(_ATTACKS)), "restarts": 1, "loss": "ce", "rho": 0.75},
        "attack_version": 1,
        "access": _ATTACKS[kind],
        "threat": f"linf:{eps}/255",
        "eps": eps / 255,
        "seed": 0,
        "count": "all",
        "precision": "float32",
        "targets": None,
        "budget": None,
        "eot": 20,
        "draws": 20,
    }
    robust = bits.mean(1)
    whole = robust > 0.5
    spent = 1 + (np.arange(n) * 7919) % 50
    found = rate(robust)
    steps = np.arange(1, 1 + _TRACE)
    results: dict[str, Any] = {
        "n": n,
        "classes": CLASSES,
        "stochastic": shape.draws > 0,
        "clean_accuracy": 1.0,
        "clean_interval": [1 - 4 / (n + 4), 1.0],
        "robust_accuracy": found.value,
        "robust_interval": [found.low, found.high],
        "robust_accuracy_8bit": found.value,
        "per_class": per_class(labels, np.ones(n), robust, [str(k) for k in range(CLASSES)]),
        "forwards_mean": float(spent.mean()),
        "backwards_mean": float(spent.mean()),
        "trace": {"images": n, "steps": steps, **{name: -1 / steps for name in ("low", "median", "high")}},
        "distance_median": 0.031,
        "seconds": 5.5,
        "flags": ["near_tie:2"] if (model + attack) % 7 == 0 else [],
    }
    results["trace"] = {name: np.asarray(value).tolist() for name, value in results["trace"].items()}
    arrays = {
        "labels": labels,
        "ids": np.arange(n),
        "clean": np.ones(n, bool),
        "robust": whole,
        "robust_8bit": whole,
        "forwards": spent,
        "backwards": spent,
        "distance": np.where(whole, eps / 255, 0.03).astype(np.float32),
        "clean_predicted": labels.astype(np.int16),
        "predicted": np.where(whole, labels, (labels + 1) % CLASSES).astype(np.int16),
    }
    if shape.draws:
        arrays |= {"bits": bits, "clean_bits": np.ones_like(bits)}
    return {
        "key": row_key(definition),
        "definition": definition,
        "status": "ok",
        "results": results,
        "families": [_FAMILIES[defense]],
        "minimises": False,
        "environment": {"robustbench_local": "0.2.0", "torch": "2.13.0+cpu", "device": "x86_64 CPU, 1 threads"},
        "arrays": arrays,
    }


def _audit(store: Store, keys: list[str]) -> None:
    """Nothing found, but one image of each threat, by one retry."""
    row = store.read(keys[0])
    assert isinstance(row, Row)
    sound = Finding("settings are recorded", Status.SOUND, "all settings, versions and costs", {}, "a paper", "none")
    findings = tuple(records.RowFinding(sound, row.threat) for _ in range(_CHECKS))
    retry = records.Retry(row.threat, "best", 40, (0,), tuple(keys))
    again = records.RowFinding(sound, row.threat)
    records.keep(store, f"{row_key({'rows': keys})}.json", records.Audit(tuple(keys), (*findings, again), (retry,)))


def part(whole: Path, folder: Path, models: int) -> Path:
    """A folder with the rows of the first so many models of another, the same files by another name; made once."""
    if folder.exists():
        return folder
    half = folder.with_name(f"{folder.name}-half")
    for name in ("rows", "audits"):
        (half / name).mkdir(parents=True, exist_ok=True)
    store = Store(whole)

    def number(audit: tuple[str, dict[str, Any]]) -> str:
        row = store.read(audit[1]["rows"][0])
        assert row is not None
        return str(row.definition["weights_digest"])

    for name, audit in sorted(store.audits().items(), key=number)[:models]:
        for file in (f"audits/{name}", *(f"rows/{key}.{kind}" for key in audit["rows"] for kind in ("json", "npz"))):
            (half / file).hardlink_to(whole / file)
    half.rename(folder)
    return folder
