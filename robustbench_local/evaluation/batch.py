"""One batch's verdict: the model is asked about what a search came back with, as floats and in 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_local.core.corruption import Corruption
from robustbench_local.core.decision import inside_or_clean, majority
from robustbench_local.core.defense import is_stochastic
from robustbench_local.core.draws import Draws
from robustbench_local.evaluation.eight_bit import to_8bit
from robustbench_local.evaluation.search import Search, SearchResult


@dataclass(frozen=True)
class BatchVerdict:
    """A batch's share of a verdict: its tensors (n, ...), how often each fault occurred, and the attack's notes."""

    tensors: dict[str, Tensor]
    faults: dict[str, int]
    notes: dict[str, Tensor]

    def note(self, name: str) -> Tensor:
        """(n,), NaN where this batch has no such note."""
        return self.notes.get(name, torch.full_like(self.tensors["distance"], torch.nan))


@dataclass(frozen=True)
class CleanAnswers:
    """What a model answered to clean images: logits (N, R, K), R draws of a random model, and right (N, R) bool."""

    logits: Tensor
    right: Tensor


def decide(
    search: Search,
    found: SearchResult,
    model: nn.Module,
    x: Tensor,
    goal: Tensor,
    clean: CleanAnswers,
    draws: Draws,
    rounds: int,
) -> BatchVerdict:
    """The verdict on what was found for images x (N, C, H, W), by so many fresh draws of a random model.

    goal (N,): the true classes, or where targeted the classes to reach.
    """
    random, natural, threat = is_stochastic(model), isinstance(search.attack, Corruption), search.threat
    nan = found.x_adv.isnan().flatten(1).any(1)
    inside = threat.contains(found.x_adv, x)
    x_adv = torch.where(nan.view(-1, 1, 1, 1), x, found.x_adv)
    answers = search.answers(model, x_adv, draws.stream("verdict"), rounds)
    rounded = to_8bit(x_adv, x, threat)
    inside_8bit = inside & threat.contains(rounded, x)
    answers_8bit = answers.clone()
    moved = (rounded != x_adv).flatten(1).any(1)  # no corruption's: they have 256 levels already
    if moved.any():
        answers_8bit[moved] = search.answers(model, rounded[moved], draws[moved].stream("verdict"), rounds)

    def withstood(images: Tensor, inside: Tensor, answers: Tensor) -> Tensor:
        """(N, R) bool: the attacker fails with these images."""
        counted = inside_or_clean(answers, inside, clean.logits)
        return search.margins(model, counted, goal, inside_or_clean(images, inside, x), x) < 0

    right = majority(clean.right)
    bits = {"robust": withstood(x_adv, inside, answers), "robust_8bit": withstood(rounded, inside_8bit, answers_8bit)}
    robust = {name: majority(each) if random else right & each[:, 0] for name, each in bits.items()}
    tensors = dict(
        clean=right,
        x_adv=x_adv,
        forwards=found.forwards,
        backwards=found.backwards,
        distance=threat.distance(x_adv, x),
        clean_scores=_scores(clean.logits),
        scores=_scores(inside_or_clean(answers, inside, clean.logits)),
        **robust,
    )
    if natural:
        tensors["corrupted"] = majority(bits["robust"])
    if search.attack.minimises:
        tensors["success"] = 1 - (search.margins(model, answers, goal, x_adv, x) < 0).float().mean(1)
    if random:
        tensors |= dict(clean_bits=clean.right, bits=bits["robust"], bits_8bit=bits["robust_8bit"])
    faults = dict(
        nan_pixels=int(nan.sum()),
        outside_ball=0 if search.attack.minimises else int((~inside & ~nan).sum()),  # those look for no ball
        near_tie=0 if random else int((found.broken & robust["robust"]).sum()),
        no_gradient=int((found.blind & robust["robust"]).sum()),
    )
    return BatchVerdict(tensors, faults, found.notes)


def _scores(answers: Tensor) -> Tensor:
    """(N, K) log-probabilities of answers (N, R, K): of a random model the log of their mean over its draws."""
    mean: Tensor = answers.log_softmax(2).logsumexp(1)
    return mean - math.log(answers.shape[1])
