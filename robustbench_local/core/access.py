"""How much of a model an attacker may see."""

from __future__ import annotations

from enum import IntEnum


class Access(IntEnum):
    """What an attack needs, or an oracle grants; each level includes those before it."""

    NONE = 0
    LABELS = 1
    SCORES = 2
    GRADIENTS = 3
