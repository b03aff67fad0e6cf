"""A model that is asked in NumPy arrays and shows no gradients: a file another program runs, a function, a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access
from robustbench_local.core.errors import ModelError

Ask = Callable[[npt.NDArray[np.float32]], Any]
_BATCH = 256  # images a call, where nothing else is said


class BlackBox(nn.Module):
    """Pixels (N, C, H, W) in, logits (N, K) out, of whatever `ask` answers.

    ask: float32 (n, C, H, W), at most `batch` at once -> scores (n, K), or (n,) or (n, 1) of two classes; where access
    is LABELS the predicted classes, whole numbers (n,) in 0 .. classes-1, of which logits are made: 1 for the class,
    0 for all others. what: names it in errors. exact: it takes `batch` images and no fewer; the last call is filled up.

    ModelError where an answer is no such array, holds NaN or infinities, or has another number of classes than the
    first.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        what: str,
        access: Access = Access.SCORES,
        classes: int | None = None,
        batch: int | None = None,
        exact: bool = False,
    ) -> None:
        super().__init__()
        if access is Access.LABELS and classes is None:
            raise ModelError(f"{what} answers labels, and says not of how many classes: give classes")
        if classes is not None and classes < 2:
            raise ModelError(f"{what} has {classes} classes: robustness is of two or more")
        self.ask, self.what, self.access, self.classes = ask, what, access, classes
        self.batch, self.exact = batch or _BATCH, exact

    def forward(self, x: Tensor) -> Tensor:
        images = x.detach().to("cpu", torch.float32).contiguous().numpy()
        parts = [self._answer(images[start : start + self.batch]) for start in range(0, len(images), self.batch)]
        if not parts:
            return x.new_zeros(0, self.classes or 2)
        return torch.from_numpy(np.concatenate(parts)).to(x)

    def _answer(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, K) logits."""
        count = len(images)
        if self.exact and count < self.batch:
            images = np.concatenate([images, np.repeat(images[-1:], self.batch - count, axis=0)])
        return self.read(self.ask(images), len(images))[:count]

    def read(self, returned: Any, count: int) -> npt.NDArray[np.float32]:
        """(count, K) logits of what `ask` returned for so many images; ModelError as above."""
        try:
            answer = np.asarray(returned.detach().cpu() if isinstance(returned, Tensor) else returned)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"{self.what} returned a {type(returned).__name__}, no array of numbers: {error}"
            ) from error
        logits = self._one_hot(answer, count) if self.access is Access.LABELS else self._scores(answer, count)
        if self.classes is None:
            self.classes = logits.shape[1]
        elif logits.shape[1] != self.classes:
            raise ModelError(f"{self.what} answered {logits.shape[1]} classes, and it has {self.classes}")
        return logits

    def _scores(self, answer: npt.NDArray[Any], count: int) -> npt.NDArray[np.float32]:
        if answer.dtype.kind not in "fiu" or answer.ndim not in (1, 2) or len(answer) != count:
            raise ModelError(
                f"{self.what} returned {answer.dtype} {answer.shape} for {count} images: give scores (N, K)"
            )
        scores = answer.astype(np.float32)
        if not np.isfinite(scores).all():
            raise ModelError(
                f"{self.what} returned {int((~np.isfinite(scores)).sum())} scores that are NaN or infinite"
            )
        if scores.ndim == 1 or scores.shape[1] == 1:  # one logit for two classes, see core/outputs.py
            half = scores.reshape(-1, 1) / 2
            return np.concatenate([-half, half], 1)
        return scores

    def _one_hot(self, answer: npt.NDArray[Any], count: int) -> npt.NDArray[np.float32]:
        assert self.classes is not None
        labels = answer.reshape(-1) if answer.shape == (count, 1) else answer
        whole = labels.shape == (count,) and labels.dtype.kind in "iuf" and bool((labels == np.floor(labels)).all())
        if not whole:
            raise ModelError(f"{self.what} returned {answer.dtype} {answer.shape} for {count} images: give labels (N,)")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ModelError(
                f"{self.what} returned labels {labels.min():g} .. {labels.max():g}: expected 0 .. {self.classes - 1}"
            )
        return np.eye(self.classes, dtype=np.float32)[labels.astype(np.int64)]
