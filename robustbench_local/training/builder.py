"""How an architecture and a defense become a deployed model: out of the zoo, out of the cache, or trained now."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustbench_local.config import reading
from robustbench_local.config.plugins import find_defense, named
from robustbench_local.config.schema import ModelConfig, ZooConfig
from robustbench_local.config.settings import construct
from robustbench_local.core.defense import Defense
from robustbench_local.core.device import hardware
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ModelError, did_you_mean
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import Schedule
from robustbench_local.data.load import open_data, training_images_name
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.models.load import behaviour_digest, build_model, load_model, rebuild
from robustbench_local.models.zoo import zoo_entry, zoo_names
from robustbench_local.storage import checkpoints
from robustbench_local.storage.cache_folder import cache_folder
from robustbench_local.storage.row import row_key
from robustbench_local.training.fitted import Fitter
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


def _wrapper(entry: Any) -> tuple[str, Defense]:
    """A part of a composition that is not its last."""
    name, settings = named(entry, "defense")
    defense = find_defense(name, settings)
    if defense.trains:
        raise ConfigError(f"{name} trains the network, which nothing may have changed before: put it last in its list")
    return name, defense


@functools.cache
def recipe_file(name: str) -> dict[str, Any]:
    """What the packaged zoo file of that name says."""
    return reading.read(reading.find("zoo", name), {})


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


@dataclass
class ModelBuilder:
    """Turns blueprints into models, and keeps what it trained in the cache. source: where training images come from."""

    device: torch.device
    source: str | None = None
    progress: Progress = field(default_factory=Progress)
    _finished: dict[tuple[str, str | None], tuple[nn.Module, str | None]] = field(default_factory=dict, repr=False)

    def spec(self, data: str, model: ModelConfig, entry: Any) -> ModelSpec:
        """The model of `entry`, a defense as a grid writes it.

        A bare name of a defense means the zoo's settings for that data set, if it has such a recipe. A list is a
        composition: what comes first meets an image first, and only what comes last may train.
        Raises ConfigError, ModelError or PluginError where there can be no such model.
        """
        *outer, inner = entry if isinstance(entry, list | tuple) and entry else [entry]
        wrappers = tuple(_wrapper(each) for each in outer)
        return replace(self._innermost(data, model, inner), wrappers=wrappers)

    def _innermost(self, data: str, model: ModelConfig, entry: Any) -> ModelSpec:
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
            self._loaded(model)
            return ModelSpec(data, model, name, defense, None)
        if model.name not in ARCHITECTURES:
            raise ModelError(unknown_architecture(model.name))
        defense = find_defense(name, settings)
        base = _house_recipe(data, model.name, name if defense.trains else UNDEFENDED, defense if settings else None)
        if defense.trains and not settings and base is not None and base.defense_name == name:
            defense = base.defense
        trained_name, trained = (name, defense) if defense.trains else (UNDEFENDED, find_defense(UNDEFENDED))
        schedule = base.schedule if base else Schedule()
        if model.schedule:
            schedule = construct(Schedule, asdict(schedule) | model.schedule, f"the schedule of {model.name}")
        seed = base.seed if base and base.architecture == model.name else 0
        recipe = TrainingRecipe(data, model.name, trained_name, trained.as_trained(), schedule, seed)
        return ModelSpec(data, model, name, defense, recipe)

    def needs_training(self, plan: ModelSpec) -> bool:
        """Whether any part of the model is neither finished nor in the zoo nor in the cache."""
        if plan.recipe is not None and self._kept(plan.recipe) is None:
            return True
        return not self._fitter(plan).learnt(plan.around, self._net(plan))

    def build(self, plan: ModelSpec) -> nn.Module:
        """The deployed model, in evaluation mode on the device; trained first where it must be."""
        return self._fitter(plan).wrap(plan.around, self._net(plan))

    def behaviour(self, plan: ModelSpec) -> str | None:
        """What the network of a user's own does besides its weights, see behaviour.py; None of all others."""
        return self._loaded(plan.model)[1] if plan.recipe is None else None

    def build_untrained(self, plan: ModelSpec) -> nn.Module:
        """A model as fast as the deployed one, of which nothing needs to be trained."""
        net = self._loaded(plan.model)[0] if plan.recipe is None else _blank(plan, plan.recipe)
        return self._fitter(plan).build_untrained(plan.around, net)

    def _fitter(self, plan: ModelSpec) -> Fitter:
        return Fitter(plan.data, self.source, self.device, self.progress, self.behaviour(plan))

    def _net(self, plan: ModelSpec) -> nn.Module:
        """What the wrappers go around."""
        if plan.recipe is None:
            return self._loaded(plan.model)[0]
        state = self._kept(plan.recipe)
        if state is None:
            state = self._train(plan.recipe)
        net = _blank(plan, plan.recipe)
        checkpoints.restore(net, state, f"the zoo or the cache for {plan.recipe.defense_name}")
        return net.to(self.device).eval()

    def _kept(self, recipe: TrainingRecipe) -> checkpoints.State | None:
        """What training gave before: of the zoo or of the cache."""
        name = _zoo_match(recipe)
        return checkpoints.cached(self._cached(recipe)) if name is None else zoo_entry(name).state

    def _loaded(self, model: ModelConfig) -> tuple[nn.Module, str | None]:
        """(network, behaviour) of a finished model, loaded once: a user's function may give another at every call."""
        key = (model.name, model.weights)
        if key not in self._finished:
            net = load_model(model.name, weights=model.weights, allow_pickle=model.allow_pickle, device=self.device)
            self._finished[key] = net, behaviour_digest(model.name, net)  # before it is asked, which may change it
        return self._finished[key]

    def _cached(self, recipe: TrainingRecipe) -> Path:
        where = f"{recipe.data}-{recipe.architecture}-{recipe.defense_name}".replace(":", "-").replace("/", "-")
        return cache_folder() / "models" / f"{where}-{row_key(definition(recipe, self.source))}.safetensors"

    def _train(self, recipe: TrainingRecipe) -> checkpoints.State:
        self.progress.line(f"training {recipe.architecture} with {recipe.defense_name} on {recipe.data}")
        net, trainer = train(recipe, source=self.source, device=self.device, progress=self.progress)
        checkpoints.save(self._cached(recipe), net, metadata(recipe, trainer), half=False)
        return net.state_dict()


def train(
    recipe: TrainingRecipe, *, source: str | None, device: torch.device, progress: Progress
) -> tuple[nn.Module, TrainingLoop]:
    """The network that a recipe gives, and its trainer; saves every epoch in the cache, and resumes from there."""
    images = open_data(recipe.data, split="train", source=source, device=device)
    trainer = TrainingLoop(
        images, recipe.schedule, seed=recipe.seed, folder=cache_folder() / "training", progress=progress
    )
    net = build_model(recipe.architecture, seed=recipe.seed)
    draws = Draws(recipe.seed, images.ids[:1]).stream("train")
    return recipe.defense.build(net, trainer, draws), trainer


def _blank(plan: ModelSpec, recipe: TrainingRecipe) -> nn.Module:
    """What training gives, with fresh weights."""
    return rebuild(recipe.architecture, plan.defense if plan.defense.trains else recipe.defense)


def definition(recipe: TrainingRecipe, source: str | None) -> dict[str, Any]:
    """What a trained checkpoint is named by."""
    return {"images": training_images_name(recipe.data, source), "version": recipe.defense.version} | describe(recipe)


def describe(recipe: TrainingRecipe) -> dict[str, Any]:
    """A recipe as a zoo file says it, all settings written out."""
    return {
        "data": recipe.data,
        "architecture": recipe.architecture,
        "defense": {recipe.defense_name: asdict(recipe.defense)},
        "schedule": asdict(recipe.schedule),
        "seed": recipe.seed,
    }


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


def is_finished(model: ModelConfig) -> bool:
    """Whether the model comes with its weights: nothing is to be trained."""
    return model.weights is not None or ":" in model.name


def unknown_architecture(name: str) -> str:
    return (
        f'unknown model "{name}"{did_you_mean(name, ARCHITECTURES)}: one of {", ".join(ARCHITECTURES)},'
        " zoo:NAME or module:function"
    )


def _house_recipe(data: str, architecture: str, defense_name: str, like: Defense | None) -> TrainingRecipe | None:
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


def _zoo_match(recipe: TrainingRecipe) -> str | None:
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
