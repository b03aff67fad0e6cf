"""The checkpoints that come with the package."""

from __future__ import annotations

from torch import nn

from robustbench_local.config.plugins import find_defense
from robustbench_local.models.build import build_model, rebuild
from robustbench_local.models.format import Asked, Format, Loaded
from robustbench_local.models.zoo import ZooEntry, zoo_entry
from robustbench_local.storage.checkpoints import restore


class Zoo(Format):
    prefixes = ("zoo",)
    summary = "a bundled checkpoint: zoo:cifar10/adversarial_training"

    def load(self, asked: Asked) -> Loaded:
        asked.refuse_weights("has its own weights, and others go with an architecture")
        entry = zoo_entry(asked.name)
        net = _net(entry)
        restore(net, entry.state, entry.path)
        return Loaded(net, plain=True)


def _net(entry: ZooEntry) -> nn.Module:
    """The module that the entry's recipe deploys, without its weights; a bare network where it has no recipe."""
    recorded = entry.recipe.get("defense")
    if recorded is None:
        return build_model(entry.architecture)
    ((name, settings),) = recorded.items()
    return rebuild(entry.architecture, find_defense(name, settings))
