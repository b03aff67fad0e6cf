"""CIE 1976 L*a*b* of linear RGB under D65, scaled so that a byte would hold it, as image libraries do."""

from __future__ import annotations

import torch
from torch import Tensor

# rows: X, Y, Z of R, G, B (ITU-R BT.709), each divided by what white has
_TO_XYZ = torch.tensor(
    [
        [0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456],
        [0.212671, 0.715160, 0.072169],
        [0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754],
    ],
    dtype=torch.float64,
)
_FROM_XYZ = torch.linalg.inv(_TO_XYZ)
_KNEE = 6 / 29  # of the cube root: below its cube it is a line
_SLOPE, _LEVEL = 1 / (3 * _KNEE**2), 4 / 29


def to_lab(x: Tensor) -> Tensor:
    """x (N, 3, H, W) in [0, 1] -> L* / 100, a* / 255 + 1/2, b* / 255 + 1/2."""
    xyz = torch.einsum("cd,ndhw->nchw", _TO_XYZ.to(x), x)
    root = xyz.clamp_min(_KNEE**3).pow(1 / 3)  # clamped, so that no infinite slope is multiplied by zero
    fx, fy, fz = torch.where(xyz > _KNEE**3, root, _SLOPE * xyz + _LEVEL).unbind(1)
    return torch.stack([1.16 * fy - 0.16, 500 / 255 * (fx - fy) + 0.5, 200 / 255 * (fy - fz) + 0.5], 1)


def from_lab(lab: Tensor) -> Tensor:
    """The inverse; what no screen can show lies outside [0, 1]."""
    level, a, b = lab.unbind(1)
    fy = (level + 0.16) / 1.16
    f = torch.stack([fy + 255 / 500 * (a - 0.5), fy, fy - 255 / 200 * (b - 0.5)], 1)
    xyz = torch.where(f > _KNEE, f**3, (f - _LEVEL) / _SLOPE)
    return torch.einsum("cd,ndhw->nchw", _FROM_XYZ.to(lab), xyz)
