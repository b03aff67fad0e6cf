"""The zoo of RobustBench (Croce et al. 2021), where it is installed and the checkpoint is at hand."""

from __future__ import annotations

import os
from pathlib import Path

from robustbench_local.core.errors import ModelError
from robustbench_local.data.vision import import_torchvision
from robustbench_local.models.format import Asked, Format, Loaded

FOLDER = "ROBUSTBENCH_MODELS"  # an environment variable: where its checkpoints are


class RobustBench(Format):
    prefixes = ("robustbench",)
    summary = "a model of RobustBench's zoo: robustbench:cifar10/Linf/Carmon2019Unlabeled"

    def load(self, asked: Asked) -> Loaded:
        asked.refuse_weights("has its own weights")
        data, norm, name = self._parts(asked)
        folder = Path(os.environ.get(FOLDER, "models")).expanduser()
        file = folder / data / norm / f"{name}.pt"
        import_torchvision()
        try:
            from robustbench.utils import load_model
        except ImportError as error:
            raise ModelError(f'"{asked.spec}" needs the package robustbench installed ({error})') from error
        if not file.is_file():
            raise ModelError(
                f'"{asked.spec}" needs its checkpoint at {file}: download it there, or name the folder that holds'
                f" {data}/{norm}/ by the environment variable {FOLDER}"
            )
        if not asked.trust:
            raise ModelError(f"{file} is a pickle, which can run code when it is read: say trust=true if you trust it")
        return Loaded(load_model(model_name=name, dataset=data, threat_model=norm, model_dir=str(folder)))

    def _parts(self, asked: Asked) -> tuple[str, str, str]:
        parts = asked.name.split("/")
        if len(parts) == 1:
            parts = ["cifar10", "Linf", *parts]
        if len(parts) != 3 or not all(parts):
            raise ModelError(f'"{asked.spec}" names no model: write robustbench:cifar10/Linf/NAME')
        return parts[0], parts[1], parts[2]
