"""`attacks: by_access`: of each model the attacks that the access it grants allows, black-box ones included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from robustbench_local.core.access import Access
from robustbench_local.models.zoo import zoo_names

BY_ACCESS = "by_access"
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "brightness", "contrast", "jpeg_compression")
_ASKING = {  # the access that each needs
    Access.GRADIENTS: ("fgsm", "pgd", "best"),
    Access.SCORES: ("square", {"one_pixel": {"threat": "l0:1"}}),
    Access.LABELS: ("hopskipjump",),
}


def chosen(entries: Iterable[Any], access: Access, data: str) -> list[Any]:
    """The attacks of a grid for a model that grants that access, with `by_access` written out.

    Attacks that learn from images or models of the attacker's own are among them where there are some: for the data
    sets of the zoo.
    """
    return [each for entry in entries for each in (_allowed(access, data) if entry == BY_ACCESS else [entry])]


def _allowed(access: Access, data: str) -> list[Any]:
    asking = [each for needed, attacks in _ASKING.items() if needed <= access for each in attacks]
    surrogate = f"zoo:{data}/none"
    learning = ["substitute", {"transfer": {"surrogates": surrogate}}] if f"{data}/none" in zoo_names() else []
    return [*asking, *learning, *({name: {"severity": 3}} for name in CORRUPTIONS)]
