"""An attack run by hand, as the judge runs it, but with what it returns left as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, prepared
from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import Tensors


@dataclass(frozen=True)
class Trial:
    """What came back. x_adv: as returned, like the images in the best case; the rest per image (N,).

    beside: images that the model was asked about and that are on no meter. wrote: what of its arguments it wrote into.
    """

    x_adv: Tensor
    forwards: Tensor
    backwards: Tensor
    broken: Tensor
    beside: int
    wrote: frozenset[str]


def run(
    attack: Attack,
    model: nn.Module,
    data: Tensors,
    threat: ThreatModel,
    *,
    seed: int = 0,
    batch: int | None = None,
    access: Access | None = None,
    goal: Tensor | None = None,
    budget: int | None = None,
) -> Trial:
    """The attack on these images in batches of that size, after it prepared on images of its own.

    access: what the oracle grants, by default what the attack declares. goal: classes to reach (N,).
    """
    access = attack.access if access is None else access
    y = data.labels if goal is None else goal

    def oracle(x: Tensor, y: Tensor, draws: Draws, targeted: bool) -> Oracle:
        return Oracle(
            model, x, y, threat, access, draws, targeted=targeted, eot=2, budget=budget, minimises=attack.minimises
        )

    with as_deployed(model), full_float32():
        own = _own(attack, model, data.x)
        draws = Draws(seed, own.ids, dtype=own.x.dtype)
        asked = oracle(own.x, own.labels, draws.stream("prepare"), targeted=False)
        ready = prepared(attack, asked, own.x.clone(), own.labels.clone(), threat, draws.stream("learn"))
        parts, beside, wrote = [], 0, set[str]()
        for rows in torch.arange(len(data.x)).split(batch or len(data.x)):
            draws = Draws(seed, data.ids[rows], dtype=data.x.dtype)
            asked = oracle(data.x[rows], y[rows], draws.stream("oracle"), targeted=goal is not None)
            given = {"images": data.x[rows].clone(), "labels": y[rows].clone()}
            x_adv = ready(asked, given["images"], given["labels"], threat, draws.stream("attack"))
            wrote |= {name for name, was in (("images", data.x), ("labels", y)) if not given[name].equal(was[rows])}
            beside += max(0, asked.received - int(asked.forwards.sum()) - 1)  # one image may tell a shape
            parts.append((x_adv, asked.forwards, asked.backwards, asked.broken))
    found = [torch.cat(each) for each in zip(*parts, strict=True)]
    return Trial(found[0], found[1], found[2], found[3], beside, frozenset(wrote))


def _own(attack: Attack, model: nn.Module, like: Tensor) -> Tensors:
    """What an attack may learn from: images of its own, labelled as the model sees them."""
    count = attack.own_images
    x = torch.rand(count, *like.shape[1:], generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(like)
    ids = torch.arange(1000, 1000 + count)
    if not count:
        return Tensors(x, torch.zeros(0, dtype=torch.int64), ids)
    with torch.no_grad():
        return Tensors(x, call(model, x, Draws(0, ids, dtype=x.dtype)).argmax(1), ids)
