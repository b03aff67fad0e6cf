"""The trained checkpoints that come with the package, each with its recipe and figures in its metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from robustbench_local.errors import ModelError, did_you_mean

ZOO = Path(__file__).parent.parent / "zoo"


@dataclass(frozen=True)
class ZooEntry:
    """One checkpoint: robustbench_local/zoo/<data set>/<defense>.safetensors. ModelError where it is damaged."""

    name: str

    @property
    def path(self) -> Path:
        return ZOO / f"{self.name}.safetensors"

    @cached_property
    def metadata(self) -> dict[str, str]:
        """architecture, seed, hardware, minutes, data_digest as text; recipe and figures as JSON."""
        try:
            with safe_open(self.path, framework="pt") as file:
                return file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ModelError(f"the checkpoint {self.path} is damaged ({error}): install the package again") from error

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
