"""What may be said after the name of a model to audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustbench_local.config.ranges import LocationText


@dataclass(frozen=True)
class AuditConfig:
    """What may be said after the model's name.

    data        mnist, cifar10, folder:PATH, arrays:PATH, parquet:PATH or hf:PATH
    threat      linf:8/255, l2:0.5, l1:12
    attack      whose evaluation is audited, a name or {name: {setting: value}}; by default a plain PGD
    n, ids, sample, split, source   which images (see load_data)
    resize, crop   of photographs: resize=256 crop=224, or crop=[224, 160]
    weights     a checkpoint for the model; allow_pickle takes .pt and .pth files
    normalise, expects, about   what its input is normalised by (imagenet, cifar10, mnist, {mean, std}), the range of
                its pixels ("0-255"), a model.yaml
    variant     int8, int8_dynamic or pruned:0.5 instead of the float model; int8 is calibrated on training images
    trust       load a model whose file runs code when it is read
    surrogates  models to transfer from; by default two of the zoo for the same data
    train       as many training images as this, to compare robust accuracy on (robust overfitting)
    effort      2 spends twice the steps, queries, draws and attacked images
    out         a JSON file for the card
    """

    data: str
    threat: str
    attack: Any = None
    n: int | None = 200
    ids: str | list[int] | None = None
    sample: str | None = None
    split: str = "test"
    source: LocationText | None = None
    resize: int | None = None
    crop: int | list[int] | None = None
    weights: LocationText | None = None
    allow_pickle: bool = False
    normalise: str | dict[str, list[float]] | None = None
    expects: str | list[float] | None = None
    about: LocationText | dict[str, Any] | None = None
    variant: str | None = None
    trust: bool = False
    surrogates: str | list[str] | None = None
    train: int = 0
    effort: float = 1.0
    seed: int = 0
    device: str = "auto"
    out: LocationText | None = None
