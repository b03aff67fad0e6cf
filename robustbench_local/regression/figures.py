"""The figures of a check: what its rows say of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_local.core.errors import DataError
from robustbench_local.data.images import Images
from robustbench_local.regression.known_images import KnownImages
from robustbench_local.regression.shares import Shares
from robustbench_local.report.results import Results
from robustbench_local.storage.row import Row, clean_shares, corrupted_shares, robust_shares

Ints = npt.NDArray[np.int64]

ATTACKS, CORRUPTIONS = "attacks", "corruptions"


@dataclass(frozen=True, eq=False)
class Figures:
    """Shares (N,) are whether each image is classified correctly: 0, 1, or a random model's share of draws.

    clean: without an attack. shares: against the `attacks`, the least over all of them; of the `corruptions`, the mean.
    audited: the attacks', as the audit of the rows lowers it. levels: shares are multiples of 1 / levels.
    margins (N,): of the true class over the next, in nats, the least over the images that the attacks left; NaN without
    scores. distances (N,): of the nearest misclassified image, NaN where there is none.
    """

    clean: Shares
    shares: Mapping[str, Shares]
    audited: Shares | None
    levels: Mapping[str, int]
    margins: Shares | None
    distances: Shares | None

    @property
    def random(self) -> bool:
        return self.levels["clean"] > 1

    @property
    def worst(self) -> Shares:
        """(N,) the least that is known: after audits, over attacks and corruptions."""
        found = [*self.shares.values(), *([] if self.audited is None else [self.audited])]
        return reduce(np.minimum, found)


def figures(results: Results, rows: Sequence[Row]) -> Figures:
    """Of good rows, which are of one model on the same images. DataError where there is none."""
    if not rows:
        raise DataError("no attack of the suite could be run")
    aimed = [row for row in rows if not row.corrupts and row.adaptive]
    weather = [row for row in rows if row.corrupts]
    first = results.arrays(rows[0], "clean", "clean_bits")
    draws = first["clean_bits"].shape[1] if "clean_bits" in first else 1
    shares, levels = {}, {"clean": draws}
    if aimed:
        shares[ATTACKS] = np.minimum.reduce([robust_shares(results.arrays(row, "robust", "bits")) for row in aimed])
        levels[ATTACKS] = draws
    if weather:
        shares[CORRUPTIONS] = np.mean([_corrupted(results, row) for row in weather], 0)
        levels[CORRUPTIONS] = draws * len(weather)
    return Figures(
        clean=clean_shares(first),
        shares=shares,
        audited=np.minimum.reduce([results.robust_shares(row) for row in aimed]) if aimed else None,
        levels=levels,
        margins=_fewest([_margins(results, row) for row in aimed]),
        distances=_fewest([_distances(results, row) for row in aimed]),
    )


@dataclass(frozen=True, eq=False)
class Attacked:
    """What attacks made of images at some places (M,): x and x_adv (M, C, H, W) on the CPU, the clean images and what
    the strongest attack made of each; answers (M, 2): the classes that the model gave to either.
    """

    x: Tensor
    x_adv: Tensor
    answers: Ints


def attacked(results: Results, rows: Sequence[Row], images: Images, places: Ints) -> Attacked:
    """rows: at least one that is good and kept its adversarial images."""
    each = np.stack([robust_shares(results.arrays(row, "robust", "bits"))[places] for row in rows])
    strongest = each.argmin(0)
    x = images[torch.from_numpy(places)].cpu()
    x_adv, answers = x.clone(), np.zeros((len(places), 2), np.int64)
    for number, row in enumerate(rows):
        own = np.flatnonzero(strongest == number)
        if len(own):
            made = results.array_rows(row, "x_adv", places[own].tolist())
            x_adv[torch.from_numpy(own)] = torch.from_numpy(made).to(x_adv)
            said = results.arrays(row, "clean_predicted", "predicted")
            answers[own] = np.stack([said[name][places[own]] for name in ("clean_predicted", "predicted")], 1)
    return Attacked(x, x_adv, answers)


def broken_images(results: Results, rows: Sequence[Row], images: Images) -> KnownImages | None:
    """Of each image that an attack broke, on any draw, what the strongest made of it; None without such rows."""
    if not rows:
        return None
    arrays = [results.arrays(row, "robust", "bits", "clean", "clean_bits") for row in rows]
    least = np.minimum.reduce(list(map(robust_shares, arrays)))
    found = attacked(results, rows, images, np.flatnonzero((least < 1) & (clean_shares(arrays[0]) > 0)))
    return KnownImages.of(found.x, found.x_adv)


def _corrupted(results: Results, row: Row) -> Shares:
    """As CIFAR-10-C counts: right when corrupted, whatever the clean image is."""
    return corrupted_shares(results.arrays(row, "corrupted", "bits"))


def _margins(results: Results, row: Row) -> Shares:
    arrays = results.arrays(row, "scores", "labels")
    scores, labels = arrays["scores"].astype(np.float64), arrays["labels"][:, None]
    own = np.take_along_axis(scores, labels, 1)[:, 0]
    others = scores.copy()
    np.put_along_axis(others, labels, -np.inf, 1)
    with np.errstate(invalid="ignore"):  # an infinite score less another
        found: Shares = own - others.max(1)
    return found


def _distances(results: Results, row: Row) -> Shares:
    arrays = results.arrays(row, "clean", "robust", "distance")
    found: Shares = np.where(arrays["clean"] & ~arrays["robust"], arrays["distance"].astype(np.float64), np.nan)
    return found


def _fewest(each: Sequence[Shares]) -> Shares | None:
    """The least of each image, NaN where all are."""
    if not each:
        return None
    found: Shares = reduce(np.fmin, each)
    return found
