"""The model and the images of a row, made again: a row tells how, and its digests tell whether it worked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from typing import Any

from torch import nn

from robustbench_local.config.schema import ModelConfig
from robustbench_local.core.errors import ConfigError, DataError, ModelError
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_data
from robustbench_local.data.transform import Transform, arguments_of
from robustbench_local.evaluation.corrupted_images import CorruptedImages, CorruptionSpec, find_corruption
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import Row
from robustbench_local.training.builder import ModelBuilder

_NAMED = 5  # of what rows name, in one message


def foreign(row: Row) -> list[str]:
    """What making model and images again would import and call, or read, because the row says so.

    Architectures, the zoo, known data sets and installed plug-ins are this machine's own; a function or a path that a
    stranger's row names may be anything.
    """
    about = row.definition
    model, data = _without_variant(row).partition(" (")[0], str(about["data"])
    own = model not in ARCHITECTURES and not model.startswith("zoo:")
    what = "send images to" if "://" in model else "load" if PurePath(model).suffix else "import and call"
    return ([f"{what} {model}"] if own else []) + ([f"read {data}"] if ":" in data else [])


def check_trust(rows: Iterable[Row], trust: bool) -> None:
    """ConfigError that names what rows would have run or read, unless they are trusted."""
    found = list(dict.fromkeys(each for row in rows for each in foreign(row)))
    if found and not trust:
        listed = "; ".join(found[:_NAMED]) + (f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        raise ConfigError(
            f"these rows say what to run here: {listed}. Whoever wrote them decides what that does: give trust"
            " (--trust) if it is your own or you know it"
        )


def model_of(
    row: Row, builder: ModelBuilder, weights: str | None = None, allow_pickle: bool = False, *, trust: bool = False
) -> nn.Module:
    """The deployed model in evaluation mode; ModelError where it would have to be trained or is another one.

    weights: the checkpoint, where the row's model came from one. trust: whether a function that the row names may be
    imported and called; ConfigError where it would have to be, and may not.
    """
    check_trust([row], trust)
    about = row.definition
    name, _, stem = _without_variant(row).partition(" (")
    if stem and weights is None:
        raise ModelError(f"{about['model']} came from a checkpoint of yours: give its path as weights")
    said = dict(about.get("model_about", {})) or None
    config = ModelConfig(
        name, weights if stem else None, allow_pickle, trust=trust, about=said, variant=about.get("variant")
    )
    builder = replace(builder, transform=_transform(row))
    plan = builder.spec(about["data"], config, entry(about["defense"], about["defense_settings"]))
    what = f"{about['model']} with {about['defense']}"
    if builder.needs_training(plan):
        raise ModelError(f"{what} is neither in the zoo nor in this machine's cache: run its grid here first")
    model = builder.build(plan)
    if builder.behaviour(plan) != about.get("behaviour_digest"):
        raise ModelError(f"{what} has other code here than row {row['key']} was measured with: run its grid again")
    if weights_digest(model) != about["weights_digest"]:
        raise ModelError(f"{what} has other weights here than row {row['key']} was measured with: run its grid again")
    return model


def images_of(
    row: Row, builder: ModelBuilder, *, trust: bool = False, names: Sequence[str] = ()
) -> Images | CorruptedImages:
    """The judged images as they arrived; DataError where they are others. trust: whether a path of the row may be read,
    as in model_of. names: of the model's classes, by which they may be numbered.
    """
    check_trust([row], trust)
    about = row.definition
    opened = partial(
        open_data,
        about["data"],
        split=about["split"],
        source=builder.source,
        ids=about["ids"],
        device=builder.device,
        **arguments_of(_transform(row)),
    )
    images = opened()
    if names and images.digest != about["data_digest"] and {*names} & {*images.classes}:
        images = opened(classes=names)
    if images.digest != about["data_digest"]:
        raise DataError(
            f"the images {about['ids']} of {about['data']} {about['split']} are not those of row {row['key']}:"
            " name the source its grid used (source=bundled, or a folder)"
        )
    met = about.get("attack_under")
    if not met:
        return images
    under = CorruptionSpec(met["name"], find_corruption(met["name"], met["settings"]))
    if under.definition(*images.pixels.shape[2:]) != met:
        raise DataError(f"{under} is another corruption here than row {row['key']} met: run its grid again")
    return CorruptedImages(images, under)


def _without_variant(row: Row) -> str:
    """What the model was called, and in parentheses its checkpoint."""
    return row.model.removesuffix(f" {row.definition.get('variant')}")


def _transform(row: Row) -> Transform | None:
    said = row.definition.get("transform", {})
    return Transform.of(said.get("resize"), said.get("crop"))


def entry(label: str, settings: Mapping[str, Any]) -> list[dict[str, dict[str, Any]]]:
    """A defense as a grid writes it, from its label and settings: of "jpeg + trades" they read "jpeg.quality"."""
    names = label.split(" + ")
    if len(names) == 1:
        return [{label: dict(settings)}]
    own = [name if names.count(name) == 1 else f"{name}#{place}" for place, name in enumerate(names, 1)]
    return [
        {name: {key.removeprefix(f"{each}."): value for key, value in settings.items() if key.startswith(f"{each}.")}}
        for name, each in zip(names, own, strict=True)
    ]
