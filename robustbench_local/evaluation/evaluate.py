"""One model, one attack, one verdict, of tensors; robustbench_local.evaluate takes more kinds of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.config.arguments import OneAttack, Threat, checked
from robustbench_local.config.plugins import find_attack, name_of
from robustbench_local.config.ranges import Seed
from robustbench_local.config.settings import check_fields
from robustbench_local.core.attack import Attack
from robustbench_local.core.containment import guarded
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.errors import ConfigError, DataError, ModelError
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.judge import Judge
from robustbench_local.evaluation.kept import dropped
from robustbench_local.evaluation.preflight import check_images

JUDGE_SETTINGS = frozenset(field.name for field in fields(Judge)) - {"seed"}


@dataclass(frozen=True)
class Tensors:
    """Images (N, C, H, W) and labels (N,) as a judge reads them; ids (N,) int64 address each one's randomness."""

    x: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self.x[rows]


@guarded()
@checked()
def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: OneAttack = "pgd",
    threat: Threat = "linf:8/255",
    seed: Seed = 0,
    *,
    attacker: tuple[Tensor, Tensor] | None = None,
    keep_images: bool = True,
    **settings: Any,
) -> Verdict:
    """Attack model on images x (N, C, H, W) in [0, 1] with labels y (N,), and judge what comes back.

    settings are the attack's (steps=40) and the judge's (targets, budget, batch_size, precision, count, eot, draws,
    allow_chance: a model at chance on clean images is refused with the likely reason, unless this is true).
    attacker: images and labels that an attack may learn from (a substitute's seeds), none of them among x.
    keep_images: whether the verdict holds the adversarial images, x_adv, which take as much memory as x.
    Raises DataError, ModelError, ThreatError, ConfigError or PluginError, each naming the value and the likely cause.
    """
    check_images(x, y)
    judging = {name: settings.pop(name) for name in tuple(settings) if name in JUDGE_SETTINGS}
    if isinstance(attack, Attack):
        if settings:
            raise ConfigError(f"{', '.join(settings)}: settings of an attack that is built already; give them to it")
        check_fields(attack)
    else:
        attack = find_attack(attack, settings, JUDGE_SETTINGS)
    device = home(model, x)
    images = named_by_content(x.detach().to(device), y.to(device))
    own = None if attacker is None else not_judged(*attacker, images)
    judge = judge_of(seed, judging)
    return judged(judge, model, images, attack, ThreatModel.parse(threat), attacker=own, keep_images=keep_images)


def judge_of(seed: int, settings: Mapping[str, Any]) -> Judge:
    """As scripts ask: a model at chance is refused unless they say otherwise."""
    return Judge(seed=seed, **{"allow_chance": False, **settings})


def judged(
    judge: Judge,
    model: nn.Module,
    images: Tensors,
    attack: Attack,
    threat: ThreatModel,
    progress: Progress | None = None,
    *,
    attacker: Tensors | None = None,
    known: AnswerCache | None = None,
    keep_images: bool = True,
    name: str | None = None,
) -> Verdict:
    """The verdict, and what it is of. name: the attack's, by default as it is registered. The rest: see Judge."""
    keep = None if keep_images else dropped
    found = judge(model, images, attack, threat, progress, attacker=attacker, known=known, keep=keep)
    bound = "none" if isinstance(attack, Corruption) else str(threat)
    return replace(found, attack=name or name_of(attack), threat=bound, x=images.x if keep_images else None)


def home(model: nn.Module, x: Tensor) -> torch.device:
    """Where the model is, and images go; x's place where it has no tensors. ModelError where it has no weights yet."""
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), x.device)
    if device.type == "meta":
        raise ModelError("the model's weights are on the meta device, where tensors hold no values: load them first")
    return device


def named_by_content(x: Tensor, y: Tensor) -> Tensors:
    """With ids made from the pixels: an image meets the same random numbers in any order, selection and company."""
    return Tensors(x, y, fingerprint(x))


def not_judged(x: Tensor, y: Tensor, images: Tensors) -> Tensors:
    """The attacker's images, with ids of their own. DataError where any is among the judged."""
    check_images(x, y)
    x = x.detach().to(images.x)
    shared = int(torch.isin(fingerprint(x), fingerprint(images.x)).sum()) if x.shape[1:] == images.x.shape[1:] else 0
    if shared:
        raise DataError(f"{shared} of the attacker's {len(x)} images are among those judged: give training images")
    return named_by_content(x, y.to(images.labels))
