"""What an attack raises: losses of (logits (N, K), labels (N,)) -> (N,), larger meaning nearer to success.

Untargeted losses grow as the true class gives way; `targeted=True` forms grow as the logits approach class y.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.errors import ConfigError, did_you_mean

Loss = Callable[[Tensor, Tensor], Tensor]


def ce(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(logits, y, reduction="none")


def best_other(logits: Tensor, y: Tensor) -> Tensor:
    """(N,): the largest logit of any class but y."""
    return logits.scatter(1, y[:, None], -torch.inf).amax(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y (Carlini and Wagner 2017, f_6 without its floor); at 0 and above the image fell."""
    return best_other(logits, y) - logits.gather(1, y[:, None])[:, 0]


def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """The margin of softmax probabilities (Ma et al. 2024, PMA)."""
    return margin(logits.softmax(1), y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, the margin over z_(1) - z_(3) (Croce and Hein 2020, equation 6)."""
    if logits.shape[1] < 3:
        raise ConfigError(f"the dlr loss needs 3 classes or more, the model has {logits.shape[1]}: use margin")
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def margin_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_target - z_y, the margin towards one class (Gowal et al. 2019, multi-targeted)."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def dlr_targeted(logits: Tensor, y: Tensor) -> Tensor:
    """The margin towards y over z_(1) - (z_(3) + z_(4)) / 2, the scale of Croce and Hein 2020, equation 7."""
    if logits.shape[1] < 4:
        raise ConfigError(f"the targeted dlr loss needs 4 classes or more, the model has {logits.shape[1]}: use margin")
    top = logits.topk(4, dim=1).values
    return -margin(logits, y) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


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
