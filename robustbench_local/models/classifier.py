"""A network with what it says of itself, applied: our pixels become those that it was trained with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access, granted
from robustbench_local.core.defense import Defended, call, is_stochastic, rejection, undefended
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError
from robustbench_local.core.model_state import evaluating
from robustbench_local.core.outputs import HALVES, log_probabilities
from robustbench_local.models.description import Description


class Classifier(Defended):
    """Pixels in [0, 1], (N, C, H, W), in; logits (N, K) out, of a network that takes something else, or says more.

    Pixels are normalised in float32, and then of the type of the network's weights, where these are halves or doubles.

    The network's own draws, rejection and undefended part stay what they are. access: what an attacker may have of it,
    at most what its parts grant.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, description: Description, identity: str | None = None) -> None:
        super().__init__()
        self.net = net
        most = Access.LABELS if description.outputs == "labels" else Access.GRADIENTS
        self.access = min(most, description.most or most, granted(net))
        self.description = description.granting(self.access)
        self.stochastic, self.rejects = is_stochastic(net), rejection(net)
        self.low, self.high = description.range
        self.layout, self.outputs = description.layout or "NCHW", description.outputs or "logits"
        self.normalises = description.statistics is not None
        for name, values in zip(("mean", "std"), description.statistics or ((0.0,), (1.0,)), strict=True):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
            setattr(self, f"{name}_values", values)  # what a digest of the model sees
        self.version, self.clean_accuracy = description.version, description.clean_accuracy
        if identity is not None:
            self.rbl_identity = f"{identity}; {description.behaviour()}"

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        shape = self.description.shape
        if shape is not None and any(own not in (0, given) for own, given in zip(shape, x.shape[1:], strict=True)):
            raise ModelError(
                f"the model takes images of {'x'.join(str(side or 'any') for side in shape)} (channels, height, width),"
                f" and these are {'x'.join(map(str, x.shape[1:]))}: resize and crop the data, or name another model"
            )
        if (self.low, self.high) != (0.0, 1.0):
            x = self.low + x * (self.high - self.low)
        if self.normalises:
            x = (x - self.mean) / self.std
        if self.layout == "NHWC":
            x = x.permute(0, 2, 3, 1)
        kind = weights_dtype(self.net)
        if kind in HALVES or (kind is torch.float64 and x.dtype is torch.float32):
            x = x.to(kind)
        out = call(self.net, x, draws)
        if not isinstance(out, Tensor) or self.outputs == "logits":
            return out
        return log_probabilities(out) if self.outputs == "probabilities" else self._one_hot(out)

    def _one_hot(self, labels: Tensor) -> Tensor:
        """(N, K): 1 for the class that a network names, 0 for all others."""
        count = self.description.class_count
        if count is None:
            raise ModelError("the model returns labels, and says not of how many classes: say classes as well")
        if labels.ndim != 1 or labels.is_floating_point() or not bool(((labels >= 0) & (labels < count)).all()):
            raise ModelError(
                f"the model returned {labels.dtype} {tuple(labels.shape)}: give labels (N,) in 0 .. {count - 1}"
            )
        return nn.functional.one_hot(labels.long(), count).float()

    def undefended(self) -> nn.Module | None:
        inner = undefended(self.net)
        return None if inner is None else evaluating(Classifier(inner, self.description))


def weights_dtype(net: nn.Module) -> torch.dtype:
    """Of the first weights that are floating point; float32 of a network without any."""
    return next((each.dtype for each in net.parameters() if each.is_floating_point()), torch.float32)


def describe(model: nn.Module) -> Description:
    """What a model says of itself; of a plain network that its gradients are to be had."""
    if isinstance(model, Classifier):
        return model.description
    return Description().granting(granted(model))
