"""What one attack did to one model, image by image."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """What one attack did to one model, image by image: tensors on the model's device, in the order of the images.

    Robust accuracy is an upper bound: a stronger attack may break more. Of a random model clean and robust mean "on
    more than half of the R draws", and the accuracies are means over draws.

    Attributes:
        labels: (N,) int64.
        ids: (N,) int64, what addresses each image's random numbers: its place in the data set, or, of tensors given to
            evaluate, a hash of its pixels, so that equal images have equal verdicts.
        clean: (N,) bool, classified correctly without an attack.
        robust: (N,) bool, classified correctly, and not broken.
        robust_8bit: (N,) bool, the same after rounding the attacked images to 8 bits inside the ball.
        x_adv: (N, C, H, W), what the attack returned; (0, C, H, W) where that was not to be kept.
        distance: (N,), of x_adv from the image, in the norm of the threat model.
        clean_scores: (N, K) log-probabilities of the clean images; K + 1 where the model rejects; of a random model the
            log of their mean over draws; NaN where a logit was not finite.
        scores: (N, K) the same of x_adv; of the clean image where x_adv is outside the ball.
        forwards: (N,) forward passes that the attack spent.
        backwards: (N,) backward passes that the attack spent.
        flags: what makes the figures doubtful, such as "no_gradient:63".
        seconds: wall time.
        clean_bits: (N, R) bool, clean per draw; None where the model is not random.
        bits: (N, R) bool, robust per draw; None where the model is not random.
        bits_8bit: (N, R) bool, robust_8bit per draw; None where the model is not random.
        success: (N,), of attacks that minimise only: the share of draws that misclassify x_adv, wherever it is.
        prepared_forwards: forward passes that the attack spent in preparing, on all its own images together.
        prepared_backwards: backward passes, the same.
        checked_forwards: forward passes that checking the model took, in all; of a verdict that was put together from
            parts each of them checks.
        judged_forwards: forward passes that judging took, in all; less where another verdict had asked before.
        detects: the model is a detector.
        notes: the attack's figures per image, (N,) each, NaN where it has none.
        corrupted: (N,) bool, of a corruption only: classified correctly when corrupted, whatever the clean image is.
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
        """The share of the images, in [0, 1], that are classified correctly without an attack."""
        return _mean(self.clean if self.clean_bits is None else self.clean_bits)

    @property
    def robust_accuracy(self) -> float:
        """The share of the images, in [0, 1], that are classified correctly and that the attack did not break."""
        return _mean(self.robust if self.bits is None else self.bits)

    @property
    def corruption_accuracy(self) -> float | None:
        """The share of the corrupted images that are classified correctly, as CIFAR-10-C counts; None of an attack."""
        return None if self.corrupted is None else _mean(self.corrupted if self.bits is None else self.bits)

    @property
    def robust_accuracy_8bit(self) -> float:
        """The same after rounding the attacked images to 8 bits inside the ball, as a file would hold them."""
        return _mean(self.robust_8bit if self.bits_8bit is None else self.bits_8bit)


def _mean(bits: Tensor) -> float:
    return bits.cpu().double().mean().item()
