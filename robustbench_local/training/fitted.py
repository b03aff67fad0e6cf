"""Defenses around a network that stays as it is. What one of them learns from training images is kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from robustbench_local.core.defense import Defense
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import evaluating
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import NoTraining, Schedule
from robustbench_local.data.load import open_numbered, training_images_name
from robustbench_local.data.transform import Transform, arguments_of
from robustbench_local.storage import checkpoints
from robustbench_local.storage.cache_folder import cache_folder
from robustbench_local.storage.row import row_key
from robustbench_local.training.trainer import TrainingLoop
from robustbench_local.training.turn import my_turn

Parts = Sequence[tuple[str, Defense]]  # by name, from the outermost, which meets an image first, inwards


@dataclass(frozen=True)
class Fitter:
    """Puts wrappers around networks for one data set.

    source, transform: where its training images come from, and what becomes of photographs. behaviour: of a user's own
    network, what it does besides its weights. names: of its classes, by which images of a user's own are numbered.
    patient: see ModelBuilder.
    """

    data: str
    source: str | None
    device: torch.device
    progress: Progress
    behaviour: str | None = None
    transform: Transform | None = None
    names: Sequence[str] = ()
    patient: bool = True

    def wrap(self, parts: Parts, net: nn.Module) -> nn.Module:
        """The deployed model. A part that is not in the cache yet learns now."""
        kept = self.files(parts, net)
        for place, (name, defense) in reversed(list(enumerate(parts))):
            file = kept[place]
            if file is None:
                net = defense.build(net, NoTraining(), self._draws())
            else:
                net = self._with_state(name, defense, net, file)
        return evaluating(net.to(self.device))

    def _with_state(self, name: str, defense: Defense, net: nn.Module, file: Path) -> nn.Module:
        """The part with what it learnt, now or before."""
        state = checkpoints.cached(file)
        if state is None:
            with my_turn(file, self.progress, self.patient):
                state = checkpoints.cached(file)  # by whoever had the turn before
                if state is None:
                    return self._learnt_now(name, defense, net, file)
        net = defense.build(net, NoTraining(), self._draws())
        checkpoints.restore(net, state, file)
        return net

    def _learnt_now(self, name: str, defense: Defense, net: nn.Module, file: Path) -> nn.Module:
        self.progress.line(f"fitting {name} to training images of {self.data}")
        read = arguments_of(self.transform)
        read |= {"split": "train", "source": self.source, "device": self.device}
        images = open_numbered(self.names, self.data, **read)
        trainer = TrainingLoop(images, Schedule(validation=1, batch=1), progress=self.progress)
        net = defense.build(net, trainer, self._draws())
        checkpoints.save(file, net, {}, half=False)
        return net

    def build_untrained(self, parts: Parts, net: nn.Module) -> nn.Module:
        """The same without what is learnt: as fast, and good for nothing else."""
        for _, defense in reversed(parts):
            net = defense.build(net, NoTraining(), self._draws())
        return evaluating(net.to(self.device))

    def learnt(self, parts: Parts, net: nn.Module) -> bool:
        """Whether nothing is left to learn."""
        return all(file is None or checkpoints.cached(file) is not None for file in self.files(parts, net))

    def files(self, parts: Parts, net: nn.Module) -> list[Path | None]:
        """Where each part keeps what it learns, named by all that decides it; None for one that learns nothing."""
        if not any(defense.learns for _, defense in parts):
            return [None] * len(parts)
        images = training_images_name(self.data, self.source, self.transform, self.names)
        digest = checkpoints.weights_digest(net)
        behaves = {} if self.behaviour is None else {"behaviour": self.behaviour}
        described = [{name: asdict(defense), "version": defense.version} for name, defense in parts]
        files: list[Path | None] = []
        for place, (name, defense) in enumerate(parts):
            key = row_key({"images": images, "weights": digest, "parts": described[place:], **behaves})
            stem = f"{self.data}-{name}-{key}".replace(":", "-").replace("/", "-")
            files.append(cache_folder() / "fitted" / f"{stem}.safetensors" if defense.learns else None)
        return files

    def _draws(self) -> Draws:
        return Draws(0, torch.zeros(1, dtype=torch.int64, device=self.device)).stream("build")
