"""The trained checkpoints that come with the package, each with its recipe and figures in its metadata."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.storage.checkpoints import State, load
from robustbench_local.storage.files import Stamp, stamp

ZOO = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class ZooEntry:
    """One checkpoint: models/checkpoints/<data set>/<defense>.safetensors. ModelError where it is damaged."""

    name: str

    @property
    def path(self) -> Path:
        return ZOO / f"{self.name}.safetensors"

    @property
    def metadata(self) -> dict[str, str]:
        """architecture, seed, hardware, minutes, data_digest as text; recipe and figures as JSON."""
        return _opened(self.path, self.name, stamp(self.path))[1]

    @property
    def state(self) -> State:
        """The weights, in float32."""
        return _opened(self.path, self.name, stamp(self.path))[0]

    @property
    def architecture(self) -> str:
        return self.metadata["architecture"]

    @property
    def recipe(self) -> dict[str, Any]:
        """How it was trained: what `experiments.train zoo=NAME` reads to make it again."""
        return dict(json.loads(self.metadata.get("recipe", "{}")))

    @property
    def figures(self) -> dict[str, Any]:
        """Accuracies of the stored weights, as measured when it was made."""
        return dict(json.loads(self.metadata.get("figures", "{}")))


@functools.lru_cache(maxsize=64)
def _opened(path: Path, name: str, seen: Stamp | None) -> tuple[State, dict[str, str]]:
    """Weights and metadata, verified once for as long as the file stays as it is."""
    try:
        return load(path, name=name)
    except ModelError as error:
        raise ModelError(f"the zoo's {name} is damaged, install the package again ({error})") from error


def zoo_names() -> list[str]:
    """Names of the bundled checkpoints, e.g. "cifar10/adversarial_training"."""
    return sorted(path.relative_to(ZOO).with_suffix("").as_posix() for path in ZOO.glob("*/*.safetensors"))


def zoo_entry(name: str) -> ZooEntry:
    """The entry of that name. ModelError, with the names there are, for an unknown one."""
    known = zoo_names()
    if name not in known:
        there = ", ".join(known) or "none is bundled"
        raise ModelError(f'no model "{name}" in the zoo{did_you_mean(name, known)}: {there}')
    return ZooEntry(name)
