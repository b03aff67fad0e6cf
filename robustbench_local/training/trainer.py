"""The one training loop. What differs between defenses is their Recipe's loss; what differs between runs, Schedule."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.data.images import Images
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.drafts import read_draft, write_draft

COLLAPSE = 0.5  # robust accuracy below this share of the best epoch's is catastrophic overfitting


class TrainingLoop:
    """Trains nets on a data set. With a folder it saves every epoch there and resumes from it.

    After fit, `history` holds one dict per epoch; `minutes` is the wall time of all fits and their sessions together.
    blank: there are no images, and nothing is trained.
    """

    blank: ClassVar[bool] = False

    def __init__(
        self, images: Images, schedule: Schedule, *, seed: int = 0, folder: Path | None = None, progress: Progress
    ) -> None:
        if not 0 < schedule.validation < len(images):
            raise ConfigError(f"validation is {schedule.validation}: it must be in 1 .. {len(images) - 1} here")
        if schedule.batch > len(images) - schedule.validation:
            raise ConfigError(f"batch is {schedule.batch}: {len(images) - schedule.validation} images are left")
        self.images, self.schedule, self.seed, self.folder, self.progress = images, schedule, seed, folder, progress
        self.history: list[dict[str, float]] = []
        self.minutes = 0.0

    def beside(self, schedule: Schedule, n: int) -> TrainingLoop:
        """A loop for a network of its own, on the first n of the images, which saves nothing."""
        return TrainingLoop(self.images.first(n), schedule, seed=self.seed, progress=self.progress)

    def fit(self, net: nn.Module, recipe: Recipe, draws: Draws, *, seed: int | None = None) -> nn.Module:
        """net, trained in place and in evaluation mode: the last epoch, or the most robust one a recipe reports.

        seed: of the images' order, by default the trainer's; several nets of one defense may want several.
        """
        plan, images, seed = self.schedule, self.images, self.seed if seed is None else seed
        net.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = self._optimizer(net)
        count = len(images) - plan.validation
        steps = count // plan.batch
        best: dict[str, Tensor] | None = None
        state_file = self._state_file(net, recipe, draws, seed)
        average = _Average(net, plan.average) if plan.average else None
        kept = average.net if average else net
        self.history, minutes = [], 0.0
        if state_file is not None and (saved := read_draft(state_file, images.device)) is not None:
            net.load_state_dict(saved["net"])
            optimizer.load_state_dict(saved["optimizer"])
            self.history, minutes, best = saved["history"], saved["minutes"], saved["best"]
            if average:
                average.net.load_state_dict(saved["average"])
            self.progress.line(f"resumed after epoch {len(self.history)} of {plan.epochs}")
        for epoch in range(len(self.history), plan.epochs):
            if self._collapsed():
                break
            started = time.monotonic()
            net.train()
            order = Draws(seed, torch.arange(count)).stream(f"order:{epoch}").uniform().argsort()
            total = 0.0
            for step, rows in enumerate(order[: steps * plan.batch].split(plan.batch)):
                progress = (epoch * steps + step) / (plan.epochs * steps)
                for group in optimizer.param_groups:
                    group["lr"] = plan.lr * plan.rate(progress)
                rows = rows.to(images.device)
                mine = draws.with_ids(images.ids[rows]).stream(f"epoch:{epoch}")
                x = self._augment(images[rows], mine.stream("augment"))
                now = recipe.at(progress)
                total += now.step(net, x, images.labels[rows], optimizer, mine.stream("recipe")).item()
                if average:
                    average.follow(net, done=epoch * steps + step)
                self.progress.advance(f"epoch {epoch + 1}/{plan.epochs}", progress)
            row = {"loss": total / steps} | self._validate(kept, recipe, draws)
            if "robust" in row and row["robust"] >= max((past["robust"] for past in self.history), default=0.0):
                best = copy.deepcopy(kept.state_dict())
            self.history.append(row)
            minutes += (time.monotonic() - started) / 60
            self.progress.line(f"epoch {epoch + 1}/{plan.epochs} " + " ".join(f"{k} {v:.4f}" for k, v in row.items()))
            if state_file is not None:
                write_draft(
                    state_file,
                    dict(
                        net=net.state_dict(),
                        optimizer=optimizer.state_dict(),
                        history=self.history,
                        minutes=minutes,
                        best=best,
                        average=average.net.state_dict() if average else None,
                    ),
                    epochs=len(self.history),
                )
        if self._collapsed():
            self.progress.line("stopped: robust accuracy collapsed (catastrophic overfitting); the best epoch is kept")
        self.minutes += minutes
        net.load_state_dict(kept.state_dict() if best is None else best)
        return net.eval()

    def _collapsed(self) -> bool:
        robust = [row["robust"] for row in self.history if "robust" in row]
        constant = 1.5 / len(self.images.classes)  # about what a net that names one class always would hold
        return bool(robust) and max(robust) > constant and robust[-1] < COLLAPSE * max(robust)

    def _optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        plan = self.schedule
        if plan.optimizer == "adam":
            return torch.optim.AdamW(net.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
        return torch.optim.SGD(net.parameters(), plan.lr, momentum=0.9, nesterov=True, weight_decay=plan.weight_decay)

    def _augment(self, x: Tensor, draws: Draws) -> Tensor:
        """Random mirror image and random shift, per image, by one gather."""
        plan, (_, _, height, width) = self.schedule, x.shape
        if plan.crop:
            x = nn.functional.pad(x, (plan.crop,) * 4, mode="reflect")
        shift = draws.integers(2 * plan.crop + 1, 2)
        mirrored = draws.uniform() < (0.5 if plan.flip else 0.0)
        down = torch.arange(height, device=x.device) + shift[:, :1]
        across = torch.arange(width, device=x.device)
        across = torch.where(mirrored[:, None], width - 1 - across, across) + shift[:, 1:]
        each = torch.arange(len(x), device=x.device)[:, None, None]
        cut = x[each, :, down[:, :, None], across[:, None, :]]  # (N, H, W, C): channels last already
        return cut.permute(0, 3, 1, 2)

    def _validate(self, net: nn.Module, recipe: Recipe, draws: Draws) -> dict[str, float]:
        net.eval()
        rows = torch.arange(len(self.images) - self.schedule.validation, len(self.images), device=self.images.device)
        right = 0
        with torch.no_grad():
            for part in rows.split(500):
                mine = draws.with_ids(self.images.ids[part]).stream("clean")
                right += int((call(net, self.images[part], mine).argmax(1) == self.images.labels[part]).sum())
        row = {"clean": right / len(rows)}
        watched = rows[: self.schedule.watched]
        mine = draws.with_ids(self.images.ids[watched]).stream("validation")
        robust = recipe.validate(net, self.images[watched], self.images.labels[watched], mine)
        return row if robust is None else row | {"robust": robust}

    def _state_file(self, net: nn.Module, recipe: Recipe, draws: Draws, seed: int) -> Path | None:
        """Named by all that defines the run: nobody resumes the state of a run with another setting, nor of another net
        of the same defense, which may differ in its draws or its teacher alone.
        """
        if self.folder is None:
            return None
        numbers = draws.with_ids(torch.zeros(1, dtype=torch.int64)).stream("draft").integers(2**31, 2)
        parts = [repr(recipe), json.dumps(asdict(self.schedule)), self.images.digest, str(seed), str(numbers.tolist())]
        parts += [weights_digest(each) for each in (net, *vars(recipe).values()) if isinstance(each, nn.Module)]
        return self.folder / f"training-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:16]}.pt"


class _Average:
    """A net whose weights follow another's, slowly; batch statistics follow as weights do."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay = copy.deepcopy(net), decay

    @torch.no_grad()
    def follow(self, net: nn.Module, done: int) -> None:
        """One step; done: how many were before. The first ones are longer, so that the start is soon forgotten."""
        share = 1 - min(self.decay, (1 + done) / (10 + done))
        for mine, other in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(other, share)
            else:
                mine.copy_(other)
