"""Twins and their model -> the panel that a page shows: pictures, saliency, and the least change found."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_local.core.draws import Draws
from robustbench_local.core.escaping import visible
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.threat import ThreatModel
from robustbench_local.gallery.answers import class_name, probabilities
from robustbench_local.gallery.saliency import before_and_after
from robustbench_local.gallery.segment import least_change
from robustbench_local.gallery.sprite import sprite
from robustbench_local.gallery.twins import Twins
from robustbench_local.gallery.views import amplified, heat
from robustbench_local.metrics.rank_correlation import spearman
from robustbench_local.models.priced import priced
from robustbench_local.report.panel import IMAGE, NEAREST, SALIENCY, Panel
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import Row

_UNSEEN = 1e-6  # of a pixel in [0, 1]: float32's rounding is no change
_NEARER = 0.999  # of a distance, below which another is less


@dataclass(frozen=True)
class Reached:
    """How far from image `id` an attack was when the model erred."""

    id: int
    attack: str
    distance: float


def draw_panel(row: Row, twins: Twins, model: nn.Module, classes: Sequence[str], reached: Iterable[Reached]) -> Panel:
    """The panel of a good row. classes: names; beyond them is the rejection, of one that rejects. reached: by attacks
    within the row's threat. Asked of the model are a few dozen answers an image, and two gradients where it grants
    them; of one that is paid for by the question nothing.
    """
    x, x_adv = (torch.from_numpy(each).to(_home(model)) for each in (twins.x, twins.x_adv))
    threat = ThreatModel.parse(row.threat, allow_large=True)
    draws = Draws(0, torch.from_numpy(twins.ids).to(x.device))
    notes = []
    with as_deployed(model), full_float32():
        if priced(model) is None:
            nearest, answers, found = least_change(lambda z: probabilities(model, z, draws).argmax(1), x, x_adv)
            found &= torch.from_numpy(twins.ranks > 0).to(found.device)
        else:
            nearest, found = x_adv, torch.zeros(len(x), dtype=torch.bool)
            answers = torch.from_numpy(twins.after)
            notes.append("No smaller change was looked for: the model is paid for by the question.")
        before, after = (torch.from_numpy(each).to(x.device) for each in (twins.before, twins.after))
        maps, fault = before_and_after(model, (x, before), (x_adv, after), draws)
    notes += [fault] if fault else []
    correlations = [None] * len(x) if maps is None else list(map(_finite, spearman(*(_host(each) for each in maps))))
    change, factors = amplified(x, x_adv)
    columns = {name: picture for name, picture in zip(IMAGE, (x, x_adv, change), strict=True)}
    columns |= {NEAREST: nearest} if bool(found.any()) else {}
    columns |= dict(zip(SALIENCY, map(heat, maps), strict=True)) if maps is not None else {}
    sheet, side = sprite(list(columns.values()))

    best = _best(reached)
    own, distances = threat.distance(x_adv, x).tolist(), threat.distance(nearest, x).tolist()
    samples = []
    for k, id in enumerate(twins.ids.tolist()):
        least, size = best.get(id), (nearest[k] - x[k]).abs()
        samples.append(
            {
                "id": id,
                "label": class_name(int(twins.labels[k]), model, classes),
                "rank": int(twins.ranks[k]),
                "before": _answer(class_name(int(twins.before[k]), model, classes), twins.before_confidence[k]),
                "after": _answer(class_name(int(twins.after[k]), model, classes), twins.after_confidence[k]),
                "factor": _digits(factors[k]),
                "distance": _digits(own[k]),
                "nearest": {
                    "distance": _digits(distances[k]),
                    "levels": _digits(255 * size.max()),
                    "pixels": int((size.amax(0) > _UNSEEN).sum()),
                    "name": class_name(int(answers[k]), model, classes),
                }
                if found[k]
                else None,
                "reached": {"distance": _digits(least.distance), "attack": visible(least.attack)}
                if least is not None and least.distance < _NEARER * (distances[k] if found[k] else own[k])
                else None,
                "correlation": correlations[k],
            }
        )
    return Panel(
        row=row.key,
        attack=visible(row.attack),
        threat=str(threat),
        minimises=row.minimises,
        fell=twins.fell,
        looked=twins.looked,
        side=side,
        columns=list(columns),
        notes=notes,
        samples=samples,
        webp=base64.b64encode(sheet).decode(),
    )


def reached(rows: Iterable[Row], ids: Array, arrays_of: Callable[[Row], dict[str, Array]]) -> list[Reached]:
    """What attacks within one threat needed for the images of these ids. arrays_of: a row's ids, clean, robust,
    distance and, of one that minimises, success.
    """
    found = []
    for row in rows:
        arrays = arrays_of(row)
        errs = arrays["clean"] & (arrays["success"] > 0.5 if row.minimises else ~arrays["robust"])
        for place in np.flatnonzero(errs & np.isin(arrays["ids"], ids)).tolist():
            found.append(Reached(int(arrays["ids"][place]), row.attack, float(arrays["distance"][place])))
    return found


def _best(reached: Iterable[Reached]) -> dict[int, Reached]:
    best: dict[int, Reached] = {}
    for each in reached:
        if each.id not in best or each.distance < best[each.id].distance:
            best[each.id] = each
    return best


def _home(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _host(maps: Tensor) -> Array:
    return np.asarray(maps.flatten(1).cpu())


def _finite(value: float) -> float | None:
    return _digits(value) if np.isfinite(value) else None


def _digits(value: Any) -> float:
    """Four of them: this is for a page, and its rows have the others."""
    return float(f"{float(value):.4g}")


def _answer(name: str, confidence: Any) -> dict[str, Any]:
    return {"name": name, "confidence": _digits(min(1.0, float(confidence)))}
