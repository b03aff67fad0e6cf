"""Models whose checks are simulated: a fixed and a random one that are made in a tenth of a second, and worse ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils.prune import L1Unstructured, global_unstructured, remove

from robustbench_local import load_data, load_model
from robustbench_local.core.defense import Defended
from robustbench_local.core.draws import Draws

HIDDEN = 64
RIDGE = 3.0
STEPS = 1024  # of a weight, in one
NOISE, MORE_NOISE = 0.3, 0.37
PRUNED = 0.745  # of the weights: chosen such that about 5 points of robust accuracy are lost


def fixed() -> nn.Sequential:
    """Random features (Rahimi and Recht 2008) of the bundled MNIST images, and ridge regression onto the labels."""
    images, labels = load_data("mnist", split="train", source="bundled")
    x, y = images.flatten(1).double(), one_hot(labels, 10).double()
    generator = torch.Generator().manual_seed(0)
    first = 3 / x.shape[1] ** 0.5 * torch.randn(HIDDEN, x.shape[1], generator=generator, dtype=torch.float64)
    shift = 0.3 * torch.randn(HIDDEN, generator=generator, dtype=torch.float64) - x.mean() * first.sum(1)
    hidden = torch.cat([(x @ first.T + shift).relu(), torch.ones(len(x), 1)], 1)
    last = 10 * torch.linalg.solve(hidden.T @ hidden + RIDGE * torch.eye(HIDDEN + 1), hidden.T @ y)
    return nn.Sequential(nn.Flatten(), _layer(first, shift), nn.ReLU(), _layer(last[:-1].T, last[-1])).eval()


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Rounded, so that every machine has the same."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_((weight * STEPS).round() / STEPS)
        layer.bias.copy_((bias * STEPS).round() / STEPS)
    return layer


class Noisy(Defended):
    """The same with Gaussian noise on the hidden features, drawn anew at every call."""

    stochastic = True
    size: Tensor

    def __init__(self, size: float = NOISE) -> None:
        super().__init__()
        self.net = fixed()
        self.register_buffer("size", torch.tensor(size))  # so that the digest of the weights knows it

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        hidden = self.net[:3](x)
        answer: Tensor = self.net[3](hidden + self.size * draws.normal(HIDDEN).to(hidden))
        return answer


def noisier() -> Noisy:
    return Noisy(MORE_NOISE)


def pruned() -> nn.Module:
    """The zoo's adversarially trained network without its smallest weights."""
    net = load_model("zoo:mnist/adversarial_training")
    layers = [(layer, "weight") for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    global_unstructured(layers, L1Unstructured, amount=PRUNED)
    for layer, name in layers:
        remove(layer, name)
    return net
