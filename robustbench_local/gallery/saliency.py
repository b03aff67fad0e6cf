"""Which pixels an answer hangs on: the gradient of its log-probability (Simonyan et al. 2014, arXiv:1312.6034)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access, beyond
from robustbench_local.core.defense import call, draws_for, is_stochastic
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ModelError
from robustbench_local.core.escaping import visible
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.evaluation.preflight import check_images

DRAWS = 8  # over which a random model's gradient is averaged


def saliency(model: nn.Module, x: Tensor, y: Tensor | None = None, *, draws: Draws | None = None) -> Tensor:
    """(N, H, W), not negative: how much each pixel of images x (N, C, H, W) in [0, 1] moves the model's answer.

    It is the absolute gradient of log p_y, the largest over channels, in no unit: only where it is large within one
    image means something. y (N,): the classes that are asked about, by default the model's answers. Through a step
    that a defense replaces in its backward pass go that surrogate's gradients.
    AccessError where the model grants no gradients, ModelError where none passes through it, DataError where x are no
    images.
    """
    check_images(x, torch.zeros(x.shape[:1], dtype=torch.int64) if y is None else y)
    if reason := beyond(Access.GRADIENTS, model):
        raise AccessError(f"it {reason}")
    random = is_stochastic(model)
    draws = draws_for(x, draws) if random else draws
    total = torch.zeros_like(x)
    with as_deployed(model), full_float32():
        for k in range(DRAWS if random else 1):
            given = x.detach().clone().requires_grad_()
            logits = call(model, given, None if draws is None else draws.stream(f"saliency:{k}"))
            y = logits.detach().argmax(1) if y is None else y
            try:
                (grad,) = torch.autograd.grad(_log_odds(logits, y).sum(), given)
            except RuntimeError as error:
                raise ModelError(f"no gradient passes through the model ({str(error).splitlines()[0]})") from error
            total += grad.nan_to_num()
    return total.abs().amax(1)


def before_and_after(
    model: nn.Module, clean: tuple[Tensor, Tensor], attacked: tuple[Tensor, Tensor], draws: Draws
) -> tuple[tuple[Tensor, Tensor] | None, str]:
    """((N, H, W) of images and of their adversarial twins, each about its own answers, ""); or None, and why."""
    try:
        before, after = (saliency(model, x, y, draws=draws) for x, y in (clean, attacked))
    except (AccessError, ModelError) as error:
        return None, f"No saliency map: {visible(error)}."
    return (before, after), ""


def _log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) log p / (1 - p) of classes y. Its gradient is that of log p divided by 1 - p, one number per image: the same
    map, without the digits that log p loses where p rounds to 1.
    """
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, y[:, None], True)
    return logits.gather(1, y[:, None])[:, 0] - logits.masked_fill(own, -torch.inf).logsumexp(1)
