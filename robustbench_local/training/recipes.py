"""How a network is trained: recipes, the packaged ones, and what a checkpoint says of its own."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from robustbench_local.config import reading
from robustbench_local.config.plugins import find_defense, named
from robustbench_local.config.schema import ZooConfig
from robustbench_local.config.settings import construct
from robustbench_local.core.defense import Defense
from robustbench_local.core.device import hardware
from robustbench_local.core.errors import ConfigError, did_you_mean
from robustbench_local.core.training import Schedule
from robustbench_local.data.load import training_images_name
from robustbench_local.data.transform import Transform
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.models.zoo import zoo_entry, zoo_names
from robustbench_local.training.trainer import TrainingLoop

UNDEFENDED = "none"


@dataclass(frozen=True)
class TrainingRecipe:
    """All that decides what training gives: images, architecture, defense, schedule and seed."""

    data: str
    architecture: str
    defense_name: str
    defense: Defense
    schedule: Schedule
    seed: int = 0


def parse_recipe(values: Mapping[str, Any], what: str) -> TrainingRecipe:
    """The recipe that a zoo file (or a checkpoint's metadata) describes; `what` names it in errors."""
    config = construct(ZooConfig, values, what)
    if config.architecture not in ARCHITECTURES:
        raise ConfigError(f"{what}: {unknown_architecture(config.architecture)}")
    name, settings = named(config.defense, "defense")
    schedule = construct(Schedule, config.schedule, f"the schedule of {what}")
    defense = find_defense(name, settings)
    return TrainingRecipe(config.data, config.architecture, name, defense, schedule, config.seed)


def describe(recipe: TrainingRecipe) -> dict[str, Any]:
    """A recipe as a zoo file says it, all settings written out."""
    return {
        "data": recipe.data,
        "architecture": recipe.architecture,
        "defense": {recipe.defense_name: asdict(recipe.defense)},
        "schedule": asdict(recipe.schedule),
        "seed": recipe.seed,
    }


def definition(recipe: TrainingRecipe, source: str | None, transform: Transform | None = None) -> dict[str, Any]:
    """What a trained checkpoint is named by."""
    images = training_images_name(recipe.data, source, transform)
    return {"images": images, "version": recipe.defense.version} | describe(recipe)


def metadata(recipe: TrainingRecipe, trainer: TrainingLoop) -> dict[str, str]:
    """What a checkpoint says of itself."""
    return {
        "architecture": recipe.architecture,
        "recipe": json.dumps(describe(recipe)),
        "seed": str(recipe.seed),
        "data_digest": trainer.images.digest,
        "hardware": hardware(trainer.images.device),
        "minutes": f"{trainer.minutes:.1f}",
        "epochs": str(len(trainer.history)),
    }


@functools.cache
def recipe_file(name: str) -> dict[str, Any]:
    """What the packaged zoo file of that name says."""
    return reading.read(reading.find("zoo", name), {})


def packaged_recipe(data: str, architecture: str, defense_name: str, like: Defense | None) -> TrainingRecipe | None:
    """The packaged recipe of this data set and defense; of the same architecture first, then one that trains `like`."""
    files = [(name, recipe_file(name)) for name in reading.names("zoo")]
    recipes = [
        parse_recipe(values, f"zoo recipe {name}")
        for name, values in files
        if values["data"] == data and named(values["defense"], "defense")[0] == defense_name
    ]

    def distance(recipe: TrainingRecipe) -> tuple[bool, bool]:
        other = like is not None and recipe.defense.as_trained() != like.as_trained()
        return recipe.architecture != architecture, other

    return min(recipes, key=distance, default=None)


def zoo_match(recipe: TrainingRecipe) -> str | None:
    """The zoo's checkpoint that this very recipe gave, by what the checkpoint says of itself."""
    for name in zoo_names():
        if not name.startswith(f"{recipe.data}/"):
            continue
        values = zoo_entry(name).recipe
        same = named(values["defense"], "defense")[0] == recipe.defense_name
        if same:
            found = parse_recipe(values, f"checkpoint {name}")
            if replace(found, defense=found.defense.as_trained()) == recipe:
                return name
    return None


def unknown_architecture(name: str) -> str:
    return (
        f'unknown model "{name}"{did_you_mean(name, ARCHITECTURES)}: one of {", ".join(ARCHITECTURES)},'
        " zoo:NAME, my_models.py:NAME, torchvision:NAME, timm:NAME or a file (`robustbench-local list models` has all)"
    )
