"""What every preprocessing defense must keep, for the tests of each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call, is_stochastic
from robustbench_local.core.draws import Draws
from robustbench_local.data.load import load_data
from robustbench_local.defenses._wrapper import Wrapper


def photos(n: int = 12) -> Tensor:
    return load_data("cifar10", n=n, source="bundled")[0]


def digits(n: int = 12) -> Tensor:
    return load_data("mnist", n=n, source="bundled")[0]


def deployed(wrapper: Wrapper, net: nn.Module | None = None) -> nn.Module:
    """Before a network that answers with its pixels, so that logits are what the defense makes of an image."""
    return wrapper.build(net or nn.Flatten(), None, draws(1))  # type: ignore[arg-type]


def draws(n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Draws:
    return Draws(seed, torch.arange(n), dtype=dtype)


def gradient(model: nn.Module, x: Tensor, weights: Tensor, seed: int = 0) -> Tensor:
    """Of the weighted sum of all outputs; weights like the outputs."""
    leaf = x.clone().requires_grad_()
    out = call(model, leaf, draws(len(x), seed, x.dtype))
    return torch.autograd.grad((out * weights).sum(), leaf)[0]


def some_weights(model: nn.Module, x: Tensor) -> Tensor:
    shape = call(model, x, draws(len(x), dtype=x.dtype)).shape
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype) - 0.5


def keeps_the_rules(wrapper: Wrapper) -> None:
    """Values in [0, 1]; the same in any batch and order, in any memory format; with gradients and without."""
    for x in (photos(), digits()):
        model = deployed(wrapper)
        out = call(model, x, draws(len(x)))
        assert out.dtype == x.dtype and not out.isnan().any()
        assert out.min() >= 0 and out.max() <= 1
        order = torch.tensor([7, 2, 9])
        assert torch.allclose(call(model, x[order], draws(len(x))[order]), out[order], atol=1e-6)
        last = x.contiguous(memory_format=torch.channels_last)
        assert torch.allclose(call(model, last, draws(len(x))), out, atol=1e-6)
        assert torch.equal(call(model, x.clone().requires_grad_(), draws(len(x))), out)
        assert gradient(model, x, some_weights(model, x)).isfinite().all()
        plain = x.clone()
        call(model, plain, draws(len(x)))
        assert torch.equal(plain, x)  # nothing is changed in place
        if is_stochastic(model):
            assert torch.equal(call(model, x, draws(len(x))), out)
            assert not torch.allclose(call(model, x, draws(len(x), seed=1)), out, atol=1e-3)


def differentiates(wrapper: Wrapper, seed: int = 0) -> None:
    """Autograd agrees with finite differences along random directions, in float64."""
    for x in (photos(3).double(), digits(3).double()):
        x = x[:, :, 4:20, 6:20] * 0.8 + 0.1  # away from where an output is clamped
        x = x + 1e-3 * torch.rand(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)  # no ties
        model = deployed(wrapper)
        weights = some_weights(model, x)
        grad = gradient(model, x, weights, seed)
        for k in range(3):
            way = torch.randn(x.shape, generator=torch.Generator().manual_seed(k), dtype=x.dtype)
            step = 1e-8  # shorter than any two pixels are near
            high, low = (
                (call(model, x + s * way, draws(len(x), seed, x.dtype)) * weights).sum() for s in (step, -step)
            )
            torch.testing.assert_close((grad * way).sum(), (high - low) / (2 * step), rtol=1e-4, atol=1e-5)
