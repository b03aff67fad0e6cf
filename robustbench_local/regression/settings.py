"""What a check of robustness asks: of which model, on which images, against what, and what would be enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from robustbench_local.config.ranges import Count, LocationText, Range, Seed, Share
from robustbench_local.config.schema import GridConfig
from robustbench_local.config.settings import construct, fit_fields
from robustbench_local.core.threat import ThreatModel

Side = Literal["lower", "measured", "upper"]
Floor = Annotated[float, Range(0, 1)]
Confidence = Annotated[float, Range(0.5, 1, open=True)]  # of one side: at a half the bound is the figure itself


@dataclass(frozen=True)
class Check:
    """One check.

    model       a name that load_model knows: models/current.pt2, my_models.py:Net, zoo:mnist/trades
    data        mnist, cifar10, folder:PATH, arrays:PATH, parquet:PATH or hf:PATH
    threat      linf:2/255, l2:0.5, l1:12, l0:1; None where the suite needs none, as noise
    suite       ci, release, noise, or a grid file whose attacks and settings are taken
    name        what the lock calls it, by default all of the above
    at_least, worst_class_at_least   floors of robust accuracy, of all images and of each class
    side        lower: the interval's lower side must reach the floor, so that it is shown; measured: the figure itself;
                upper: its upper side, so that only what is shown to be below the floor fails
    confidence  of that one side
    margin      fail unless the model is shown to be less robust by no more than this (non-inferiority), however
                significant a smaller drop is. Without it, and without a floor, fail where the model is significantly
                less robust than the last one
    n, ids, sample, split, source, resize, crop   which images (see load_data)
    weights, allow_pickle, trust, normalise, expects, about, variant   of the model (see load_model)
    seed, eot, draws, batch_size, precision   how it is attacked and judged (see judge.Judge)
    """

    model: str
    data: str
    threat: str | None = None
    suite: str = "ci"
    name: str | None = None
    at_least: Floor | None = None
    worst_class_at_least: Floor | None = None
    side: Side = "lower"
    confidence: Confidence = 0.95
    margin: Share | None = None
    n: Count | None = None
    ids: str | list[int] | None = None
    sample: str | None = None
    split: str = "test"
    source: LocationText | None = None
    resize: int | None = None
    crop: int | list[int] | None = None
    weights: LocationText | None = None
    allow_pickle: bool = False
    trust: bool = False
    normalise: str | dict[str, list[float]] | None = None
    expects: str | list[float] | None = None
    about: LocationText | dict[str, Any] | None = None
    variant: str | None = None
    seed: Seed = 0
    eot: Count = 20
    draws: Count = 20
    batch_size: Count | None = None
    precision: Literal["float32", "fast"] = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        fit_fields(self)
        if self.threat is not None:
            ThreatModel.parse(self.threat)

    @property
    def key(self) -> str:
        """What the lock calls it."""
        model = self.model if self.variant is None else f"{self.model} {self.variant}"
        return self.name or " | ".join(each for each in (model, self.data, self.threat, self.suite) if each)

    @property
    def has_floor(self) -> bool:
        return self.at_least is not None or self.worst_class_at_least is not None

    @property
    def compares(self) -> bool:
        """Whether the last model is what it is held against."""
        return self.margin is not None or not self.has_floor

    def measured_alike(self, other: Check) -> bool:
        """Whether both measure the same, whatever they ask of the figures."""
        return self.measuring() == other.measuring()

    def measuring(self) -> dict[str, Any]:
        """All that the figures depend on."""
        return {key: value for key, value in asdict(self).items() if key not in _ASKED}

    def for_grid(self) -> dict[str, Any]:
        """Its settings as a grid has them."""
        grid = {field.name for field in fields(GridConfig)}
        entry = {"name": self.model, "weights": self.weights, "variant": self.variant}
        given = {key: value for key, value in asdict(self).items() if key in grid and key != "weights"}
        threats = [] if self.threat is None else [self.threat]
        return given | {"models": [entry], "threats": threats, "seeds": self.seed}


_ASKED = {"name", "at_least", "worst_class_at_least", "side", "confidence", "margin"}


def check_of(settings: Mapping[str, Any]) -> Check:
    """The check of these settings; ConfigError on any mistake in them."""
    return construct(Check, settings, f'check "{settings.get("name") or settings.get("model", "?")}"')
