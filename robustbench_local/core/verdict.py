"""What one attack left standing, image by image."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """What one attack left standing. All tensors are on the model's device, in the order of the images.

    ids (N,) address each image's random numbers: its place in the data set, or, of tensors given to evaluate, a hash of
    its pixels, so that equal images have equal verdicts.
    Robust accuracy is an upper bound: a stronger attack may find more. Of a random model clean and robust say "on
    more than half of the draws", the accuracies are means over draws, and the bits (N, R) are kept. forwards and
    backwards are passes per image; what an attack spent in preparing, on all its own images together, is apart. So is
    what no attack asked, on all images together: checked_forwards to check the model, judged_forwards to judge it (less
    where another verdict had asked before). These four are all that the model received.
    clean_scores and scores (N, K) are log-probabilities on the clean and on the attacked images (on the clean one
    where the attacked one lies outside the ball), of a random model the log of their mean over its draws (NaN where
    a logit was not finite); where the model rejects, K + 1 of them. detects: the model is a detector. success, of
    attacks that minimise only: (N,) the share of draws that x_adv deceives, wherever it lies. corrupted, of a
    corruption only: right on the corrupted image, whatever the clean one is. notes are the attack's figures per
    image, (N,), NaN where it has none.
    """

    labels: Tensor
    ids: Tensor
    clean: Tensor
    robust: Tensor
    robust_8bit: Tensor
    x_adv: Tensor
    distance: Tensor
    clean_scores: Tensor
    scores: Tensor
    forwards: Tensor
    backwards: Tensor
    flags: tuple[str, ...]
    seconds: float
    clean_bits: Tensor | None = None
    bits: Tensor | None = None
    bits_8bit: Tensor | None = None
    success: Tensor | None = None
    prepared_forwards: int = 0
    prepared_backwards: int = 0
    checked_forwards: int = 0
    judged_forwards: int = 0
    detects: bool = False
    notes: dict[str, Tensor] = field(default_factory=dict)
    corrupted: Tensor | None = None

    @property
    def clean_accuracy(self) -> float:
        return _mean(self.clean if self.clean_bits is None else self.clean_bits)

    @property
    def robust_accuracy(self) -> float:
        return _mean(self.robust if self.bits is None else self.bits)

    @property
    def corruption_accuracy(self) -> float | None:
        """The share of the corrupted images that are classified rightly, as CIFAR-10-C counts; None of an attack."""
        return None if self.corrupted is None else _mean(self.corrupted if self.bits is None else self.bits)

    @property
    def robust_accuracy_8bit(self) -> float:
        """After rounding the adversarial images to 8 bits inside the ball, as a file would hold them."""
        return _mean(self.robust_8bit if self.bits_8bit is None else self.bits_8bit)


def _mean(bits: Tensor) -> float:
    return bits.double().mean().item()
