"""Which model a grid means: an architecture or a finished model, with a defense or several in front."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any

from robustbench_local.config.plugins import find_defense, named
from robustbench_local.config.schema import ModelConfig
from robustbench_local.config.settings import construct
from robustbench_local.core.defense import Defense
from robustbench_local.core.errors import ConfigError, ModelError
from robustbench_local.core.training import Schedule
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.training.recipes import UNDEFENDED, TrainingRecipe, packaged_recipe, unknown_architecture


@dataclass(frozen=True)
class ModelSpec:
    """One deployed model of a grid. recipe is None for a finished model (zoo:, module:function, weights).

    wrappers stand before the defense, by name and from the outermost, which meets an image first, inwards.
    """

    data: str
    model: ModelConfig
    defense_name: str
    defense: Defense
    recipe: TrainingRecipe | None
    wrappers: tuple[tuple[str, Defense], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, Defense], ...]:
        return (*self.wrappers, (self.defense_name, self.defense))

    @property
    def around(self) -> tuple[tuple[str, Defense], ...]:
        """Those that go around a network that is trained or finished."""
        return tuple(part for part in self.parts if not part[1].trains)

    @property
    def label(self) -> str:
        """What tables call it: "jpeg + adversarial_training"."""
        return " + ".join(name for name, _ in self.parts)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings; of several parts as "jpeg.quality", or "jpeg#1.quality" where a name comes twice."""
        if not self.wrappers:
            return asdict(self.defense)
        names = [name for name, _ in self.parts]
        own = [name if names.count(name) == 1 else f"{name}#{place}" for place, name in enumerate(names, 1)]
        every = zip(own, (asdict(defense) for _, defense in self.parts), strict=True)
        return {f"{name}.{key}": value for name, settings in every for key, value in settings.items()}

    @property
    def families(self) -> list[str]:
        """What kind of defense each part is."""
        return [defense.family for _, defense in self.parts]

    @property
    def version(self) -> int | list[int]:
        versions = [defense.version for _, defense in self.parts]
        return versions if self.wrappers else versions[0]


def model_spec(data: str, model: ModelConfig, entry: Any) -> ModelSpec:
    """The model of `entry`, a defense as a grid writes it.

    A bare name of a defense means the zoo's settings for that data set, if it has such a recipe. A list is a
    composition: what comes first meets an image first, and only what comes last may train.
    Raises ConfigError, ModelError or PluginError where there can be no such model.
    """
    *outer, inner = entry if isinstance(entry, list | tuple) and entry else [entry]
    wrappers = tuple(_wrapper(each) for each in outer)
    return replace(_innermost(data, model, inner), wrappers=wrappers)


def _innermost(data: str, model: ModelConfig, entry: Any) -> ModelSpec:
    name, settings = named(entry, "defense")
    if is_finished(model):
        if model.schedule:
            raise ConfigError(f"{model.name} is a finished model: its schedule would train nothing")
        defense = find_defense(name, settings)
        if defense.trains and name != UNDEFENDED:
            raise ConfigError(
                f"defense {name} trains a network of its own, and {model.name} is a finished model:"
                " give it defenses=[none]"
            )
        return ModelSpec(data, model, name, defense, None)
    if model.name not in ARCHITECTURES:
        raise ModelError(unknown_architecture(model.name))
    defense = find_defense(name, settings)
    base = packaged_recipe(data, model.name, name if defense.trains else UNDEFENDED, defense if settings else None)
    if defense.trains and not settings and base is not None and base.defense_name == name:
        defense = base.defense
    trained_name, trained = (name, defense) if defense.trains else (UNDEFENDED, find_defense(UNDEFENDED))
    schedule = base.schedule if base else Schedule()
    if model.schedule:
        schedule = construct(Schedule, asdict(schedule) | model.schedule, f"the schedule of {model.name}")
    seed = base.seed if base and base.architecture == model.name else 0
    recipe = TrainingRecipe(data, model.name, trained_name, trained.as_trained(), schedule, seed)
    return ModelSpec(data, model, name, defense, recipe)


def _wrapper(entry: Any) -> tuple[str, Defense]:
    """A part of a composition that is not its last."""
    name, settings = named(entry, "defense")
    defense = find_defense(name, settings)
    if defense.trains:
        raise ConfigError(f"{name} trains the network, which nothing may have changed before: put it last in its list")
    return name, defense


def is_finished(model: ModelConfig) -> bool:
    """Whether the model comes with its weights: nothing is to be trained."""
    return model.weights is not None or ":" in model.name or bool(PurePath(model.name).suffix)
