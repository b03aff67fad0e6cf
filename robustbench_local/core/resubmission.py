"""What a random model withstands where the same image may be handed in again: one wrong answer is enough."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TRIES = 10  # how often the same image is handed in
NAME = f"worst of {TRIES} draws"


def withstands(shares: npt.NDArray[np.float64], draws: int) -> npt.NDArray[np.float64] | None:
    """(N,) the chance that TRIES fresh draws are all right, by each image's share (N,) of `draws` right ones.

    C(k, TRIES) / C(draws, TRIES) of k right draws, what TRIES of them chosen at random come to on average (Hoeffding
    1948): no expectation over fresh draws is estimated with less variance, nor does it cost a further question. None
    where fewer than TRIES were drawn.
    """
    if draws < TRIES:
        return None
    right, place = np.rint(shares * draws)[:, None], np.arange(TRIES)
    chance: npt.NDArray[np.float64] = ((right - place).clip(0) / (draws - place)).prod(1)
    return chance
