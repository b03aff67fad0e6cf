"""How a specification becomes a deployed model: out of the zoo, out of the cache, or trained now."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustbench_local.config.schema import ModelConfig
from robustbench_local.core.access import Access, granted
from robustbench_local.core.draws import Draws
from robustbench_local.core.progress import Progress
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_data, training_images_name
from robustbench_local.data.transform import Transform, arguments_of
from robustbench_local.evaluation.budget import queries_per_image
from robustbench_local.models.build import build_model, rebuild
from robustbench_local.models.classifier import describe
from robustbench_local.models.description import Description
from robustbench_local.models.load import open_model, said_of
from robustbench_local.models.variants import check_variant, make_variant, needs_calibration
from robustbench_local.models.zoo import zoo_entry
from robustbench_local.storage import checkpoints
from robustbench_local.storage.cache_folder import cache_folder
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import row_key
from robustbench_local.training.calibration import calibration_images
from robustbench_local.training.fitted import Fitter
from robustbench_local.training.recipes import TrainingRecipe, definition, metadata, zoo_match
from robustbench_local.training.spec import ModelSpec, model_spec
from robustbench_local.training.trainer import TrainingLoop
from robustbench_local.training.turn import my_turn


@dataclass
class ModelBuilder:
    """Turns specifications into models, and keeps what it trained in the cache.

    source, transform: where training images come from, and what becomes of photographs. patient: where another process
    trains what is asked for, wait for it; otherwise BusyError.
    """

    device: torch.device
    source: str | None = None
    progress: Progress = field(default_factory=Progress)
    transform: Transform | None = None
    patient: bool = True
    _finished: dict[str, tuple[nn.Module, str | None]] = field(default_factory=dict, repr=False)
    _variants: dict[tuple[str, ...], nn.Module] = field(default_factory=dict, repr=False)

    def spec(self, data: str, model: ModelConfig, entry: Any) -> ModelSpec:
        """As model_spec; a finished model is loaded, so that one that cannot be is known of before anything runs."""
        spec = model_spec(data, model, entry)
        if model.variant is not None:
            check_variant(model.variant)
        if spec.recipe is None:
            self._loaded(model)
        return spec

    def needs_training(self, spec: ModelSpec) -> bool:
        """Whether any part of the model is neither finished nor in the zoo nor in the cache."""
        if spec.recipe is not None and self._kept(spec.recipe) is None:
            return True
        return not self._fitter(spec).learnt(spec.around, self._net(spec))

    def kept(self, spec: ModelSpec) -> list[Path]:
        """The files of the cache that hold what was trained or fitted for the model; those that are there."""
        if self.origin(spec) is None or (spec.recipe is not None and self._kept(spec.recipe) is None):
            return []
        trained = [] if spec.recipe is None or zoo_match(spec.recipe) else [self._cached(spec.recipe)]
        fitted = filter(None, self._fitter(spec).files(spec.around, self._net(spec)))
        return [file for file in (*trained, *fitted) if file.exists()]

    def build(self, spec: ModelSpec) -> nn.Module:
        """The deployed model, in evaluation mode on the device; trained first where it must be."""
        return self._fitter(spec).wrap(spec.around, self._net(spec))

    def access(self, spec: ModelSpec) -> Access:
        """What the network lets an attacker have; one that is trained here shows everything."""
        return granted(self._loaded(spec.model)[0]) if spec.recipe is None else Access.GRADIENTS

    def described(self, spec: ModelSpec) -> Description:
        """What a finished network says of itself; one that is trained here says nothing."""
        return describe(self._loaded(spec.model)[0]) if spec.recipe is None else Description()

    def behaviour(self, spec: ModelSpec) -> str | None:
        """What the network of a user's own does besides its weights, see behaviour.py; None of all others."""
        return self._loaded(spec.model)[1] if spec.recipe is None else None

    def queries_per_image(self, spec: ModelSpec) -> int | None:
        """How often the network may be asked about one image, where that is limited."""
        return queries_per_image(self._loaded(spec.model)[0]) if spec.recipe is None else None

    def origin(self, spec: ModelSpec) -> str | None:
        """What names a model of which something is trained or fitted, on whatever machine: 24 hex digits; else None.

        The same recipe gives other weights on other hardware, and so another weights digest.
        """
        recipe = None if spec.recipe is None or zoo_match(spec.recipe) else spec.recipe
        variant = spec.model.variant
        calibrated = variant is not None and needs_calibration(variant)
        learns = recipe is not None or any(defense.learns for _, defense in spec.around)
        if not learns and not calibrated:
            return None
        made = self._made(recipe) if recipe else {"weights": weights_digest(self._float_net(spec))}
        if variant is not None:
            made |= {"variant": variant}
            made |= {"calibration": self._calibration(spec).digest} if calibrated else {}
        parts = [{name: asdict(defense), "version": defense.version} for name, defense in spec.around]
        names = self.described(spec).names
        images = training_images_name(spec.data, self.source, self.transform, names) if learns else None
        return row_key({"net": made, "parts": parts, "images": images})

    def build_untrained(self, spec: ModelSpec) -> nn.Module:
        """A model as fast as the deployed one, of which nothing needs to be trained."""
        net = self._loaded(spec.model)[0] if spec.recipe is None else _blank(spec, spec.recipe)
        return self._fitter(spec).build_untrained(spec.around, self._variant(spec, net))

    def _fitter(self, spec: ModelSpec) -> Fitter:
        names, behaviour = self.described(spec).names, self.behaviour(spec)
        return Fitter(
            spec.data, self.source, self.device, self.progress, behaviour, self.transform, names, self.patient
        )

    def _net(self, spec: ModelSpec) -> nn.Module:
        """What the wrappers go around."""
        if spec.model.variant is None:
            return self._float_net(spec)
        key = repr(spec.model), repr(spec.recipe), spec.data, repr(self.transform)
        if key not in self._variants:
            self._variants[key] = self._variant(spec, self._float_net(spec))
        return self._variants[key]

    def _variant(self, spec: ModelSpec, net: nn.Module) -> nn.Module:
        """The network as the model says that it is shipped."""
        variant = spec.model.variant
        if variant is None:
            return net
        return make_variant(net, variant, self._calibration(spec)[:] if needs_calibration(variant) else None)

    def _calibration(self, spec: ModelSpec) -> Images:
        return calibration_images(spec.data, self.source, self.transform, self.device)

    def _float_net(self, spec: ModelSpec) -> nn.Module:
        """The network as it was trained or loaded."""
        if spec.recipe is None:
            return self._loaded(spec.model)[0]
        state = self._kept(spec.recipe)
        if state is None:
            state = self._train(spec.recipe)
        net = _blank(spec, spec.recipe)
        checkpoints.restore(net, state, f"the zoo or the cache for {spec.recipe.defense_name}")
        return net.to(self.device).eval()

    def _kept(self, recipe: TrainingRecipe) -> checkpoints.State | None:
        """What training gave before: of the zoo or of the cache."""
        name = zoo_match(recipe)
        return checkpoints.cached(self._cached(recipe)) if name is None else zoo_entry(name).state

    def _loaded(self, model: ModelConfig) -> tuple[nn.Module, str | None]:
        """(network, behaviour) of a finished model, loaded once: a user's function may give another at every call."""
        key = repr(replace(model, variant=None))  # a variant is made of the very same model
        if key not in self._finished:
            self._finished[key] = open_model(
                model.name,
                self.device,
                weights=model.weights,
                allow_pickle=model.allow_pickle,
                trust=model.trust,
                said=said_of(model.normalise, model.expects, model.about),
            )
        return self._finished[key]

    def _made(self, recipe: TrainingRecipe) -> dict[str, Any]:
        return definition(recipe, self.source, self.transform)

    def _cached(self, recipe: TrainingRecipe) -> Path:
        where = f"{recipe.data}-{recipe.architecture}-{recipe.defense_name}".replace(":", "-").replace("/", "-")
        return cache_folder() / "models" / f"{where}-{row_key(self._made(recipe))}.safetensors"

    def _train(self, recipe: TrainingRecipe) -> checkpoints.State:
        file = self._cached(recipe)
        with my_turn(file, self.progress, self.patient):
            if (made := checkpoints.cached(file)) is not None:  # by whoever had the turn before
                return made
            self.progress.line(f"training {recipe.architecture} with {recipe.defense_name} on {recipe.data}")
            net, trainer = train(
                recipe, source=self.source, transform=self.transform, device=self.device, progress=self.progress
            )
            checkpoints.save(file, net, metadata(recipe, trainer), half=False)
        return net.state_dict()


def train(
    recipe: TrainingRecipe,
    *,
    source: str | None,
    device: torch.device,
    progress: Progress,
    transform: Transform | None = None,
) -> tuple[nn.Module, TrainingLoop]:
    """The network that a recipe gives, and its trainer; saves every epoch in the cache, and resumes from there.

    What is saved lies in a folder of this recipe's: one of another version of its defense is another.
    """
    images = open_data(recipe.data, split="train", source=source, device=device, **arguments_of(transform))
    folder = cache_folder() / "training" / row_key(definition(recipe, source, transform))
    trainer = TrainingLoop(images, recipe.schedule, seed=recipe.seed, folder=folder, progress=progress)
    net = build_model(recipe.architecture, seed=recipe.seed)
    draws = Draws(recipe.seed, images.ids[:1]).stream("train")
    return recipe.defense.build(net, trainer, draws), trainer


def _blank(spec: ModelSpec, recipe: TrainingRecipe) -> nn.Module:
    """What training gives, with fresh weights."""
    return rebuild(recipe.architecture, spec.defense if spec.defense.trains else recipe.defense)
