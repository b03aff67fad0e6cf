"""Which images no attack can break, whatever it tries: a lower bound of the margin of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.cascade import least_margins, stages
from robustbench_local.bounds.crown import answers
from robustbench_local.bounds.network import Network
from robustbench_local.bounds.reading import read
from robustbench_local.config.arguments import Threat, checked
from robustbench_local.config.ranges import Positive
from robustbench_local.core.bound_methods import SECONDS, Method
from robustbench_local.core.containment import guarded
from robustbench_local.core.defense import call
from robustbench_local.core.errors import BoundsError, DataError
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import home
from robustbench_local.evaluation.preflight import check_images

VALUES = 2**16  # of the widest step, of all images that are bounded together


@dataclass(frozen=True)
class Certificate:
    """Of N images: margins (N,) float64, lower bounds of z_y - max z_j over all images of the ball; what is certain."""

    margins: Tensor

    @property
    def certified(self) -> Tensor:
        """(N,) bool: no image of the ball is answered otherwise than y. A misclassified image is not certified."""
        return self.margins > 0


@guarded()
@checked()
def certify(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, method: Method = "crown", seconds: Positive = SECONDS
) -> Certificate:
    """Lower bounds of the margins of images x (N, C, H, W) in [0, 1] with labels y (N,), whatever an attack does.

    method: "ibp" (Gowal et al. 2018) carries intervals forward; "crown" (Zhang et al. 2018) carries linear bounds back,
    is never looser, and dearer; "alpha_crown" (Xu et al. 2021) goes on by gradient with what neither certifies, so that
    easy images stay cheap; "branch_and_bound" (Wang et al. 2021) then splits by the signs of ReLUs, until all parts are
    certain or so many seconds are spent on an image: what it certifies hangs on the machine. All allow for the rounding
    of the float32 network that verdicts are of.
    BoundsError where no bound is known, with the layer or the norm that it is not known of; DataError where x are no
    images or y no classes of the model.
    """
    check_images(x, y)
    device, kind = home(model, x), ThreatModel.parse(threat)
    x, y = x.detach().to(device, torch.float32), y.to(device)
    with torch.no_grad(), as_deployed(model), full_float32():
        network = read(model, x)
        size = max(1, VALUES // _widest(network, x))
        parts = []
        for images, labels in zip(x.split(size), y.split(size), strict=True):
            logits = call(model, images, None)
            _check_reading(network, images, logits)
            if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
                raise DataError(f"y holds {int(labels.min())} .. {int(labels.max())}: give 0 .. {logits.shape[1] - 1}")
            ball = Ball.around(images, kind)
            parts.append(least_margins(network, ball, labels, logits.shape[1], stages(method, seconds)))
    return Certificate(torch.cat(parts))


def _widest(network: Network, x: Tensor) -> int:
    """The most values that any step makes of an image."""
    return max(box.low[0].numel() for box in network.intervals(Ball(x[:1].double(), Norm.LINF, 0.0)))


def _check_reading(network: Network, x: Tensor, logits: Tensor) -> None:
    """BoundsError where the model's own answers are not those of its steps, but for rounding: hooks, or a state."""
    low, high = answers(network, x)
    given = logits.double()
    if given.shape != low.shape or not bool(((low <= given) & (given <= high)).all()):
        off = f"by {float((low - given).maximum(given - high).max()):.3g}" if given.shape == low.shape else "in shape"
        raise BoundsError(
            f"the model's answers differ {off} from those of its layers: a hook, or a state, changes them"
        )
