"""Fresh networks of the package's architectures."""

from __future__ import annotations

import torch
from torch import nn

from robustbench_local.config.arguments import checked
from robustbench_local.config.ranges import Seed
from robustbench_local.core.defense import Defense
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.core.model_state import seeded
from robustbench_local.core.training import NoTraining
from robustbench_local.models.architectures import ARCHITECTURES


@checked(ModelError)
def build_model(architecture: str, *, seed: Seed = 0) -> nn.Module:
    """A fresh network, on the CPU and in training mode, whose weights depend on seed and nothing else.

    The global random state is left as it was. ModelError for an unknown architecture.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f'unknown architecture "{architecture}"{did_you_mean(architecture, ARCHITECTURES)}: {known}')
    with seeded(seed):
        return ARCHITECTURES[architecture]()


def rebuild(architecture: str, defense: Defense) -> nn.Module:
    """What that defense deploys of a network of that architecture, with fresh weights: a checkpoint's go there."""
    draws = Draws(0, torch.zeros(1, dtype=torch.int64)).stream("train")
    return defense.build(build_model(architecture), NoTraining(), draws)
