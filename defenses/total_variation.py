"""Total-variation denoising: the nearest image with few and small jumps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.defenses._wrapper import Wrapper, check

TAU = 0.25  # the longest step that converges in two dimensions


@dataclass(frozen=True)
class TotalVariation(Wrapper):
    """min_u |u - x|^2 / 2 + weight TV(u), channel by channel, by so many steps of Chambolle's dual iteration.

    The number of steps is fixed, so that an image's result does not depend on others in its batch.

    weight: of the variation, in [0.0001, 10], where white is 1. steps: of the iteration, from 1 to 1000.
    """

    differentiable: ClassVar[bool] = True
    summary: ClassVar[str] = "total-variation denoising (Chambolle)"
    paper: ClassVar[str] = "Chambolle 2004, doi:10.1023/B:JMIV.0000011325.36760.1e; Guo et al. 2018, arXiv:1711.00117"
    family: ClassVar[str] = "denoising"

    weight: float = 0.1
    steps: int = 30

    def __post_init__(self) -> None:
        check("weight", self.weight, 1e-4, 10, "where white is 1")
        check("steps", self.steps, 1, 1000, "iterations")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        denoised: Tensor = _Chambolle.apply(x, self.weight, self.steps)  # type: ignore[no-untyped-call]
        return denoised.clamp(0, 1)


class _Chambolle(torch.autograd.Function):
    """u = x + G'p, where p (2, N, C, H, W) goes down the slope of |x + G'p|^2 / 2 and stays in the disc of `weight`.

    G is the gradient of an image, G' its adjoint, minus the divergence. Backwards the same steps, from the p of each.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float, steps: int) -> Tensor:
        duals = [x.new_zeros(2, *x.shape)]
        for _ in range(steps):
            slope, length = _slope(x, duals[-1])
            following = (duals[-1] - TAU * slope) / (1 + TAU / weight * length)
            duals = [*duals, following] if ctx.needs_input_grad[0] else [following]
        ctx.save_for_backward(x, *duals)
        ctx.weight = weight
        return x + _adjoint(duals[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *duals = ctx.saved_tensors
        grad_x, grad_p = grads[0].clone(), _gradient(grads[0])
        for before, after in zip(reversed(duals[:-1]), reversed(duals[1:]), strict=True):
            slope, length = _slope(x, before)
            grad_p /= 1 + TAU / ctx.weight * length
            by_length = TAU / ctx.weight * (grad_p * after).sum(0)
            grad_u = _adjoint(-TAU * grad_p - by_length / length * slope)
            grad_x += grad_u
            grad_p += _gradient(grad_u)
        return grad_x, None, None


def _slope(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """G u, (2, N, C, H, W), and its length (N, C, H, W), which is never quite zero."""
    slope = _gradient(x + _adjoint(p))
    return slope, (slope[0] * slope[0]).addcmul_(slope[1], slope[1]).add_(1e-12).sqrt_()


def _gradient(u: Tensor) -> Tensor:
    """(2, N, C, H, W): differences to the pixel below and to the right, zero at the edge."""
    slope = torch.zeros(2, *u.shape, dtype=u.dtype, device=u.device)
    torch.sub(u[..., 1:, :], u[..., :-1, :], out=slope[0, ..., :-1, :])
    torch.sub(u[..., 1:], u[..., :-1], out=slope[1, ..., :-1])
    return slope


def _adjoint(p: Tensor) -> Tensor:
    """(N, C, H, W), such that <p, G u> = <G'p, u>."""
    out = torch.zeros_like(p[0])
    out[..., 1:, :] += p[0, ..., :-1, :]
    out[..., :-1, :] -= p[0, ..., :-1, :]
    out[..., 1:] += p[1, ..., :-1]
    out[..., :-1] -= p[1, ..., :-1]
    return out
