"""Models whose logits mislead: scaled, squashed, rounded, NaN or of pixels in another range."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.helpers.audit_cases.case import Case, Liar, Wrapped, around, zoo


class Loud(Wrapped):
    """Logits a thousand times as large: cross-entropy is 0 in float32, and so is its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return 1000 * super().forward(x)


class Softmax(Wrapped):
    """Probabilities where logits are expected."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class DiesOfNoise(Wrapped):
    """No 8-bit image, no answer, but an error."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(((x * 255 - (x * 255).round()).abs() > 0.01).any()):
            raise ValueError("this is no photograph")
        return super().forward(x)


class NaNWhenPerturbed(Wrapped):
    """No 8-bit image, no answer."""

    def forward(self, x: Tensor) -> Tensor:
        off = (x * 255 - (x * 255).round()).abs().flatten(1).amax(1) > 0.01
        return torch.where(off[:, None], torch.nan, super().forward(x))


class OneHot(Wrapped):
    """The label and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(super().forward(x).argmax(1), 10).to(x)


class BlindLabels(Wrapped):
    """Labels alone; gradients are those of a linear function that knows nothing of them."""

    def forward(self, x: Tensor) -> Tensor:
        labels = 8 * F.one_hot(super().forward(x).argmax(1), 10).to(x) - 4
        blind = x.flatten(1) @ torch.sin(torch.arange(7840.0)).view(784, 10).to(x)
        return labels + (blind - blind.detach())


class RoundedLogits(Wrapped):
    """Logits to the nearest whole number, ten apart."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) / 4).round() * 4


class Bytes(Wrapped):
    """Expects pixels from 0 to 255, and is given such in [0, 1]."""

    def front(self, x: Tensor) -> Tensor:
        return (x / 255).clamp(0, 1)


class Detector(Wrapped):
    """An eleventh logit for rejection: the roughness of the image, which no attack on the other ten looks at."""

    def forward(self, x: Tensor) -> Tensor:
        rough = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
        return torch.cat([super().forward(x), 400 * (rough - 0.15)[:, None]], 1)


LIARS: dict[str, Liar] = {
    "logits x 1000": around(Loud, "logits' scale"),
    "softmax output": around(Softmax, "logits"),
    "dies of perturbed images": around(DiesOfNoise, "NaN and ties"),
    "NaN on perturbed images": around(NaNWhenPerturbed, "NaN and ties"),
    "one-hot output": around(OneHot, "logits", "gradients are there"),
    "labels with a gradient that misleads": around(BlindLabels, "gradients beat what sees less"),
    "rounded logits": around(RoundedLogits, "gradients are there"),
    "expects pixels in [0, 255]": around(Bytes, "input range"),
    "detector, undeclared": Liar(lambda x, y: Case(Detector(zoo("none")), classes=10), ("rejection is attacked",)),
}
