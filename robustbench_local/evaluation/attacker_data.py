"""What an attacker owns: images to learn from, none of which is judged."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.source import Source
from robustbench_local.evaluation.preflight import check_images


def own_images(attack: Attack, attacker: Source | None, like: Tensor, seed: int) -> tuple[Tensor, Tensor, Draws]:
    """(x, y, draws): as many of the attacker's images as the attack asks for, chosen by the seed.

    like: some judged images (n, C, H, W). ConfigError where there are too few, or of another shape.
    """
    wanted, name = attack.own_images, type(attack).__name__
    if not wanted:
        nobody = torch.zeros(0, dtype=torch.int64, device=like.device)
        return like[:0], nobody, Draws(seed, nobody, dtype=like.dtype)
    if attacker is None:
        raise ConfigError(
            f"{name} learns from {wanted} images of the attacker's own, which are not judged, and none are given:"
            " evaluate(..., attacker=(x, y)) with training images; a grid takes the training split"
        )
    if len(attacker) < wanted:
        raise ConfigError(f"{name} learns from {wanted} images of the attacker's own, there are {len(attacker)}")
    by_id = attacker.ids.argsort(stable=True)  # the order in which they are given decides nothing
    drawn = Draws(seed, attacker.ids[by_id]).stream("attacker").uniform().argsort(stable=True)[:wanted]
    rows = by_id[drawn.sort().values]
    x, y = attacker[rows].to(like), attacker.labels[rows]
    check_images(x, y)
    if x.shape[1:] != like.shape[1:]:
        raise ConfigError(f"the attacker's images are {tuple(x.shape[1:])}, the judged {tuple(like.shape[1:])}")
    return x.contiguous(memory_format=torch.channels_last), y, Draws(seed, attacker.ids[rows], dtype=like.dtype)
