"""The images behind the numbers: those broken first, last and never, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import RobustBenchError, StoreError
from robustbench_local.core.escaping import visible
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.images import Images
from robustbench_local.evaluation.corrupted_images import CorruptedImages
from robustbench_local.gallery.answers import class_name, probabilities
from robustbench_local.gallery.rebuild import check_trust, images_of, model_of
from robustbench_local.gallery.saliency import before_and_after
from robustbench_local.gallery.views import Sample, View, change, heat, picture
from robustbench_local.models.classifier import describe
from robustbench_local.report.page import environment, policy
from robustbench_local.report.results import Results
from robustbench_local.report.table import robust_tables
from robustbench_local.report.text import percent
from robustbench_local.report.words import named, norm_name, within
from robustbench_local.report.write import GALLERY
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.row import Row, done
from robustbench_local.training.builder import ModelBuilder

EACH = 3  # images of each fate


@dataclass(frozen=True)
class Room:
    """The samples of one model within one threat. note: what could not be shown."""

    title: str
    attack: str
    samples: tuple[Sample, ...]
    note: str


def write_gallery(
    results: Results,
    folder: Path,
    builder: ModelBuilder,
    *,
    each: int = EACH,
    weights: str | None = None,
    allow_pickle: bool = False,
    trust: bool = False,
) -> Path:
    """Write gallery.html into a folder and return its path.

    Shown is, per model and threat, the strongest attack whose images were kept. StoreError where no row kept any
    (save=x_adv); ModelError or DataError where no model or no images can be had that are those of the rows. trust:
    whether functions that rows name may be imported and called, and paths read; without it that is a ConfigError.
    """
    check_trust((row for row in results.rows if _kept(row)), trust)
    rooms: list[Room] = []
    faults: list[RobustBenchError] = []
    for table in robust_tables(results.rows, results.robust_shares):
        for line in table.lines:
            kept = [row for row in line.rows if row is not None and _kept(row)]
            if kept:
                row = min(kept, key=lambda row: row.results["robust_accuracy"])
                title = f"{table.data}, {within(table.threat)}: {named(line)}"
                try:
                    model = model_of(row, builder, weights, allow_pickle, trust=trust)
                    images = images_of(row, builder, trust=trust, names=describe(model).names)
                except RobustBenchError as error:  # the others can still be shown
                    faults.append(error)
                    rooms.append(Room(title, visible(row.attack), (), visible(error)))
                    continue
                with as_deployed(model), full_float32():
                    rooms.append(_room(title, row, model, images, results, each))
    if not rooms:
        raise StoreError(f"no row in {folder.absolute()} kept its images: run the grid with save=x_adv")
    if len(faults) == len(rooms):
        raise faults[0]
    text = (
        environment()
        .get_template("gallery.html.j2")
        .render(title=visible(folder.resolve().name), rooms=rooms, policy=policy("'none'"))
    )
    path = folder / GALLERY
    with whole_file(path) as file:
        file.write(text.encode())
    return path


def _kept(row: Row) -> bool:
    return done(row) and "x_adv" in row.array_names


def _room(
    title: str, row: Row, model: nn.Module, images: Images | CorruptedImages, results: Results, each: int
) -> Room:
    threat = ThreatModel.parse(row.threat, allow_large=True)
    arrays = results.arrays(row, "clean", "robust", "forwards")
    places = list(_chosen(arrays["clean"], arrays["robust"], arrays["forwards"], each))
    rows = torch.tensor([place for place, _ in places], device=images.ids.device)
    x, y, draws = images[rows], images.labels[rows], Draws(0, images.ids[rows])
    x_adv = _saved(results, row, rows).to(x)
    nearest, found = _nearest(row, model, x, y, rows, threat, draws, results)
    before, after, least = (probabilities(model, z, draws) for z in (x, x_adv, nearest))
    maps, note = before_and_after(model, (x, before.argmax(1)), (x_adv, after.argmax(1)), draws)
    heats = [] if maps is None else list(map(heat, maps))
    samples = []
    for k, (place, fate) in enumerate(places):
        views = [
            View("clean", picture(x[k]), _said(before[k], model, images.classes)),
            View(
                "attacked",
                picture(x_adv[k]),
                (*_said(after[k], model, images.classes), _length(threat, x_adv[k], x[k])),
            ),
            change(x[k], x_adv[k]),
        ]
        if heats:
            views += [
                View("saliency, clean", picture(heats[0][k]), ("for its answer",)),
                View("saliency, attacked", picture(heats[1][k]), ("for its answer",)),
            ]
        if found[k]:
            said = (*_said(least[k], model, images.classes), _length(threat, nearest[k], x[k]))
            views.append(View("nearest error found", picture(nearest[k]), said))
        own = int(images.ids[place])
        samples.append(Sample(own, visible(images.classes[int(y[k])]), fate, tuple(views)))
    return Room(title, visible(row.attack), tuple(samples), note)


def _chosen(
    clean: npt.NDArray[Any], robust: npt.NDArray[Any], forwards: npt.NDArray[Any], each: int
) -> Iterator[tuple[int, str]]:
    """(place, fate): of what was right, the first to be broken, the last, and some that are robust."""
    broken = np.flatnonzero(clean & ~robust)
    broken = broken[np.argsort(forwards[broken], kind="stable")]
    first, last = broken[:each], broken[max(each, len(broken) - each) :]
    for fate, places in (
        ("broken first", first),
        ("broken last", last),
        ("robust", np.flatnonzero(clean & robust)[:each]),
    ):
        for place in places.tolist():
            passes = f", after {int(forwards[place])} forward passes" if fate != "robust" else ""
            yield place, f"{fate}{passes}"


def _nearest(
    row: Row, model: nn.Module, x: Tensor, y: Tensor, rows: Tensor, threat: ThreatModel, draws: Draws, results: Results
) -> tuple[Tensor, Tensor]:
    """(images, found (n,)): over all rows of this model that kept images, the nearest that it gets wrong."""
    best, distance = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
    for other in results.rows:
        if _kept(other) and other.of_group() == row.of_group():
            tried = _saved(results, other, rows).to(x)
            length = threat.distance(tried, x)
            nearer = (probabilities(model, tried, draws).argmax(1) != y) & (length < distance)
            best[nearer], distance[nearer] = tried[nearer], length[nearer]
    return best, distance.isfinite()


def _saved(results: Results, row: Row, rows: Tensor) -> Tensor:
    """The adversarial images (n, C, H, W) of a good row at these places (n,)."""
    return torch.from_numpy(results.array_rows(row, "x_adv", rows.tolist()))


def _said(answer: Tensor, model: nn.Module, classes: Sequence[str]) -> tuple[str, ...]:
    """ "cat, 97.3 %" of one image's probabilities."""
    best = int(answer.argmax())
    return (f"{class_name(best, model, classes)}, {percent(float(answer[best]))}\u00a0%",)


def _length(threat: ThreatModel, x_adv: Tensor, x: Tensor) -> str:
    return f"{norm_name(threat.norm)} distance {float(threat.distance(x_adv[None], x[None])[0]):.4g}"
