"""How much of a model an attacker may see."""

from __future__ import annotations

from enum import IntEnum

from torch import nn


class Access(IntEnum):
    """What an attack needs, or an oracle grants; each level includes those before it."""

    NONE = 0
    LABELS = 1
    SCORES = 2
    GRADIENTS = 3


def granted(model: nn.Module) -> Access:
    """What a model lets an attacker have: the least that any part of it says by an attribute `access`."""
    said = [getattr(part, "access", None) for part in model.modules()]
    return min((access for access in said if isinstance(access, Access)), default=Access.GRADIENTS)


def beyond(needed: Access, model: nn.Module) -> str | None:
    """Why an attack that needs so much cannot be run on a model, in words; None where it can."""
    given = granted(model)
    return None if needed <= given else f"needs {needed.name.lower()}, and the model grants {given.name.lower()}"
