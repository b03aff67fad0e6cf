"""A linear model, and how many pixels each image needs to cross its plane."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def halves(channels: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """(two classes apart by a plane, images, their labels, the fewest pixels that cross it)."""
    generator = torch.Generator().manual_seed(6)
    x = torch.rand(40, channels, 6, 6, generator=generator, dtype=torch.float64)
    layer = nn.Linear(x[0].numel(), 2, dtype=torch.float64)
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
    layer.bias.data = -(x.mean(0).flatten() @ layer.weight.data.T)
    model = nn.Sequential(nn.Flatten(), layer).eval()
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    normal = (layer.weight.data[1] - layer.weight.data[0]).view_as(x[0])
    uphill = torch.where((y == 0).view(-1, 1, 1, 1), normal, -normal)
    room = torch.where(uphill > 0, 1 - x, -x)
    gain = (uphill * room).sum(1).flatten(1).sort(1, descending=True).values.cumsum(1)
    gap = (logits[:, 0] - logits[:, 1]).abs()
    return model, x, y, (gain < gap[:, None]).sum(1) + 1
