"""Whether saliency is about the model at all: the parameter randomisation test (Adebayo et al. 2018, arXiv:1810.03292).

A map that stays as it is when the model's parameters are shuffled shows the image, as an edge detector does, and
explains no answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call, draws_for, is_stochastic
from robustbench_local.core.errors import ModelError
from robustbench_local.core.model_state import as_deployed
from robustbench_local.gallery.saliency import saliency
from robustbench_local.metrics.rank_correlation import spearman

UNCHANGED = 0.5  # a median rank correlation, above which a map is taken for the same

Maps = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, x, y) -> (N, H, W)


@dataclass(frozen=True)
class Randomised:
    """The maps after this layer was shuffled, and all above it. correlation: the median over images of their rank
    correlation with the maps of the model as it was; 0 where maps are constant, and nothing is ranked.
    """

    layer: str
    correlation: float


@dataclass(frozen=True)
class Randomisation:
    """What the test found: layers from the top, where answers are made, to the bottom."""

    layers: tuple[Randomised, ...]

    @property
    def depends(self) -> bool:
        """Whether the maps are others once all parameters are shuffled: without that they explain nothing."""
        return self.layers[-1].correlation < UNCHANGED


def parameter_randomisation(model: nn.Module, x: Tensor, *, maps: Maps = saliency, seed: int = 0) -> Randomisation:
    """Shuffle the parameters of a copy of the model, layer by layer from the top, and compare its maps each time.

    x: images (N, C, H, W) in [0, 1], 16 or more for a steady median. maps: any (model, x, y) -> (N, H, W), asked about
    the same classes y throughout, the answers of the model as it was. Values stay within their tensor, so that layers
    keep their scale; what normalisation layers have counted is shuffled too. ModelError where there is nothing to
    shuffle.
    """
    shuffled = copy.deepcopy(model)
    with torch.no_grad(), as_deployed(model):
        y = call(model, x, draws_for(x, None) if is_stochastic(model) else None).argmax(1)
    before = _ranked(maps(model, x, y))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for name, layer in _from_the_top(shuffled):
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            if tensor.is_floating_point():
                order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
                tensor.data.copy_(tensor.data.flatten()[order].view_as(tensor))
        found.append(Randomised(name, _median(spearman(before, _ranked(maps(shuffled, x, y))))))
    if not found:
        raise ModelError("the model has no parameters: nothing of it can be shuffled")
    return Randomisation(tuple(found))


def _from_the_top(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Parts with parameters of their own, the last that was added first: models are built from the bottom."""
    own = [(name, part) for name, part in model.named_modules() if [*part.parameters(recurse=False)]]
    yield from reversed(own)


def _ranked(maps: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return maps.detach().float().cpu().numpy()


def _median(correlations: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(np.median(np.nan_to_num(correlations)))
