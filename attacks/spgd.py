"""Sparse PGD: where to change pixels and to what, both by gradients, in an L0 ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from robustbench_local.attacks.sigma_zero import largest_is_one
from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

NEAR = 0.5  # logits: from there on the margin is climbed, not the cross-entropy
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class SPGD(IterativeAttack):
    """Zhong et al. 2024, algorithm 1: colours p for all pixels, and scores m that choose the k of threat l0:k.

    The image is x + p where m is among its k largest. Each step moves p by step_size along the signs of its gradient,
    and m by score_step times the root of the number of pixels along its own, of unit L2 norm. Both are those of
    cross-entropy, and within half a logit of the boundary of the margin; m's as if every pixel changed by the share
    sigmoid(m). Where the same pixels are chosen for `patience` steps, m is drawn anew. Per image that stays robust:
    restarts * (steps + 1) - 1 forwards, restarts * steps backwards.

    steps: how many each restart takes, at least 1. restarts: how many begin anew, at least 1. gradient: "projected"
    moves p only where pixels are chosen, "unprojected" as if all changed by the share sigmoid(m), which explores more.
    step_size: of p, above 0, where white is 1. score_step: of m, above 0. patience: at least 1.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    summary: ClassVar[str] = "gradient ascent over which pixels to change, and to what colour"
    paper: ClassVar[str] = "Zhong et al. 2024, arXiv:2405.05075"

    steps: int = 300
    restarts: int = 1
    gradient: Literal["projected", "unprojected"] = "unprojected"
    step_size: float = 0.25
    score_step: float = 0.25
    patience: int = 3

    def __post_init__(self) -> None:
        check_counts(self, "steps", "restarts", "patience")
        for name in ("step_size", "score_step"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be above 0")

    def rounds(self, oracle: Oracle) -> int:
        return self.restarts

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        colours = (x + 2 * draws.stream("colours").uniform(*x.shape[1:]).to(x) - 1).clamp(0, 1) - x
        scores = draws.stream("scores").normal(1, *x.shape[2:]).to(x)
        chosen = _largest(scores, int(threat.eps))
        same = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return {
            "x_adv": (x + colours * chosen).clamp(0, 1),
            "colours": colours,
            "scores": scores,
            "chosen": chosen,
            "same": same,
        }

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        ce, margin = (losses.named(name, targeted=oracle.targeted) for name in ("ce", "margin"))

        def loss(logits: Tensor, y: Tensor) -> Tensor:
            value = margin(logits, y)
            return torch.where(value > -NEAR * oracle.unit, value, losses.tempered(ce)(logits, y))

        _, grad, _ = oracle.grad(state["x_adv"], y, loss)
        grad, share = largest_is_one(grad), state["scores"].sigmoid()
        of_colours = grad * (state["chosen"] if self.gradient == "projected" else share)
        of_scores = (grad * state["colours"]).sum(1, keepdim=True) * share * (1 - share)
        of_scores = largest_is_one(of_scores)
        length = of_scores.square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(TINY)
        colours = (x + state["colours"] + self.step_size * of_colours.sign()).clamp(0, 1) - x
        scores = state["scores"] + self.score_step * share[0].numel() ** 0.5 * of_scores / length
        chosen = _largest(scores, int(threat.eps))
        same = torch.where((chosen == state["chosen"]).flatten(1).all(1), state["same"] + 1, 0)
        stuck = same >= self.patience
        scores = torch.where(stuck.view(-1, 1, 1, 1), draws.normal(1, *x.shape[2:]).to(x), scores)
        chosen = torch.where(stuck.view(-1, 1, 1, 1), _largest(scores, int(threat.eps)), chosen)
        x_adv = (x + colours * chosen).clamp(0, 1)
        same = torch.where(stuck, 0, same)
        return {"x_adv": x_adv, "colours": colours, "scores": scores, "chosen": chosen, "same": same}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.restarts * (self.steps + 1) - 1, self.restarts * self.steps


def _largest(scores: Tensor, k: int) -> Tensor:
    """(N, 1, H, W) -> bool alike: the k largest of each sample's, all where there are fewer."""
    flat = scores.flatten(1)
    top = flat.topk(min(k, flat.shape[1]), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, top, True).view_as(scores)
