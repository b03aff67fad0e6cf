"""Train the network on adversarial images (Madry et al. 2018, arXiv:1706.06083) and export it.

Half a minute on one CPU core. Only the 2,000 training images that come with robustbench_local are used; the tests take
theirs from the test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Coarse, Digits
from torch import Tensor, nn

import robustbench_local as rbl

BATCH = 100
STEPS = 3  # of the attack in training


def shifted(x: Tensor, numbers: torch.Generator) -> Tensor:
    """The images, moved by up to two pixels: more to learn from."""
    down, right = torch.randint(-2, 3, (2,), generator=numbers).tolist()
    return torch.roll(x, (down, right), (2, 3))


def attacked(net: nn.Module, x: Tensor, y: Tensor, eps: float, numbers: torch.Generator) -> Tensor:
    """The images after a few steps of PGD, each pixel changed by at most eps."""
    added = eps * (2 * torch.rand(x.shape, generator=numbers) - 1)
    for _ in range(STEPS):
        added.requires_grad_()
        loss = F.cross_entropy(net((x + added).clamp(0, 1)), y)
        (gradient,) = torch.autograd.grad(loss, added)
        added = (added.detach() + 1.5 * eps / STEPS * gradient.sign()).clamp(-eps, eps)
    return (x + added).clamp(0, 1)


def trained(eps: float, epochs: int) -> nn.Module:
    """The network after training with perturbations that grow to eps in a third of the time."""
    torch.manual_seed(0)
    numbers = torch.Generator().manual_seed(0)
    x, y = rbl.load_data("mnist", split="train", source="bundled")
    net = Digits()
    adam = torch.optim.Adam(net.parameters())
    pace = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=5e-3, total_steps=epochs * len(x) // BATCH)
    for epoch in range(epochs):
        now = eps * min(1, 3 * (epoch + 1) / epochs)
        for batch in torch.randperm(len(x), generator=numbers).split(BATCH):
            images = attacked(net, shifted(x[batch], numbers), y[batch], now, numbers)
            adam.zero_grad()
            F.cross_entropy(net(images), y[batch]).backward()
            adam.step()
            pace.step()
    return net.eval()


def export(net: nn.Module, path: Path) -> None:
    """As a torch.export program for any number of images, without the paths of the code that it was made of."""
    count = torch.export.Dim("count", min=1)
    program = torch.export.export(net, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: count},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("models/current.pt2"))
    parser.add_argument("--eps", type=float, default=0.2, help="largest change of a pixel in training")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--coarse", action="store_true", help="round the pixels in front of the network")
    options = parser.parse_args()
    net = trained(options.eps, options.epochs)
    export(Coarse(net).eval() if options.coarse else net, options.to)


if __name__ == "__main__":
    main()
