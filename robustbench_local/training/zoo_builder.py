"""A model of the zoo, made: trained by its recipe, stored in half precision, measured as stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from robustbench_local.config import reading
from robustbench_local.config.plugins import find_attack, named
from robustbench_local.config.schema import MakeConfig, ZooConfig
from robustbench_local.config.settings import construct
from robustbench_local.core.defense import is_stochastic
from robustbench_local.core.device import pick_device
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import open_data
from robustbench_local.data.transform import Transform, arguments_of
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models import zoo
from robustbench_local.models.build import rebuild
from robustbench_local.storage import checkpoints
from robustbench_local.training.builder import train
from robustbench_local.training.recipes import metadata, parse_recipe
from robustbench_local.training.turn import my_turn


def make(name: str, overrides: Mapping[str, Any], progress: Progress) -> tuple[Path, dict[str, Any]]:
    """Train the zoo recipe of that name (or of a YAML file) and write its checkpoint; its path and figures.

    Every epoch is saved, and the same call resumes. Figures are those of the stored, half-precision weights on test
    images, which training never sees. Raises ConfigError, PluginError or DataError before anything runs.
    """
    file = reading.find("zoo", name)
    values = reading.read(file, overrides)
    what = f'zoo recipe "{name}"'
    config = construct(MakeConfig, values, what)
    own = {field.name for field in fields(ZooConfig)}
    recipe = parse_recipe({key: value for key, value in values.items() if key in own}, what)
    device = pick_device(config.device)
    attack = find_attack(*named(config.attack, "attack"))
    threat = _threat(config, getattr(recipe.defense, "threat", None), what)
    transform = Transform.of(config.resize, config.crop)
    images = open_data(recipe.data, source=config.source, n=config.n, device=device, **arguments_of(transform))

    stem = name if file.is_relative_to(reading.FOLDER) else file.stem
    checkpoint = (Path(config.folder).expanduser() if config.folder else zoo.ZOO) / f"{stem}.safetensors"
    if config.remeasure:
        state, notes = checkpoints.load(checkpoint)
    else:
        with my_turn(checkpoint, progress):
            net, trainer = train(recipe, source=config.source, transform=transform, device=device, progress=progress)
        state, notes = checkpoints.as_loaded(net), metadata(recipe, trainer)
    stored = rebuild(recipe.architecture, recipe.defense)
    checkpoints.restore(stored, state, checkpoint)
    progress.line(f"measuring {attack} within {threat} on {len(images)} test images")
    verdict = Judge(eot=config.eot)(stored.to(device).eval(), images, attack, threat, progress=progress)
    figures = {
        "clean_accuracy": verdict.clean_accuracy,
        "robust_accuracy": verdict.robust_accuracy,
        "threat": str(threat),
        "attack": str(attack),
        "n": len(images),
        **({"eot": config.eot} if is_stochastic(stored) else {}),
        "flags": list(verdict.flags),
    }
    checkpoints.save(checkpoint, stored, notes | {"figures": json.dumps(figures)})
    return checkpoint, figures


def _threat(config: MakeConfig, trained_for: str | None, what: str) -> ThreatModel:
    text = config.threat or trained_for
    if text is None:
        raise ConfigError(f"{what} does not say within which threat it is measured: give threat=linf:8/255")
    return ThreatModel.parse(text)
