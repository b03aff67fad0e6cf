"""What a judge found of some of the images, and how the parts of them become the verdict on all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.batch import BatchVerdict
from robustbench_local.evaluation.chance import below


@dataclass(frozen=True)
class PartVerdict:
    """The verdict on some of the images, of a model that was checked on all of them.

    labels, ids (n,), x_adv (n, C, H, W) or none, (0, C, H, W): of these images. found: what was found of each.
    flags: what the checks beforehand found, of all images. changed, wrote, forms: whether the model answered otherwise
    in the end, whether it wrote into its input, and in which other forms than logits it answered. declared: the clean
    accuracy that it states. The rest as in Verdict.
    """

    labels: Tensor
    ids: Tensor
    x_adv: Tensor
    found: BatchVerdict
    flags: tuple[str, ...]
    changed: bool
    wrote: bool
    forms: frozenset[str]
    declared: float | None
    detects: bool
    seconds: float
    prepared_forwards: int
    prepared_backwards: int
    checked_forwards: int
    judged_forwards: int

    def on_host(self) -> PartVerdict:
        """The same in the host's memory, where parts that were made on several devices can meet."""
        tensors, notes = (
            {name: tensor.cpu() for name, tensor in each.items()} for each in (self.found.tensors, self.found.notes)
        )
        found = BatchVerdict(tensors, self.found.faults, notes)
        return replace(self, labels=self.labels.cpu(), ids=self.ids.cpu(), x_adv=self.x_adv.cpu(), found=found)


def joined(parts: Sequence[PartVerdict]) -> Verdict:
    """The verdict on the images of all parts, in their order: one or more, of the same model, attack and judge.

    What is counted is added up, and what follows from all images is found anew. Seconds and passes are what the parts
    took together: each checks the model for itself where they share no AnswerCache, and in the end in any case, so
    that checked_forwards and judged_forwards are larger than of one part that is the whole.
    """
    found = together([part.found for part in parts])
    flags = [*dict.fromkeys(flag for part in parts for flag in part.flags)]
    if any(part.changed for part in parts):
        flags.append("changed")
    if any(part.wrote for part in parts) and "writes_input" not in flags:
        flags.append("writes_input")
    flags += [f"output_form:{form}" for form in sorted(frozenset().union(*(part.forms for part in parts)))]
    flags += [f"{fault}:{total}" for fault, total in found.faults.items() if total]
    if below(found.tensors["clean"], parts[0].declared):
        flags.append("below_declared")
    tensors: dict[str, Any] = dict(found.tensors)
    return Verdict(
        labels=_cat([part.labels for part in parts]),
        ids=_cat([part.ids for part in parts]),
        x_adv=_cat([part.x_adv for part in parts]),
        flags=tuple(flags),
        seconds=sum(part.seconds for part in parts),
        prepared_forwards=sum(part.prepared_forwards for part in parts),
        prepared_backwards=sum(part.prepared_backwards for part in parts),
        notes=found.notes,
        checked_forwards=sum(part.checked_forwards for part in parts),
        judged_forwards=sum(part.judged_forwards for part in parts),
        detects=parts[0].detects,
        **tensors,
    )


def together(parts: Sequence[BatchVerdict]) -> BatchVerdict:
    """What was found of images that follow each other, one part or more, as of one batch."""
    names = sorted(set().union(*(part.notes for part in parts)))
    return BatchVerdict(
        tensors={name: _cat([part.tensors[name] for part in parts]) for name in parts[0].tensors},
        faults={fault: sum(part.faults[fault] for part in parts) for fault in parts[0].faults},
        notes={name: _cat([part.note(name) for part in parts]) for name in names},
    )


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    """In one; a single one is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
