"""The adversarial twins of a row that kept none, made once more: every random number is addressed by its image."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.config.plugins import find_attack
from robustbench_local.core.source import Source
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from robustbench_local.gallery.twins import Chosen, Twins, twins
from robustbench_local.storage.row import Row

_ASKED = {field.name for field in fields(Judge)} - {"attack_under", "allow_chance", "batch_size"}


def twins_again(
    row: Row, some: Chosen, model: nn.Module, images: Source, known: AnswerCache | None = None
) -> Twins | None:
    """The chosen images of a good row, attacked once more; None where none was chosen, and of an attack that learns
    from images of its own, which would learn anew.

    images: those of the row, as they arrived. The images that come out are those of the row, but for near-ties: float32
    rounds otherwise in another batch.
    """
    attack = find_attack(row.attack, row.definition["attack_settings"])
    if not some.places or attack.own_images:
        return None
    places = torch.tensor(some.places, device=images.ids.device)
    few = Tensors(images[places], images.labels[places], images.ids[places])
    settings: dict[str, Any] = {name: said for name in _ASKED if (said := row.said(name)) is not None}
    verdict = Judge(**settings)(model, few, attack, ThreatModel.parse(row.threat, allow_large=True), known=known)
    x_adv: Tensor = verdict.x_adv
    return twins(some, range(len(some.places)), verdict, few, x_adv)
