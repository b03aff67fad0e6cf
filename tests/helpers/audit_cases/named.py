"""Models for the command line, as module:function."""

from __future__ import annotations

from torch import nn

from tests.helpers.audit_cases.case import zoo
from tests.helpers.audit_cases.gradients import Quantised
from tests.helpers.audit_cases.outputs import Loud, Softmax


def quiet() -> nn.Module:
    return zoo("none")


def quantised() -> nn.Module:
    return Quantised(zoo("none"))


def loud() -> nn.Module:
    return Loud(zoo("none"))


def probable() -> nn.Module:
    return Softmax(zoo("none"))
