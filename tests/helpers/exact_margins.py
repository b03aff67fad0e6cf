"""The exact least margin of a tiny network over a ball, as a mixed integer program (Tjeng et al. 2019) for HiGHS."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.threat import Norm, ThreatModel

Row = dict[int, float]


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class _Program:
    """Variables with bounds; rows low <= sum a v <= high."""

    def __init__(self) -> None:
        self.low: list[float] = []
        self.high: list[float] = []
        self.whole: list[int] = []
        self.rows: list[tuple[Row, float, float]] = []

    def variable(self, low: float, high: float, whole: bool = False) -> int:
        self.low.append(low)
        self.high.append(high)
        self.whole.append(int(whole))
        return len(self.low) - 1

    def row(self, row: Row, low: float, high: float) -> None:
        self.rows.append((row, low, high))

    def affine(self, inputs: list[int], weight: np.ndarray, bias: np.ndarray) -> list[int]:
        low, high = np.array([self.low[i] for i in inputs]), np.array([self.high[i] for i in inputs])
        up, down = weight.clip(min=0), weight.clip(max=0)
        lows, highs = up @ low + down @ high + bias, up @ high + down @ low + bias
        made = [self.variable(*ends) for ends in zip(lows, highs, strict=True)]
        for out, weights, shift in zip(made, weight, bias, strict=True):
            row = {out: -1.0} | {i: float(w) for i, w in zip(inputs, weights, strict=True) if w}
            self.row(row, -shift, -shift)
        return made

    def largest(self, inputs: list[int], floor: float | None = None) -> int:
        """The largest of some variables, and of floor where it is given."""
        choices: list[tuple[int | None, float]] = [(i, self.low[i]) for i in inputs]
        choices += [] if floor is None else [(None, floor)]
        top = max([self.high[i] for i in inputs] + ([] if floor is None else [floor]))
        out = self.variable(max(low for _, low in choices), top)
        chosen: Row = {}
        for i, low in choices:
            pick = self.variable(0, 1, whole=True)
            chosen[pick] = 1.0
            room = top - low
            of: Row = {} if i is None else {i: -1.0}
            base = low if i is None else 0.0
            self.row({out: 1.0} | of, base, np.inf)
            self.row({out: 1.0, pick: room} | of, -np.inf, base + room)
        self.row(chosen, 1, 1)
        return out

    def minimum(self, goal: Row) -> float:
        count = len(self.low)
        matrix = np.zeros((len(self.rows), count))
        for place, (row, _, _) in enumerate(self.rows):
            for i, value in row.items():
                matrix[place, i] = value
        cost = np.zeros(count)
        for i, value in goal.items():
            cost[i] = value
        limits = LinearConstraint(matrix, [low for _, low, _ in self.rows], [high for _, _, high in self.rows])
        found = milp(cost, constraints=limits, bounds=Bounds(self.low, self.high), integrality=np.array(self.whole))
        assert found.status == 0, found.message
        return float(found.mip_dual_bound)


def exact_margin(net: nn.Sequential, x: Tensor, y: int, threat: ThreatModel) -> float:
    """The least z_y - z_j over classes j and images of the ball (L-infinity or L1) around x (C, H, W), in the box."""
    net = net.double().eval()
    program = _Program()
    clean = x.double().flatten().tolist()
    pixels = [program.variable(max(0, p - threat.eps), min(1, p + threat.eps)) for p in clean]
    if threat.norm is Norm.L1:
        sizes = [program.variable(0, threat.eps) for _ in pixels]
        for pixel, size, value in zip(pixels, sizes, clean, strict=True):
            program.row({pixel: 1.0, size: -1.0}, -np.inf, value)
            program.row({pixel: 1.0, size: 1.0}, value, np.inf)
        program.row({size: 1.0 for size in sizes}, 0, threat.eps)
    logits, _ = _through(program, net, pixels, x.shape)
    others = [logit for place, logit in enumerate(logits) if place != y]
    found = min(program.minimum({logits[y]: 1.0, other: -1.0}) for other in others)
    net.float()
    return found


def _through(program: _Program, net: nn.Module, inputs: list[int], shape: torch.Size) -> tuple[list[int], torch.Size]:
    """The variables of what a layer makes of variables, and its shape."""
    sample = torch.zeros(1, *shape, dtype=torch.float64)
    outer = net(sample).shape[1:]
    if isinstance(net, nn.Sequential):
        for layer in net:
            inputs, shape = _through(program, layer, inputs, shape)
        return inputs, shape
    if isinstance(net, Residual):
        inner, _ = _through(program, net.body, inputs, shape)
        both = np.hstack([np.eye(len(inputs)), np.eye(len(inputs))])
        return program.affine(inputs + inner, both, np.zeros(len(inputs))), shape
    if isinstance(net, nn.ReLU):
        return [program.largest([i], 0.0) for i in inputs], shape
    if isinstance(net, nn.MaxPool2d):
        places = torch.arange(len(inputs), dtype=torch.float64).view(1, *shape)
        windows = F.unfold(places, net.kernel_size, stride=net.stride).view(shape[0], -1, outer[1] * outer[2])
        return [program.largest([inputs[int(p)] for p in w]) for c in windows for w in c.T], outer
    bias = net(sample).flatten()
    points = torch.eye(len(inputs), dtype=torch.float64).view(-1, *shape)
    weight = (net(points).flatten(1) - bias).T
    return program.affine(inputs, weight.detach().numpy(), bias.detach().numpy()), outer
