"""Defensive distillation: a student learns a teacher's soft answers at a high temperature, and answers at 1."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.defense import Defense
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Recipe, Trainer


@dataclass(frozen=True)
class Distillation(Defense):
    """Papernot et al. 2016: teacher and student, of one architecture, are trained with logits / temperature; the
    student is deployed without. Its logits are then about `temperature` times as large as usual, the softmax
    saturates in float32, and cross-entropy shows an attacker no gradient; margins of logits do.

    temperature: what logits are divided by in training, above 0.
    """

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "defensive distillation: a student of a teacher's soft labels, at a temperature"
    paper: ClassVar[str] = "Papernot et al. 2016, arXiv:1511.04508; broken by Carlini and Wagner, arXiv:1608.04644"
    family: ClassVar[str] = "training"

    temperature: float = 20.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"temperature is {self.temperature}: it must be above 0; theirs are 20 and 100")

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        teacher = trainer.fit(copy.deepcopy(base), Tempered(self.temperature), draws.stream("teacher"))
        return trainer.fit(base, Student(self.temperature, teacher), draws.stream("student"))


@dataclass(frozen=True)
class Tempered(Recipe):
    """Plain training of a network whose logits are divided by a temperature: the teacher."""

    temperature: float

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(x) / self.temperature, y)


@dataclass(frozen=True)
class Student(Recipe):
    """Cross-entropy against the teacher's probabilities, both at the temperature; labels are not used."""

    temperature: float
    teacher: nn.Module = field(repr=False)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        with torch.no_grad():
            soft = (self.teacher(x) / self.temperature).softmax(1)
        return F.cross_entropy(net(x) / self.temperature, soft)
