"""Robust accuracy as a curve over eps, how far the nearest adversarial images lie, and what they cost to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from robustbench_local.core.threat import TOLERANCE
from robustbench_local.metrics.rates import Floats

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def nearest(distance: Floats, success: Floats, clean: Floats) -> Floats:
    """(N,) distance of the nearest adversarial image: 0 where the clean one is misclassified, infinite where none is.

    distance: of what a minimum-norm attack came back with; success: whether that is misclassified; clean:
    whether the clean image is not. All (N,); of a random model success and clean are shares of draws, and most decide.
    """
    found: Floats = np.where(clean <= 0.5, 0.0, np.where(success > 0.5, distance, np.inf))
    return found


def robust_at(eps: float, distance: Floats, success: Floats, clean: Floats) -> Floats:
    """(N,) share that is robust at eps to a minimum-norm attack, as the judge counts; arguments as for nearest()."""
    inside = distance <= eps + TOLERANCE * max(1.0, eps)
    found: Floats = np.where(inside, 1 - success, clean)
    return found


def nested(robust: Mapping[float, Floats]) -> dict[float, Floats]:
    """eps -> (N,) shares, none above those at a smaller eps: what is broken in a ball is so in every larger one."""
    found: dict[float, Floats] = {}
    least: Floats | None = None
    for eps in sorted(robust):
        least = robust[eps] if least is None else np.minimum(least, robust[eps])
        found[eps] = least
    return found


def quantiles(values: npt.ArrayLike, shares: Sequence[float] = QUANTILES) -> dict[str, float | int | None]:
    """n, and per share q (as "q25") the least value that a share q of the values does not exceed.

    None where that is infinite, or where there is no value: the median distance of a model that is mostly robust is
    not known, and no mean over the broken images can say it.
    """
    sorted_values = np.sort(np.asarray(values, dtype=np.float64))
    n = len(sorted_values)
    picked = {f"q{100 * q:.0f}": sorted_values[max(0, int(np.ceil(q * n - 1e-9)) - 1)] if n else np.inf for q in shares}
    return {"n": n, **{name: float(value) if np.isfinite(value) else None for name, value in picked.items()}}
