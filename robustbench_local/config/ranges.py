"""What numbers, words and paths may be: annotations of settings and arguments. Loads no torch: --help is quick."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

LARGEST = 2**63 - 1  # what a tensor of whole numbers holds


@dataclass(frozen=True)
class Range:
    """Of a number: least and most are allowed too, unless `open`."""

    least: float
    most: float = math.inf
    open: bool = False

    def fit(self, value: float) -> float:
        inside = self.least < value < self.most if self.open else self.least <= value <= self.most
        if not inside:
            raise TypeError
        return value

    def spell(self, words: str) -> str:
        if self.least == -math.inf and self.most == math.inf:
            return f"{words}, and finite"
        if self.most == LARGEST:
            return f"{words}, at least {self.least} and below 2**63"
        if self.most == math.inf:
            return f"{words} above {self.least}, and finite" if self.open else f"{words}, at least {self.least}"
        return f"{words} in ({self.least}, {self.most})" if self.open else f"{words} in [{self.least}, {self.most}]"


@dataclass(frozen=True)
class Says:
    """Other words for what a value must be."""

    words: str

    def fit(self, value: Any) -> Any:
        return value

    def spell(self, words: str) -> str:
        return self.words


@dataclass(frozen=True)
class OnDisk:
    """What a file or folder can be called, whether or not it is there."""

    def fit(self, value: str | Path) -> str | Path:
        try:
            if b"\0" in os.fsencode(value):
                raise TypeError
        except UnicodeEncodeError:
            raise TypeError from None
        return value

    def spell(self, words: str) -> str:
        return f"{words} that can be a path, without NUL characters"


Count = Annotated[int, Range(1, LARGEST)]
Seed = Annotated[int, Range(0, LARGEST)]
Finite = Annotated[float, Range(-math.inf, open=True)]
Positive = Annotated[float, Range(0, open=True)]
Share = Annotated[float, Range(0, 1, open=True)]
Location = Annotated[str | Path, OnDisk()]
LocationText = Annotated[str, OnDisk()]  # of a settings file
Precision = Literal["float32", "fast", "float64"]
Counting = Literal["all", "last"]
Aim = Literal["random", "least_likely"]
