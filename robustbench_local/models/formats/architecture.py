"""An architecture of the package, with the weights of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.models.build import build_model
from robustbench_local.models.format import Asked, Format, Loaded
from robustbench_local.models.weights import put_weights
from robustbench_local.models.zoo import zoo_names


class Architecture(Format):
    summary = "an architecture of the package: NAME with weights=PATH"

    def load(self, asked: Asked) -> Loaded:
        if asked.name not in ARCHITECTURES:
            known = [*ARCHITECTURES, *(f"zoo:{name}" for name in zoo_names())]
            file = Path(asked.name).expanduser()
            if file.suffix or file.exists():
                raise ModelError(
                    f'unknown model "{asked.name}": no format reads '
                    + (f"{file.suffix} files" if file.suffix else "it")
                    + ("" if file.exists() else ", and no such file is there")
                    + ". Weights go with an architecture or a function of yours: models=NAME weights=PATH"
                )
            raise ModelError(
                f'unknown model "{asked.name}"{did_you_mean(asked.name, known)}: one of {", ".join(known)},'
                " module:function, or a model's file"
            )
        if asked.weights is None:
            raise ModelError(
                f'"{asked.name}" is an architecture and has no weights yet: give weights=PATH of a checkpoint'
            )
        net = build_model(asked.name)
        put_weights(net, asked)
        return Loaded(net, plain=True)
