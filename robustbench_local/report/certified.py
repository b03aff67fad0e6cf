"""What is certain of a model: certificates, which bound robust accuracy from below, and the attacks that deny them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_local.core.escaping import visible
from robustbench_local.core.threat import ThreatModel
from robustbench_local.metrics.rates import Rate, rate
from robustbench_local.report.text import percent
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import THREAT, Row, done

ArraysOf = Callable[[Row], Mapping[str, Array]]
SharesOf = Callable[[Row], npt.NDArray[np.float64]]
_LISTED = 8  # images of a contradiction that are named
SAMPLED = "*"  # after a share that holds with some probability


@dataclass(frozen=True)
class Certified:
    """Of a model on some images within a ball. rate: the share that no attack can break, None where nothing is known,
    and `missing` says why. confidence: with which each image by itself is certified, None of a proof; draws: that each
    took. rows: the certificates that it is made of.
    """

    rate: Rate | None
    missing: str = ""
    confidence: float | None = None
    draws: int | None = None
    rows: tuple[Row, ...] = ()

    @property
    def how(self) -> str:
        """ "by proof", or "with a probability of 99.9 % each"."""
        return "by proof" if self.confidence is None else f"with a probability of {100 * self.confidence:g} % each"

    @property
    def remark(self) -> str:
        """What a note says of it: nothing of a proof."""
        if self.rate is None:
            return f"not certified: {self.missing}"
        if self.confidence is None:
            return ""
        return (
            f"certified by sampling, {self.draws:,} draws an image, {self.how}: of the vote of infinitely many"
            " copies, which the deployed model estimates by few"
        )


@dataclass(frozen=True)
class Contradiction:
    """An attack broke images that are certified within a ball around all that it tried: one of the two is wrong.

    ids (n,) and bounds (n,): of these images, and of the margin that was promised.
    """

    attack: Row
    certificate: Row
    ids: tuple[int, ...]
    bounds: tuple[float, ...]

    def __str__(self) -> str:
        attack, promise = self.attack, self.certificate
        model = f"{attack.model} / {attack.defense} on {attack.definition['data']}"
        method = str(promise.said("certificate"))
        said = contradiction(model, attack.attack, attack.threat, method, promise.threat, self.ids, self.bounds)
        return visible(f"{said} (rows {promise.key} and {attack.key})")


def contradiction(
    model: str, attack: str, within: str, method: str, ball: str, ids: Sequence[int], bounds: Sequence[float]
) -> str:
    """What is said of images (n,) that a method certifies within a ball, with bounds (n,) of their margins, and that an
    attack broke within it or a smaller one.
    """
    count = len(ids)
    named = [f"{id} (margin at least {bound:.3g})" for id, bound in zip(ids, bounds, strict=True)]
    more = f" and {count - _LISTED:,} more" if count > _LISTED else ""
    return (
        f"{model}: {attack} within {within} breaks {count} image{'s' * (count != 1)} that {method} certifies within"
        f" {ball}: {', '.join(named[:_LISTED])}{more}. Either the bound or the verdict is wrong, and neither can be"
        " believed. Where the model does not compute in float32 (TF32, bfloat16), that is why; otherwise it is a defect"
        " of robustbench_local: please report it with this message and the model's weights"
    )


class Certificates:
    """The certificates of some results. arrays_of(row) -> its arrays."""

    def __init__(self, rows: Iterable[Row], arrays_of: ArraysOf) -> None:
        self._arrays_of = arrays_of
        self._by_ball: dict[str, list[Row]] = defaultdict(list)
        self._by_model: dict[str, list[Row]] = defaultdict(list)
        for row in _newest(rows):
            self._by_ball[row.of_ball()].append(row)
            self._by_model[_around(row)].append(row)

    def of(self, attack: Row) -> Certified | None:
        """Within the ball of an attack, on its model and images; None where nobody asked.

        Each method has its say: an image is certified that any of them certifies. A proof comes before a probability.
        """
        rows = self._by_ball.get(attack.of_ball(), [])
        good = [row for row in rows if row.ok]
        proofs = [row for row in good if row["results"]["confidence"] is None]
        if not rows:
            return None
        if not good:
            return Certified(None, visible(rows[0].why.removeprefix("left out, ")), rows=tuple(rows))
        chosen = proofs or good
        results = chosen[0]["results"]
        return Certified(rate(self._any(chosen)), "", results["confidence"], results["draws"], tuple(chosen))

    def shares(self, attack: Row) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
        """ids (N,) and shares (N,), 1 where an image is certified; None where nothing is known."""
        found = self.of(attack)
        if found is None or found.rate is None:
            return None
        return self._arrays_of(found.rows[0])["ids"], self._any(found.rows)

    def denied(self, attack: Row, shares: npt.NDArray[np.float64]) -> list[Contradiction]:
        """The certificates that an attack shows to be wrong, or itself. shares (N,): of each image, as robust to it."""
        if not self._by_model:  # most folders have none, and thousands of attacks to ask of
            return []
        found = []
        within = ThreatModel.parse(attack.threat, allow_large=True)
        for row in self._by_model.get(_around(attack), []):
            proof = done(row) and row["results"]["confidence"] is None
            if not proof or not ThreatModel.parse(row.threat, allow_large=True).holds(within):
                continue
            fell = self._certified(row) & (shares < 1)
            if fell.any():
                arrays = self._arrays_of(row)
                ids, bounds = (tuple(arrays[name][fell].tolist()) for name in ("ids", "margin"))
                found.append(Contradiction(attack, row, ids, bounds))
        return found

    def _any(self, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
        """(N,), 1 where any of them certifies an image."""
        return np.asarray(np.maximum.reduce([self._certified(row) for row in rows]), dtype=np.float64)

    def _certified(self, row: Row) -> npt.NDArray[np.bool_]:
        return np.asarray(self._arrays_of(row)["certified"], dtype=bool)


def in_percent(found: Certified) -> str:
    """ "92.0", or "92.0*" of a probability; a dash is for whoever shows it."""
    assert found.rate is not None
    return percent(found.rate.value) + (SAMPLED if found.confidence is not None else "")


def _around(row: Row) -> str:
    """Its model and images, whatever the ball."""
    return row.without(THREAT).of_ball()


def _newest(rows: Iterable[Row]) -> list[Row]:
    """Of each ball and method those of the latest version: an earlier one may have promised too much."""
    rows = list(rows)
    last: dict[tuple[str, str], int] = {}
    for row in rows:
        place = row.of_ball(), row.said("certificate")
        last[place] = max(last.get(place, 0), row.said("certificate_version"))
    return [row for row in rows if row.said("certificate_version") == last[row.of_ball(), row.said("certificate")]]
