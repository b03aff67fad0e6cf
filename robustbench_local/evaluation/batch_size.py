"""How many images are attacked at once, where nobody says: as many as memory holds."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access, granted
from robustbench_local.core.defense import call
from robustbench_local.core.device import first_batch, free_memory, kept_random_state
from robustbench_local.core.draws import Draws
from robustbench_local.evaluation.preflight import Tally

SMALL = 64 * 64  # pixels: what a larger image takes is measured
MEMORY = 2**28  # bytes for a batch on a CPU; elsewhere half of what is free
COPIES = 16  # of each image that an attack and its verdict hold, about


def is_large(x: Tensor) -> bool:
    """Whether a batch of images like x (n, C, H, W) is to be as large as memory holds."""
    return x[0, 0].numel() > SMALL


def first_guess(model: nn.Module, x: Tensor, draws: Draws, asked: Tally) -> int:
    """A batch size for images like x (1, C, H, W), to be halved when memory runs out all the same.

    An image takes some copies of itself, and what one forward pass of it keeps for its backward pass: none of a model
    that gives no gradients, which is not asked, for its answers may cost money.
    """
    usual = first_batch(x.device)
    if not is_large(x):
        return usual
    free, each = free_memory(x.device), COPIES * x.nbytes
    if granted(model) is Access.GRADIENTS:
        asked.forwards += 1
        each += activations(model, x, draws)
    return max(1, min(usual, (MEMORY if free is None else free // 2) // each))


def queried_at_once(size: int, x: Tensor) -> int:
    """How many images like x (n, C, H, W) an oracle asks about at once for scores, in batches of that size.

    Without a backward pass little of each is held.
    """
    return 4 * size if is_large(x) else 1024


def activations(model: nn.Module, x: Tensor, draws: Draws) -> int:
    """Bytes that a forward pass of x keeps for a backward pass, the model's own tensors aside; 0 where it has none."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with suppress(Exception), kept_random_state(x.device), torch.enable_grad(), hooks:  # what it dies of is said later
        answer = call(model, x.clone().requires_grad_(), draws)  # held until here: storage that is free is used again
        del answer
    return sum(kept.values())
