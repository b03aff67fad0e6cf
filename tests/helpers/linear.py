"""Linear classifiers, where the distance of an image to the boundary is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core.threat import Norm, ThreatModel

SHAPE = (3, 4, 4)
GAP = 1e-4  # no point is nearer than this to the edge of the ball
DUAL = {Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: torch.inf}
THREATS = [ThreatModel(Norm.LINF, 0.1), ThreatModel(Norm.L2, 0.2), ThreatModel(Norm.L1, 0.2)]


def linear(weight: Tensor, bias: Tensor) -> nn.Sequential:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    return nn.Sequential(nn.Flatten(), layer)


def distances(model: nn.Sequential, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """(N,): distance to the nearest boundary of a linear model, negative beyond it."""
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    logits = x.flatten(1).double() @ weight.T + bias
    slope = (weight[:, None] - weight[None]).norm(p=DUAL[norm], dim=2)[y].scatter(1, y[:, None], 1.0)
    gap = (logits.gather(1, y[:, None]) - logits) / slope
    nearest: Tensor = gap.scatter(1, y[:, None], torch.inf).amin(1)
    return nearest


def two_classes(threat: ThreatModel) -> tuple[nn.Sequential, Tensor, Tensor, Tensor]:
    """(model, x, y, distance): points of both classes at 0.5 to 1.5 eps from the boundary, far from the box."""
    generator = torch.Generator().manual_seed(1)
    size = SHAPE[0] * SHAPE[1] * SHAPE[2]
    weight = torch.randn(2, size, generator=generator)
    normal = weight[1] - weight[0]
    model = linear(weight, -0.5 * weight.sum(1))  # the boundary goes through mid-grey
    close = torch.tensor([threat.eps - 1.5 * GAP, threat.eps + 1.5 * GAP])
    wanted = torch.cat([threat.eps * torch.linspace(0.5, 1.5, 100), close])
    wanted = torch.cat([wanted, -wanted])  # negative: on the side of class 0
    x = 0.5 + 0.02 * torch.randn(len(wanted), size, generator=generator)
    missing = wanted * normal.norm(p=DUAL[threat.norm]) - (x - 0.5) @ normal
    x = (x + missing[:, None] * normal / normal.dot(normal)).view(-1, *SHAPE)
    y = (wanted > 0).long()
    found = distances(model, x, y, threat.norm)
    assert torch.allclose(found, wanted.abs().double(), atol=1e-5)
    assert (found - threat.eps).abs().min() > GAP
    assert x.min() > threat.eps and x.max() < 1 - threat.eps
    return model, x, y, found
