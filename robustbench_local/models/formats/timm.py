"""timm's classifiers, with their published weights or one's own."""

from __future__ import annotations

from typing import Any

from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.core.model_state import seeded
from robustbench_local.data.vision import import_torchvision
from robustbench_local.models.description import Description
from robustbench_local.models.format import Asked, Format, Loaded
from robustbench_local.models.published import check_may_fetch, in_hub
from robustbench_local.models.weights import FRESH, put_weights


class Timm(Format):
    prefixes = ("timm",)
    summary = "a timm classifier: timm:resnet18.a1_in1k, with weights=PATH or the published ones"

    def load(self, asked: Asked) -> Loaded:
        import_torchvision()  # which timm imports
        try:
            import timm
        except ImportError as error:
            raise ModelError(f'"{asked.spec}" needs timm: pip install robustbench_local[models] ({error})') from error
        if not timm.is_model(asked.name):
            near = did_you_mean(asked.name, timm.list_models())
            raise ModelError(f'timm has no model "{asked.name}"{near}')
        if asked.weights is None:
            check_may_fetch(asked.spec, _fetched(timm.get_pretrained_cfg(asked.name)))
        settings = {} if asked.said.class_count is None else {"num_classes": asked.said.class_count}
        try:
            with seeded(0):
                net = timm.create_model(asked.name, pretrained=asked.weights is None, **settings)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"timm cannot fetch the weights of {asked.name} ({error}): give weights=PATH, or weights=random"
            ) from error
        if asked.weights not in (None, FRESH):
            put_weights(net, asked)
        about = timm.data.resolve_model_data_config(net)
        channels, height, width = about["input_size"]
        shape = (channels, height, width) if net.pretrained_cfg.get("fixed_input_size") else (channels, 0, 0)
        own = asked.weights not in (None, FRESH)  # of such weights nobody says what they were trained on
        normalise = None if own else {"mean": list(about["mean"]), "std": list(about["std"])}
        resize = None if own else int(min(height, width) / about["crop_pct"])
        return Loaded(net, Description(shape=shape, resize=resize, normalise=normalise, classes=net.num_classes))


def _fetched(about: Any) -> bool:
    """Whether weights of that configuration were fetched before, from Hugging Face's hub or elsewhere."""
    from huggingface_hub import try_to_load_from_cache

    files = (about.hf_hub_filename or "model.safetensors", "pytorch_model.bin")
    kept = about.hf_hub_id and any(isinstance(try_to_load_from_cache(about.hf_hub_id, file), str) for file in files)
    return bool(kept) or bool(about.url and in_hub(about.url))
