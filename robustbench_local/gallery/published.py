"""Pictures for rows that have none: a few images of each model are attacked once more, the grid is not."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_local.config.plugins import find_attack
from robustbench_local.core.errors import ModelError, RobustBenchError
from robustbench_local.core.escaping import visible
from robustbench_local.core.threat import ThreatModel
from robustbench_local.gallery.again import twins_again
from robustbench_local.gallery.panel import draw_panel, reached
from robustbench_local.gallery.rebuild import check_trust, images_of, model_of
from robustbench_local.gallery.twins import chosen
from robustbench_local.models.classifier import describe
from robustbench_local.models.priced import priced
from robustbench_local.report.panel import keep_panel, read_panel
from robustbench_local.report.results import Results
from robustbench_local.report.words import named
from robustbench_local.storage.row import Row, done
from robustbench_local.training.builder import ModelBuilder

_ARRAYS = ("ids", "clean", "robust", "forwards", "distance", "success", "predicted")


def draw_missing(
    results: Results,
    builder: ModelBuilder,
    most: int,
    *,
    weights: str | None = None,
    allow_pickle: bool = False,
    trust: bool = False,
) -> Iterator[str]:
    """Draw the panels of models that have none, of `most` images each, and say of each what came of it.

    Shown is the strongest attack that can be run once more: none that learns from images of its own, and none that has
    another version here. trust, weights, allow_pickle: as in write_gallery; ConfigError where trust is lacking.
    """
    wanted = [
        (line, own) for table in results.tables() for line in table.lines if (own := _lacking(line.rows, results))
    ]
    check_trust((row for _, own in wanted for row in own), trust)
    for line, own in wanted:
        row = own[0]
        try:
            model = model_of(row, builder, weights, allow_pickle, trust=trust)
            if priced(model) is not None:
                raise ModelError("it is paid for by the question")
            images = images_of(row, builder, trust=trust, names=describe(model).names)
            arrays = results.arrays(row, *_ARRAYS)
            some = chosen(arrays, row.minimises, most)
            found = twins_again(row, some, model, images)
            if found is None:
                continue
            near = reached(own, found.ids, lambda each: results.arrays(each, *_ARRAYS))
            keep_panel(results.stores[row.key], row, draw_panel(row, found, model, images.classes, near))
        except RobustBenchError as error:  # the others can still be drawn
            yield f"{visible(named(line))}, {row.threat}: no pictures: {visible(error)}"
            continue
        other = int((found.after != arrays["predicted"][list(some.places)]).sum()) if "predicted" in arrays else 0
        differs = f"; {other} of them are answered otherwise than the row says" if other else ""
        yield f"{visible(named(line))}, {row.threat}: {len(found.ids)} images of {visible(row.attack)}{differs}"


def _lacking(rows: tuple[Row | None, ...], results: Results) -> list[Row]:
    """The rows of a model that has no pictures, the strongest that can be run once more first; none where it has."""
    good = [row for row in rows if done(row) and row.adaptive and not row.corrupts and "forwards" in row.array_names]
    if any(read_panel(results.stores[row.key], row) is not None for row in good):
        return []
    again = [row for row in good if _runs(row)]
    return sorted(again, key=lambda row: row.results["robust_accuracy"])


def _runs(row: Row) -> bool:
    try:
        attack = find_attack(row.attack, row.definition["attack_settings"])
    except RobustBenchError:  # it is not installed here, or has other settings
        return False
    version = attack.version_in(ThreatModel.parse(row.threat, allow_large=True).norm, row.said("budget"))
    return not attack.own_images and version == row.definition["attack_version"]
