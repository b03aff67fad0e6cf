"""Images as they arrive under a corruption: what an attacker then starts from, and what clean accuracy is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from robustbench_local.config.plugins import find_attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.source import Source


@dataclass(frozen=True)
class CorruptionSpec:
    """A corruption by name, written fog or fog:3, its severity after the colon."""

    name: str
    corruption: Corruption

    @classmethod
    def parse(cls, text: str) -> CorruptionSpec:
        """ConfigError or PluginError where there is no such corruption or severity."""
        name, colon, severity = text.strip().partition(":")
        if colon and not severity.isdecimal():
            raise ConfigError(f'attack_under "{text}": write fog or fog:3, with a severity of 1 .. 5 after the colon')
        return cls(name, find_corruption(name, {"severity": int(severity)} if colon else {}))

    def __str__(self) -> str:
        return f"{self.name}:{self.corruption.severity}"

    def definition(self, height: int, width: int) -> dict[str, Any]:
        """What a row on images of that size records of it: the set of constants where it is not the usual one."""
        made = {"name": self.name, "settings": asdict(self.corruption), "version": self.corruption.version}
        benchmark = self.corruption.at(height, width).benchmark
        return made if benchmark == self.corruption.benchmark else made | {"benchmark": benchmark}


def find_corruption(name: str, settings: Mapping[str, Any]) -> Corruption:
    """As find_attack; ConfigError for any other attack."""
    found = find_attack(name, settings)
    if not isinstance(found, Corruption):
        raise ConfigError(f"attack_under: {name} is an attack on a model, and no corruption of images")
    return found


class CorruptedImages:
    """The images of a source under a corruption, each from its own draws: as a judge reads them.

    They are the same whatever the seed of an attack: all its rows are about the same images.
    """

    def __init__(self, images: Source, under: CorruptionSpec) -> None:
        self._images, self._corruption = images, under.corruption
        self.labels, self.ids = images.labels, images.ids
        if hasattr(images, "classes"):
            self.classes = images.classes

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        draws = Draws(0, self.ids[rows]).stream("attack_under")
        return self._corruption.apply(self._images[rows], draws)
