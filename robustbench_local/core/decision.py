"""When an attack has succeeded: all that decides it, in one place. Pure functions of what a model answered.

The attacker's margin on an answer is how far the logit it wants is ahead: untargeted, the largest of the other classes
minus the true one's; targeted, the target's minus the largest of the others. It succeeds where that margin is >= 0: a
tie or a NaN is the model's error, not its rescue. Four rules go with it:

- a random model is asked R times, and is robust on the share of draws on which the attacker fails;
- a detector that rejects a changed image is right, so the attacker must beat the rejection too; an image that is as it
  was, or that nature changed, is an error to reject;
- an image outside the ball does not count: the clean image's answers take its place;
- a success within float32's rounding is a near-tie: it is kept, and ends no search, since another batch may differ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core import losses
from robustbench_local.core.defense import Rejection, is_stochastic, rejection

# a near-tie is this near to the boundary: in the logits' unit, and in their size; where labels are all that is seen,
# which know no unit, in their size alone
TIE, ROUNDING, TIE_BY_LABELS = 1e-4, 1e-6, 1e-5


def success_margin(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
    """The attacker's margin (N,) by logits (N, K): >= 0 where it succeeds, infinite where any logit is NaN.

    y (N,): the true classes, or where targeted the classes to reach.
    """
    value = losses.margin(logits, y)  # NaN where any logit is
    if targeted:
        value = -value
    return torch.where(value.isnan(), torch.inf, value)


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) bool: logits (N, K) name class y (N,), and no other as well."""
    return success_margin(logits, y) < 0


def success_margins(
    answers: Tensor, goal: Tensor, *, targeted: bool = False, rejectable: Tensor | None = None
) -> Tensor:
    """The attacker's margins (N, R) by R answers (N, R, K) to one image each; goal (N,) as y of `success_margin`.

    rejectable (N,) bool, of a detector only: the images that it is right to reject, by the last of its K logits.
    """
    rounds = answers.shape[1]
    flat, goals = answers.flatten(0, 1), goal.repeat_interleave(rounds)
    margins = success_margin(flat, goals, targeted=targeted).view(-1, rounds)
    if rejectable is None:
        return margins
    beyond = success_margin(joined(flat, goals), goals).view(-1, rounds)
    return torch.where(rejectable[:, None], beyond, margins)


def joined(logits: Tensor, y: Tensor) -> Tensor:
    """(N, K + 1) logits of a detector -> (N, K): class y (N,) has the larger of its own logit and of the rejection's.

    Whoever wants to be taken for another class must beat both (Carlini and Wagner 2017, arXiv:1705.07263).
    """
    kept = torch.maximum(logits.gather(1, y[:, None]), logits[:, -1:])
    return logits[:, :-1].scatter(1, y[:, None], kept)


def detects(model: nn.Module, *, targeted: bool = False, natural: bool = False) -> bool:
    """Whether to be rejected is the attacker's failure. Not where nature changed the images, which are then to be read
    like clean ones; and to reach a target all K + 1 logits must be beaten anyway.
    """
    return rejection(model) is Rejection.DETECTION and not targeted and not natural


def changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """(N,) bool: the images that a detector is right to reject, of (N, C, H, W): those that are not as they were."""
    return (x_adv != x).flatten(1).any(1)


def rounds_of(model: nn.Module, rounds: int) -> int:
    """How many draws of a model's answers there are to be."""
    return rounds if is_stochastic(model) else 1


def majority(bits: Tensor) -> Tensor:
    """(N, R) bool, by draws -> (N,) bool: on more than half of them."""
    return 2 * bits.sum(1) > bits.shape[1]


def inside_or_clean(attacked: Tensor, inside: Tensor, clean: Tensor) -> Tensor:
    """(N, ...): images, or answers to them, where they lie inside the ball (N,); the clean ones elsewhere."""
    return torch.where(inside.view(-1, *[1] * (attacked.ndim - 1)), attacked, clean)


def near_tie(size: Tensor, *, labels_only: bool = False) -> Tensor:
    """The margin (N,) below which a success is a near-tie, of logits of this size (N,), see losses.size."""
    if labels_only:
        return TIE_BY_LABELS * size
    return torch.maximum(TIE * losses.unit(size), ROUNDING * size)


def nearness(margin: Tensor, distance: Tensor, tie: Tensor) -> Tensor:
    """What an attack that minimises has reached (M,): 1 / distance of a success, -distance of a near-tie, -inf of none.

    Any success is more than any near-tie, and within both the nearer is more, to the last digit that distance has.
    margin (M,): -inf where there is no success.
    """
    return torch.where(margin >= tie, 1 / distance, -distance).masked_fill(margin == -torch.inf, -torch.inf)
