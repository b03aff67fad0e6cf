"""What papers printed: figures by reproduction, read from published.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from experiments.reproduce.kinds import KINDS
from robustbench_local.config.settings import construct
from robustbench_local.core.errors import ConfigError, did_you_mean

FOLDER = Path(__file__).parent
CERTAINTY = {
    "V": "published",
    "C": "computed from published data",
    "I": "inferred",
    "M": "from memory",
    "-": "not available",
}


@dataclass(frozen=True)
class Figure:
    """One number of a paper, and which cell of the grid measures it again.

    value: in percent; None where the source's is not available to us. n: images behind it, where the source says so.
    certainty: a key of CERTAINTY. figure: a key of KINDS. cell: what the definition of its row must hold, a setting of
    the attack as attack.NAME; rows: how many rows those are, of which the figure is then taken together.
    """

    what: str
    cell: dict[str, Any]
    value: float | None = None
    n: int | None = None
    certainty: str = "V"
    figure: str = "robust"
    rows: int = 1

    def __post_init__(self) -> None:
        if self.certainty not in CERTAINTY or (self.value is None) != (self.certainty == "-"):
            raise ConfigError(
                f'{self.what}: certainty "{self.certainty}" with value {self.value}: one of'
                f" {', '.join(CERTAINTY)}, and - where there is no value"
            )
        if self.figure not in KINDS:
            raise ConfigError(f'{self.what}: figure "{self.figure}" is unknown: one of {", ".join(KINDS)}')


@dataclass(frozen=True)
class Reproduction:
    """Published figures and what is known of where they come from.

    note: how our setting differs from theirs. needs: keys that the user must give, and how to get what they name.
    certify: settings of Certify, where figures are certified accuracies.
    """

    name: str
    title: str
    source: str
    note: str
    figures: tuple[Figure, ...]
    needs: dict[str, str] = field(default_factory=dict)
    certify: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Path:
        return FOLDER / "grids" / f"{self.name}.yaml"


@cache
def reproductions() -> Mapping[str, Reproduction]:
    """By name, in the order of published.yaml."""
    read = yaml.safe_load((FOLDER / "published.yaml").read_text(encoding="utf-8"))
    return {name: _reproduction(name, values) for name, values in read.items()}


def find(name: str) -> Reproduction:
    known = reproductions()
    if name not in known:
        raise ConfigError(
            f'unknown reproduction "{name}"{did_you_mean(name, known)}: one of {", ".join(known)}, or all'
        )
    return known[name]


def _reproduction(name: str, values: dict[str, Any]) -> Reproduction:
    figures = tuple(construct(Figure, figure, f"{name}, {figure.get('what')}") for figure in values.pop("figures"))
    return construct(Reproduction, {"name": name, "figures": figures, **values}, f"reproduction {name}")
