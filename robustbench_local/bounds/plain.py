"""A model without the wrappers that torch.fx cannot follow, where these are plain arithmetic."""

from __future__ import annotations

from torch import Tensor, nn

from robustbench_local.core.defense import Deployed, Rejection, is_stochastic, rejection
from robustbench_local.core.errors import BoundsError
from robustbench_local.models.classifier import Classifier


def plain(model: nn.Module) -> nn.Module:
    """The same function as layers alone. BoundsError where it draws numbers, rejects, or prepares images."""
    name = type(model).__name__
    if is_stochastic(model):
        raise BoundsError(f"no bound is known of {name}: it answers at random")
    if rejection(model) is not Rejection.NONE:
        raise BoundsError(f"no bound is known of {name}: it may reject an image")
    if type(model) is Deployed:
        if len(model.steps):
            raise BoundsError(f"no bound is known of {type(model.steps[0]).__name__}, a step before the network")
        return plain(model.net)
    if type(model) is Classifier:
        if model.outputs != "logits" or model.layout != "NCHW":
            said = f"outputs {model.outputs}, layout {model.layout}"
            raise BoundsError(f"no bound is known of a model with {said}: known are logits of NCHW")
        return nn.Sequential(_Stretch(model), plain(model.net)).eval()
    return model


class _Stretch(nn.Module):
    """What a Classifier does to pixels before its network."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.low, self.high = classifier.low, classifier.high
        self.normalises = classifier.normalises
        self.register_buffer("mean", classifier.mean)
        self.register_buffer("std", classifier.std)

    def forward(self, x: Tensor) -> Tensor:
        if (self.low, self.high) != (0.0, 1.0):
            x = self.low + x * (self.high - self.low)
        return (x - self.mean) / self.std if self.normalises else x
