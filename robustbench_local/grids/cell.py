"""One cell of a grid, and all that decides its row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from robustbench_local.config.ranges import Counting
from robustbench_local.config.schema import GridConfig
from robustbench_local.config.settings import defaults
from robustbench_local.core.attack import Attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.defense import is_stochastic, undefended
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.images import Images
from robustbench_local.evaluation.corrupted_images import CorruptionSpec
from robustbench_local.evaluation.judge import DRAWS, EOT, Judge
from robustbench_local.grids.certifying import Certifying
from robustbench_local.models.load import said_of
from robustbench_local.storage.row import CERTIFICATE, row_key
from robustbench_local.training.spec import ModelSpec


@dataclass(frozen=True)
class Cell:
    """One attack on one deployed model, within one threat model, from one seed."""

    model: ModelSpec
    attack_name: str
    attack: Attack
    threat: ThreatModel
    seed: int
    count: Counting
    adaptive: bool = True
    n: int | None = None  # images, where its attack is given fewer than the grid has
    eot: int = EOT  # of a random model: the draws per query
    draws: int = DRAWS  # and per verdict
    random_models: bool = True  # whether it is run on those as well

    def __str__(self) -> str:
        model = self.model
        if isinstance(self.attack, Certifying):
            what = f"{self.attack_name} {self.attack.method} {self.threat}" + (f" n {self.n}" if self.n else "")
            return f"{model.data} {model.model.label} {model.label} | {what}"
        settings = ", ".join(f"{key}={value}" for key, value in changed_settings(self.attack).items())
        attack = f"{self.attack_name}({settings})" if settings else self.attack_name
        rest = f"{attack} {self.threat} seed {self.seed}" + (f" count {self.count}" if self.count != "all" else "")
        rest += f" n {self.n}" if self.n else ""
        return f"{model.data} {model.model.label} {model.label} | {'' if self.adaptive else 'naive '}{rest}"

    def judge(self, config: GridConfig) -> Judge:
        """ConfigError where the grid's settings do not go together."""
        return Judge(
            seed=self.seed,
            count=self.count,
            precision=config.precision,
            targets=config.targets,
            budget=config.budget,
            eot=self.eot,
            draws=self.draws,
            batch_size=config.batch_size,
            adaptive=self.adaptive,
            attack_under=config.attack_under,
            allow_chance=config.allow_chance,
        )


@dataclass(frozen=True)
class Task:
    """A cell with what it is run on, apart from the model itself: enough to name its row, and to make it anywhere.

    weights_digest: of the deployed model, None where it could not be built. attacker: the images that an attack may
    learn from. behaviour_digest: of a user's own model, see models/behaviour.py. origin: what a model that was trained
    is named by on every machine, see ModelBuilder.origin.
    """

    grid: str
    cell: Cell
    config: GridConfig
    images: Images
    weights_digest: str | None
    attacker: Images | None = None
    behaviour_digest: str | None = None
    origin: str | None = None

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that decides the result, as the row records it and its key is made from."""
        cell, config, images = self.cell, self.config, self.images
        model, attack = cell.model, cell.attack
        found = {
            "data": images.name,
            "split": images.split,
            "data_digest": images.digest,
            "ids": _compact(images.ids),
            "model": model.model.label,
            "weights_digest": self.weights_digest,
            "defense": model.label,
            "defense_settings": model.settings,
            "defense_version": model.version,
            "attack": cell.attack_name,
            "attack_settings": asdict(attack),
            "attack_version": attack.version_in(cell.threat.norm, config.budget),
            "access": attack.access.name.lower(),
            "threat": str(cell.threat),
            "eps": cell.threat.eps,
            "seed": cell.seed,
            "count": cell.count,
            "precision": config.precision,
            "targets": config.targets,
            "budget": config.budget,
            "eot": cell.eot,
            "draws": cell.draws,
        }
        if images.transform is not None:
            found["transform"] = images.transform.definition()
        if self.behaviour_digest is not None:
            found["behaviour_digest"] = self.behaviour_digest
        if said := said_of(model.model.normalise, model.model.expects, model.model.about).behaviour():
            found["model_about"] = said
        if model.model.variant is not None:
            found["variant"] = model.model.variant
        if not cell.adaptive:
            found["adaptive"] = False
        if self.attacker is not None and attack.own_images:
            found["attacker_digest"] = self.attacker.digest
        if sources := attack.sources():
            found["attack_sources"] = sources
        if isinstance(attack, Corruption):
            found["corruption"] = attack.at(*images.pixels.shape[2:]).benchmark or "other"
        if config.attack_under is not None:
            found["attack_under"] = CorruptionSpec.parse(config.attack_under).definition(*images.pixels.shape[2:])
        if isinstance(attack, Certifying):  # how attacks are judged is of no account
            return {key: found[key] for key in CERTIFICATE if key in found} | attack.definition()
        return found

    @cached_property
    def key(self) -> str:
        """The name of its row."""
        return row_key(self.definition)

    @property
    def judge(self) -> Judge:
        return self.cell.judge(self.config)


def applicable(cells: Iterable[Cell], model: nn.Module) -> list[Cell]:
    """Without those that leave random models out, of such; and without the naive cells of a model of which no part
    could be left out: they would only repeat the others.
    """
    chosen = [cell for cell in cells if cell.random_models or not is_stochastic(model)]
    return [cell for cell in chosen if cell.adaptive or undefended(model) is not None]


def _compact(ids: torch.Tensor) -> str | list[int]:
    """ "0:1000" for a contiguous run, the list otherwise."""
    first, count = int(ids[0]), len(ids)
    if torch.equal(ids, torch.arange(first, first + count, device=ids.device)):
        return f"{first}:{first + count}"
    return [int(i) for i in ids.tolist()]


def changed_settings(attack: Attack) -> dict[str, Any]:
    """The settings that are not the attack's defaults."""
    usual = defaults(type(attack))
    return {name: value for name, value in asdict(attack).items() if value != usual[name]}
