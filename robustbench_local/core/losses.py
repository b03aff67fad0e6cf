"""What an attack raises: losses of (logits (N, K), labels (N,)) -> (N,), larger meaning nearer to success.

Untargeted losses grow as the true class gives way; `targeted=True` forms grow as the logits approach class y.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.core.errors import ConfigError, did_you_mean

Loss = Callable[[Tensor, Tensor], Tensor]
USUAL = 10.0  # the size of logits


def ce(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(logits, y, reduction="none")


def best_other(logits: Tensor, y: Tensor) -> Tensor:
    """(N,): the largest logit of any class but y."""
    return logits.scatter(1, y[:, None], -torch.inf).amax(1)


def size(logits: Tensor, y: Tensor) -> Tensor:
    """(N,): the larger of the two logits whose difference is the margin, without its sign; 0 where one is infinite."""
    larger = torch.maximum(best_other(logits, y).abs(), logits.gather(1, y[:, None])[:, 0].abs())
    return torch.where(larger < torch.inf, larger, 0)


def unit(size: Tensor) -> Tensor:
    """What logits of this size (N,) are measured in, (N,): 1 for usual ones, which are 10 or up to thirty times smaller
    or larger, and otherwise a power of 1024: to divide by it is exact.
    """
    tens = torch.where(size > 0, size / USUAL, 1).log2() / 10
    return torch.exp2(10 * tens.round())


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y (Carlini and Wagner 2017, f_6 without its floor); misclassified at 0 and above."""
    return best_other(logits, y) - logits.gather(1, y[:, None])[:, 0]


def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """The margin of softmax probabilities (Ma et al. 2024, PMA)."""
    return margin(logits.softmax(1), y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, the margin over z_(1) - z_(3) (Croce and Hein 2020, equation 6)."""
    if logits.shape[1] < 3:
        raise ConfigError(f"the dlr loss needs 3 classes or more, the model has {logits.shape[1]}: use margin")
    top = logits.topk(3, dim=1).values
    return _over(margin(logits, y), top[:, 0] - top[:, 2], top)


def margin_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_target - z_y, the margin towards one class (Gowal et al. 2019, multi-targeted)."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def dlr_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The margin to one class over z_(1) - (z_(3) + z_(4)) / 2 (Croce and Hein 2020, equation 7); 4 classes or more."""
    return _dlr_ratio(margin_to(logits, y, target), logits.topk(4, dim=1).values)


def _dlr_ratio(value: Tensor, top: Tensor) -> Tensor:
    """value (N,) over z_(1) - (z_(3) + z_(4)) / 2, of the largest four logits (N, 4)."""
    return _over(value, top[:, 0] - (top[:, 2] + top[:, 3]) / 2, top)


def _over(value: Tensor, spread: Tensor, top: Tensor) -> Tensor:
    """value / spread (N,), finite where the largest logits (N, 3 or more) are equal."""
    least = 1e-13 * top[:, 0].abs()
    return value / (spread + least).clamp_min(1e-30)


def tempered(loss: Loss) -> Loss:
    """The loss, of logits beyond usual size as if they were usual: their softmax would be saturated."""

    def cool(logits: Tensor, y: Tensor) -> Tensor:
        large = size(logits.detach(), y)
        return loss(logits / torch.where(large > 32 * USUAL, large / USUAL, 1)[:, None], y)

    return cool


def spread_alike(loss: Loss) -> Loss:
    """The loss of logits brought to the same spread, 10 from their mean to the largest: times a constant, they are the
    same to it.
    """

    def alike(logits: Tensor, y: Tensor) -> Tensor:
        known = logits.detach()
        spread = known.amax(1) - known.mean(1)
        return loss(logits * torch.where(spread > 0, USUAL / spread, 1)[:, None], y)

    return alike


def dlr_targeted(logits: Tensor, y: Tensor) -> Tensor:
    """The margin towards y over z_(1) - (z_(3) + z_(4)) / 2, the scale of Croce and Hein 2020, equation 7."""
    if logits.shape[1] < 4:
        raise ConfigError(f"the targeted dlr loss needs 4 classes or more, the model has {logits.shape[1]}: use margin")
    return _dlr_ratio(-margin(logits, y), logits.topk(4, dim=1).values)


_UNTARGETED: dict[str, Loss] = {"ce": ce, "margin": margin, "probability_margin": probability_margin, "dlr": dlr}
_TARGETED: dict[str, Loss] = {
    "ce": lambda logits, y: -ce(logits, y),
    "margin": lambda logits, y: -margin(logits, y),
    "probability_margin": lambda logits, y: -probability_margin(logits, y),
    "dlr": dlr_targeted,
}
NAMES = tuple(_UNTARGETED)


def named(name: str, *, targeted: bool = False) -> Loss:
    """The loss of that name; targeted: the form that is raised when the logits approach class y."""
    table = _TARGETED if targeted else _UNTARGETED
    if name not in table:
        raise ConfigError(f'unknown loss "{name}"{did_you_mean(name, table)}: one of {", ".join(table)}')
    return table[name]


def kl(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)), (N,): TRADES's regulariser, and its attack's loss."""
    return F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True).sum(1)
