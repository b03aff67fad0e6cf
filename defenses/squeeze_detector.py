"""Feature squeezing as a detector: an image is suspicious when its squeezed versions are answered otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import draws_for, through
from robustbench_local.core.draws import Draws
from robustbench_local.defenses._detector import Detecting, Detector, answer
from robustbench_local.defenses._wrapper import Step, Wrapper, check
from robustbench_local.defenses.bit_depth import BitDepth
from robustbench_local.defenses.median import Median
from robustbench_local.defenses.non_local_means import NonLocalMeans

FLOOR = 1e-6  # of a distance of probabilities, so that its logarithm is finite


class Squeezed(Detector):
    """The score is the largest L1 distance d, in [0, 2], between the probabilities of the image and of any of its
    squeezed versions, as log odds: log(d / (2 - d)). Gradients go through the squeezers' surrogates.

    grey, colour: the squeezers of images of one and of more channels.
    """

    def __init__(self, net: nn.Module, grey: Sequence[Wrapper], colour: Sequence[Wrapper]) -> None:
        super().__init__(net)
        self.grey, self.colour = ([Step(squeezer) for squeezer in each] for each in (grey, colour))

    def measure(self, x: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        draws = draws_for(x, draws) if self.stochastic else None
        logits = answer(self.net, x, draws, "net")
        odds = [
            log_odds(logits, answer(self.net, through(squeezer, x, None), draws, f"squeezed:{place}"))
            for place, squeezer in enumerate(self.grey if x.shape[1] == 1 else self.colour)
        ]
        return logits, torch.stack(odds).amax(0)


def log_odds(one: Tensor, other: Tensor) -> Tensor:
    """(N,): log(d / (2 - d)) of the L1 distance d of the probabilities that logits (N, K) stand for.

    2 - d is twice what the two have in common. In logarithms that is exact, and has a gradient, where d is 2 to the
    last digit: two sure and different answers are where an attack begins.
    """
    first, second = one.log_softmax(1), other.log_softmax(1)
    distance = (first.exp() - second.exp()).abs().sum(1)
    return (distance / 2 + FLOOR).log() - torch.minimum(first, second).logsumexp(1)


@dataclass(frozen=True)
class SqueezeDetector(Detecting):
    """Xu et al. 2018, joint detection. By default as theirs: grey images at 1 bit and through a median of `median`,
    colour images at 5 bits, through the median and through non-local means in Lab (window 13, patch 3, strength 2/255).

    bits: another depth, from 1 to 8. median: its size in pixels, 0 for none. window: of non-local means, 0 for none. An
    attacker who knows of the squeezers optimises against them (He et al. 2017, arXiv:1706.04701).

    patch: the side of the squares that non-local means compares, odd. strength: of non-local means, where white is 1.
    """

    summary: ClassVar[str] = (
        "rejects what squeezing (bit depth, median, non-local means) makes the network see otherwise"
    )
    paper: ClassVar[str] = "Xu et al. 2018, arXiv:1704.01155"
    version: ClassVar[int] = 3

    bits: int | None = None
    median: int = 2
    window: int | None = None
    patch: int = 3
    strength: float = 2 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        check("bits", 1 if self.bits is None else self.bits, 1, 8, "bits per channel; null for the paper's")
        self.squeezers(1), self.squeezers(3)

    def squeezers(self, channels: int) -> list[Wrapper]:
        found: list[Wrapper] = [BitDepth((1 if channels == 1 else 5) if self.bits is None else self.bits)]
        if self.median:
            found.append(Median(self.median))
        window = (0 if channels == 1 else 13) if self.window is None else self.window
        if window:
            found.append(NonLocalMeans(window, self.patch, self.strength, "lab"))
        return found

    def around(self, net: nn.Module) -> Detector:
        return Squeezed(net, self.squeezers(1), self.squeezers(3))
