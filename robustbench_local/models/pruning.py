"""Networks of which the smallest weights are 0."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from robustbench_local.core.errors import ModelError

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def pruned(model: nn.Module, share: float) -> nn.Module:
    """The model, changed: this share of the weights of its convolutional and linear layers is 0.

    They are the smallest in magnitude of the whole network, once and without training afterwards (Han et al. 2015,
    "Learning both weights and connections for efficient neural networks", without its retraining). Biases stay.
    """
    weights = prunable(model)
    if not weights:
        raise ModelError("it has no convolutional or linear layer")
    with torch.no_grad():
        flat = torch.cat([weight.reshape(-1) for weight in weights])
        count = round(share * len(flat))
        mask = prune.L1Unstructured(amount=count).compute_mask(flat, torch.ones_like(flat))
        for weight, own in zip(weights, mask.split([weight.numel() for weight in weights]), strict=True):
            weight.mul_(own.view_as(weight))
    return model


def prunable(model: nn.Module) -> list[Tensor]:
    """The weights of all convolutional and linear layers; those that layers share, once."""
    found = [part.weight for part in model.modules() if isinstance(part, _LAYERS)]
    return list({id(weight): weight for weight in found}.values())
