"""A few images of one attack with their adversarial twins, kept as the judge saw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustbench_local.core.source import Source
from robustbench_local.core.verdict import Verdict
from robustbench_local.storage.npz import Array

MOST_BYTES = 2**26  # of adversarial images among which some are chosen: the first of a cell, as many as these hold


class FirstImages:
    """What a judge hands its adversarial images to, batch by batch: it keeps the first ones, on the host."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._left, self._parts = most_bytes, list[Tensor]()
        self._full = False

    def __call__(self, rows: slice, x_adv: Tensor) -> None:
        fits = 0 if self._full else min(len(x_adv), self._left // max(1, x_adv[:1].nbytes))
        self._full = fits < len(x_adv)
        if fits:
            self._parts.append(x_adv[:fits].to("cpu", copy=True))
            self._left -= self._parts[-1].nbytes

    @property
    def count(self) -> int:
        """How many it has."""
        return sum(map(len, self._parts))

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.cat(self._parts)[rows]


@dataclass(frozen=True)
class Chosen:
    """Places (k,) of images, in the order in which they fell. ranks: 1 for the first to fall, 0 of one that is robust.

    fell: how many did, of the first `looked` images.
    """

    places: tuple[int, ...]
    ranks: tuple[int, ...]
    fell: int
    looked: int


def chosen(arrays: Mapping[str, Array], minimises: bool, most: int, looked: int | None = None) -> Chosen:
    """From the first to fall to the last, at most so many at even steps: of three the median is the second.

    arrays: as beside a row. An image fell that was right and is not robust; before another, if the attack took fewer
    forward passes, then if its distance is less; of an attack that minimises, which takes as long for each, by distance
    alone. Where none fell it is the first that are robust. looked: of how many images it may be one.
    """
    some = slice(0, looked)
    clean, robust, cost, distance = (arrays[key][some] for key in ("clean", "robust", "forwards", "distance"))
    fallen = np.flatnonzero(clean & ~robust)
    keys = (distance[fallen],) if minimises else (distance[fallen], cost[fallen])
    fallen = fallen[np.lexsort((fallen, *keys))]
    if len(fallen):
        steps = np.unique(np.linspace(0, len(fallen) - 1, min(most, len(fallen))).round().astype(int))
        places, ranks = fallen[steps].tolist(), (steps + 1).tolist()
    else:
        places = np.flatnonzero(clean & robust)[:most].tolist()
        ranks = [0] * len(places)
    return Chosen(tuple(places), tuple(ranks), len(fallen), len(clean))


@dataclass(frozen=True)
class Twins:
    """k images and what became of them: x and x_adv (k, C, H, W) float32, ids, labels and ranks (k,).

    before, after (k,): the model's answers, of which the one beyond the last class is a rejection, and how sure it is
    of them in [0, 1]. fell, looked: as in Chosen.
    """

    ids: Array
    labels: Array
    ranks: Array
    x: Array
    x_adv: Array
    before: Array
    before_confidence: Array
    after: Array
    after_confidence: Array
    fell: int
    looked: int


def twins(
    some: Chosen, rows: Sequence[int], verdict: Verdict, images: Source, x_adv: FirstImages | Tensor
) -> Twins | None:
    """The chosen images, which are at these rows of the verdict, of its images as they arrived and of x_adv; None where
    none was chosen.
    """
    if not rows:
        return None
    places = torch.tensor(rows)
    own = places.to(verdict.ids.device)
    sure_before, before = verdict.clean_scores[own].exp().nan_to_num().max(1)
    sure_after, after = verdict.scores[own].exp().nan_to_num().max(1)
    return Twins(
        ids=_host(verdict.ids[own]),
        labels=_host(verdict.labels[own]),
        ranks=np.asarray(some.ranks),
        x=_host(images[own].float()),
        x_adv=_host(x_adv[places].float()),
        before=_host(before),
        before_confidence=_host(sure_before.float()),
        after=_host(after),
        after_confidence=_host(sure_after.float()),
        fell=some.fell,
        looked=some.looked,
    )


def _host(values: Tensor) -> Array:
    return np.asarray(values.cpu().contiguous())
