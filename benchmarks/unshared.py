"""How to average over draws: which mean of gradients leaves a random model least, in the mean and in the worst of ten?

    python -m benchmarks.unshared                     the zoo's random models and purifiers, 200 bundled images each
    python -m benchmarks.unshared --images 0          only the table again
    python -m benchmarks.unshared --only purifier --steps 10 40

The same loop for all of them: so many steps towards the sign of a direction, shrinking from eps to 0, and DRAWS draws a
step, by which the ways differ:

    ce      the mean gradient of cross-entropy, which is plain EOT (Athalye et al. 2018)
    margin  the mean gradient of the margin
    error   of the margin's sigmoid: the chance of an error, so that draws count most that are about to turn
    shared  DiffHammer's idea (Wang et al. 2024): the draws whose gradients agree, found by a mixture of two directions
            (expectation and maximisation on their cosines), lead; draws that nothing common would break are left out

What comes out meets 100 fresh draws. A part of 100 images is kept as it ends, in unshared.jsonl. Intervals are of
paired differences from `ce`, over images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._kept import Row, keep, kept
from robustbench_local import load_data
from robustbench_local.config.schema import ModelConfig
from robustbench_local.core import losses, resubmission
from robustbench_local.core.decision import success_margin
from robustbench_local.core.defense import call
from robustbench_local.core.device import hardware, pick_device
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.report.markdown import markdown_table
from robustbench_local.training.builder import ModelBuilder

DRAWS, FRESH, PART = 10, 100, 100
SHARP, ROUNDS = 8.0, 5  # of the mixture: how firmly a cosine decides, and how often it is asked again
MODELS: dict[str, tuple[str, str, Any, str]] = {
    "mnist noise_fusion": ("mnist", "mnist_small", "noise_fusion", "linf:0.1"),
    "mnist noise_layers": ("mnist", "mnist_small", "noise_layers", "linf:0.1"),
    "mnist purifier": ("mnist", "mnist_small", {"purifier": {"epochs": 60}}, "linf:0.1"),
    "cifar10 noise_fusion": ("cifar10", "preact_small", "noise_fusion", "l2:0.5"),
    "cifar10 noise_layers": ("cifar10", "preact_small", "noise_layers", "l2:0.5"),
    "cifar10 purifier": ("cifar10", "preact_small", {"purifier": {"epochs": 60}}, "linf:2/255"),
}
Direction = Callable[[Tensor, Tensor], Tensor]  # of gradients (R, N, C, H, W) and margins (R, N), by draws


def plain(grads: Tensor, margins: Tensor) -> Tensor:
    return grads.mean(0)


def by_error(grads: Tensor, margins: Tensor) -> Tensor:
    chance = margins.sigmoid()
    return _weighted(grads, chance * (1 - chance))


def of_the_shared(grads: Tensor, margins: Tensor) -> Tensor:
    """The mean gradient of the larger of two groups of draws."""
    flat = grads.flatten(2)
    unit = flat / flat.norm(dim=2, keepdim=True).clamp_min(1e-12)  # (R, N, D)
    middle = unit.mean(0)
    first = middle / middle.norm(dim=1, keepdim=True).clamp_min(1e-12)
    furthest = (unit * first).sum(2).argmin(0)
    second = unit[furthest, torch.arange(unit.shape[1], device=unit.device)]
    for _ in range(ROUNDS):
        near = torch.stack([(unit * centre).sum(2) for centre in (first, second)])  # (2, R, N)
        mine = (SHARP * near).softmax(0)
        first, second = (
            (total := (share[..., None] * unit).sum(0)) / total.norm(dim=1, keepdim=True).clamp_min(1e-12)
            for share in mine
        )
    larger = mine.sum(1).argmax(0)  # (N,)
    weights = torch.where(larger == 0, mine[0], mine[1])
    return _weighted(grads, weights)


def _weighted(grads: Tensor, weights: Tensor) -> Tensor:
    share = weights / weights.sum(0).clamp_min(1e-12)
    return (share.view(*share.shape, 1, 1, 1) * grads).sum(0)


WAYS: dict[str, tuple[str, Direction]] = {
    "ce": ("ce", plain),
    "margin": ("margin", plain),
    "error": ("margin", by_error),
    "shared": ("margin", of_the_shared),
}


@dataclass(frozen=True)
class Attacked:
    """A random model, images (N, C, H, W) with their labels, and what addresses their random numbers."""

    model: nn.Module
    x: Tensor
    y: Tensor
    draws: Draws

    def after(self, way: str, steps: int, threat: ThreatModel) -> Tensor:
        """(N,) the share of fresh draws that are right."""
        name, direction = WAYS[way]
        loss, x_adv = losses.named(name), threat.start(self.x, self.draws.stream("start"))
        for i in range(steps):
            grads, margins = self._asked(x_adv, loss, i)
            x_adv = threat.climb(x_adv, direction(grads, margins), self.x, threat.eps * (1 - i / steps))
        return self.right(x_adv)

    def _asked(self, x: Tensor, loss: losses.Loss, i: int) -> tuple[Tensor, Tensor]:
        grads, margins = [], []
        for k in range(DRAWS):
            leaf = x.clone().requires_grad_()
            logits = call(self.model, leaf, self.draws.stream("search").stream(i).stream(k))
            grads.append(torch.autograd.grad(loss(logits, self.y).sum(), leaf)[0])
            margins.append(losses.margin(logits.detach(), self.y))
        return torch.stack(grads), torch.stack(margins)

    @torch.no_grad()
    def right(self, x: Tensor) -> Tensor:
        fresh = [call(self.model, x, self.draws.stream("fresh").stream(k)) for k in range(FRESH)]
        return torch.stack([success_margin(logits, self.y) < 0 for logits in fresh]).double().mean(0)


def measure(name: str, first: int, count: int, steps: int, device: torch.device) -> Row:
    data, architecture, defense, text = MODELS[name]
    builder, threat = ModelBuilder(device, source="bundled"), ThreatModel.parse(text)
    model = builder.build(builder.spec(data, ModelConfig(architecture), defense)).requires_grad_(False)
    x, y = (rows[first : first + count].to(device) for rows in load_data(data, n=first + count, source="bundled"))
    attacked, started = Attacked(model, x, y, Draws(0, fingerprint(x))), time.monotonic()
    shares = {"clean": attacked.right(x)} | {way: attacked.after(way, steps, threat) for way in WAYS}
    return {
        "model": name,
        "threat": text,
        "steps": steps,
        "first": first,
        "shares": {way: [round(share, 2) for share in each.tolist()] for way, each in shares.items()},
        "seconds": round(time.monotonic() - started, 1),
        "hardware": hardware(device),
    }


def line(rows: list[Row], way: str) -> list[str]:
    of = {each: np.concatenate([row["shares"][each] for row in rows]) for each in {way, "ce"}}
    again = {each: resubmission.withstands(shares, FRESH) for each, shares in of.items()}
    cells = [rows[0]["model"], rows[0]["threat"], str(rows[0]["steps"]), way, str(len(of[way]))]
    for figures in (of, again):
        mine, plain = figures[way], figures["ce"]
        assert mine is not None and plain is not None
        cells.append(f"{100 * mine.mean():.1f}")
        apart = mine - plain
        reach = 1.96 * apart.std() / len(apart) ** 0.5
        cells.append("–" if way in ("ce", "clean") else f"{100 * apart.mean():+.1f} ± {100 * reach:.1f}")
    return cells


def table(rows: list[Row]) -> str:
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["steps"]), []).append(row)
    order = sorted(groups, key=lambda key: ([*MODELS].index(key[0]), key[1]))
    heads = ["model", "threat", "steps", "way", "images", "mean", "against ce", "worst of 10", "against ce"]
    lines = [line(groups[key], way) for key in order for way in ("clean", *WAYS)]
    machines = ", ".join(sorted({row["hardware"] for row in rows}))
    about = (
        f"`python -m benchmarks.unshared`: robust accuracy in % after {DRAWS} draws a step, by {FRESH} fresh draws, in"
        f" the mean and in the worst of 10. Against ce: paired differences in points, 95 %. Made on {machines}."
    )
    return f"# Ways to average over draws\n\n{about}\n\n{markdown_table(heads, lines)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 40, 100])
    parser.add_argument("--only", default="", help="models whose names hold this")
    parser.add_argument("--folder", type=Path, default=Path("results/benchmarks/unshared"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file, device = options.folder / "unshared.jsonl", pick_device("auto")
    done = {(row["model"], row["steps"], row["first"]) for row in kept(file)}
    for name in [name for name in MODELS if options.only in name]:
        for steps in options.steps:
            for first in range(0, options.images, PART):
                if (name, steps, first) not in done:
                    count = min(PART, options.images - first)
                    keep(file, measure(name, first, count, steps, device))
                    print(name, steps, first, flush=True)
    if rows := kept(file):
        (options.folder / "table.md").write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
