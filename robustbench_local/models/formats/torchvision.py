"""torchvision's classifiers, with their published weights or one's own."""

from __future__ import annotations

from typing import Any

from torch import nn

from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.core.model_state import seeded
from robustbench_local.data.vision import import_torchvision
from robustbench_local.models.description import Description
from robustbench_local.models.format import Asked, Format, Loaded
from robustbench_local.models.published import check_may_fetch, in_hub
from robustbench_local.models.weights import FRESH, put_weights


class Torchvision(Format):
    prefixes = ("torchvision",)
    summary = "a torchvision classifier: torchvision:resnet50, with weights=PATH or the published ones"

    def load(self, asked: Asked) -> Loaded:
        models = import_torchvision().models
        known = models.list_models(module=models)
        if asked.name not in known:
            raise ModelError(f'torchvision has no classifier "{asked.name}"{did_you_mean(asked.name, known)}')
        classes = asked.said.class_count
        settings = {} if classes is None else {"num_classes": classes}
        if asked.weights is None:
            published = models.get_model_weights(asked.name).DEFAULT
            check_may_fetch(asked.spec, in_hub(published.url))
            try:
                return Loaded(models.get_model(asked.name, weights=published), _published(published))
            except OSError as error:
                raise ModelError(
                    f"torchvision cannot fetch the published weights of {asked.name} ({error}): give weights=PATH of"
                    f" {published.url.rsplit('/', 1)[-1]} or of your own, or weights=random"
                ) from error
        with seeded(0):
            net: nn.Module = models.get_model(asked.name, weights=None, **settings)
        if asked.weights != FRESH:
            put_weights(net, asked)
        return Loaded(net, Description(classes=classes))


def _published(weights: Any) -> Description:
    """What torchvision says of published weights: the images that they were measured on."""
    preset = weights.transforms()
    (side,) = preset.crop_size
    return Description(
        shape=(3, side, side),
        resize=preset.resize_size[0],
        normalise={"mean": list(preset.mean), "std": list(preset.std)},
        classes=list(weights.meta["categories"]),
    )
