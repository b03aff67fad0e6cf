"""Pictures of the images that a model lost, or gained, against the last one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robustbench_local.core.escaping import visible
from robustbench_local.gallery.views import Sample, View, change, picture
from robustbench_local.regression.figures import ATTACKS, attacked
from robustbench_local.regression.measured import Measured
from robustbench_local.regression.outcome import LESS_ROBUST, Outcome

MOST = {"lost": 12, "gained": 6}  # pictures


def changed(outcome: Outcome, measured: Measured) -> tuple[Sample, ...]:
    """Clean, attacked, and what lies between, of the first images lost and gained under the attacks."""
    return tuple(_samples(outcome, measured)) if measured.aimed else ()


def _samples(outcome: Outcome, measured: Measured) -> Iterator[Sample]:
    images = measured.images
    ids, labels = (np.asarray(each.cpu()) for each in (images.ids, images.labels))
    for comparison in outcome.comparisons:
        if (comparison.kind, comparison.of, comparison.against) != (LESS_ROBUST, ATTACKS, "last"):
            continue
        for fate, chosen in (("lost", comparison.lost), ("gained", comparison.gained)):
            places = np.flatnonzero(np.isin(ids, chosen[: MOST[fate]]))
            found = attacked(measured.results, measured.aimed, images, places)
            for k, place in enumerate(places.tolist()):
                x, x_adv = found.x[k], found.x_adv[k]
                clean, broken = (_answer(measured, answer) for answer in found.answers[k].tolist())
                views = (
                    View("clean", picture(x), (f"answered {clean}",)),
                    View("attacked", picture(x_adv), (f"answered {broken}",)),
                    change(x, x_adv),
                )
                yield Sample(int(ids[place]), visible(images.classes[int(labels[place])]), fate, views)


def _answer(measured: Measured, answer: int) -> str:
    classes = measured.images.classes
    return visible(classes[answer]) if answer < len(classes) else "no class"
