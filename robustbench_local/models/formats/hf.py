"""Image classifiers of transformers, from a folder that save_pretrained wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustbench_local.core.errors import ModelError
from robustbench_local.data.vision import import_torchvision
from robustbench_local.models.description import Description
from robustbench_local.models.format import Asked, Format, Loaded

_PREPROCESSOR = "preprocessor_config.json"


class HuggingFace(Format):
    prefixes = ("hf",)
    summary = "an image classifier of transformers: hf:FOLDER"

    def load(self, asked: Asked) -> Loaded:
        asked.refuse_weights("is a folder with its own weights")
        folder = Path(asked.name).expanduser()
        if not (folder / "config.json").is_file():
            raise ModelError(f'"{asked.spec}" names no folder with a config.json: save_pretrained(FOLDER) writes one')
        for file in folder.rglob("*"):
            if not file.resolve().is_relative_to(folder.resolve()):
                raise ModelError(f"{file} is a link out of {folder}: put the file itself there")
        import_torchvision()
        try:
            from transformers import AutoModelForImageClassification
        except ImportError as error:
            needs = "transformers: pip install robustbench_local[models]"
            raise ModelError(f'"{asked.spec}" needs {needs} ({error})') from error
        net = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=None if asked.trust else True
        )
        names = net.config.id2label
        classes = [str(names[key]) for key in sorted(names)]
        return Loaded(net.eval(), Description(classes=classes, **_preprocessing(folder, net.config)))


def _preprocessing(folder: Path, config: Any) -> dict[str, Any]:
    """Shape and normalisation, as far as the folder says them."""
    found: dict[str, Any] = {}
    side, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    if isinstance(side, int):
        found["shape"] = (channels, side, side)
    elif isinstance(side, list | tuple):
        found["shape"] = (channels, *side)
    if (folder / _PREPROCESSOR).is_file():
        about = json.loads((folder / _PREPROCESSOR).read_text(encoding="utf-8"))
        if about.get("do_normalize", True) and "image_mean" in about:
            found["normalise"] = {"mean": about["image_mean"], "std": about["image_std"]}
        if about.get("do_rescale") is False:
            found["expects"] = "0-255"
    return found
