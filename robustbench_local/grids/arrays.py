"""The per-sample arrays beside a row: what a verdict says of each image."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from robustbench_local.core.decision import joined, success_margin
from robustbench_local.core.trace import others
from robustbench_local.core.verdict import Verdict
from robustbench_local.metrics.classification import answers
from robustbench_local.storage.npz import Array

SAVED = {  # the arrays that `save` adds
    None: frozenset[str](),
    "scores": frozenset({"clean_scores", "scores"}),
    "x_adv": frozenset({"clean_scores", "scores", "x_adv", "fingerprint"}),
}


def arrays_of(verdict: Verdict, save: str | None) -> dict[str, Array]:
    """{name: (N, ...)}, but for the images themselves (kept_images.py)."""
    return _always(verdict) | ({} if save is None else _scores(verdict))


def _always(verdict: Verdict) -> dict[str, Array]:
    names = ["labels", "ids", "clean", "robust", "robust_8bit", "forwards", "backwards", "corrupted"]
    names += ["clean_bits", "bits", "bits_8bit", "success"]
    names += ["distance"] if verdict.corrupted is None else []  # a corruption keeps to no ball
    found = {name: getattr(verdict, name) for name in names}
    found |= {"margin": _margin(verdict).half()} if verdict.corrupted is None else {}
    found |= {f"note_{name}": values for name, values in others(verdict.notes).items()}
    arrays = {name: np.asarray(tensor.cpu().contiguous()) for name, tensor in found.items() if tensor is not None}
    for name, scores in (("clean_predicted", verdict.clean_scores), ("predicted", verdict.scores)):
        arrays[name] = answers(scores.cpu().double().numpy(), scores.shape[1]).astype(np.int16)  # halves may tie
    return arrays


def _margin(verdict: Verdict) -> Tensor:
    """(N,), the attacker's, in log-probabilities: below 0 where it fails, the larger the nearer it came."""
    scores = joined(verdict.scores, verdict.labels) if verdict.detects else verdict.scores
    return success_margin(scores, verdict.labels)


def _scores(verdict: Verdict) -> dict[str, Array]:
    """The log-probabilities, to three digits."""
    return {name: np.asarray(getattr(verdict, name).half().cpu()) for name in ("clean_scores", "scores")}
