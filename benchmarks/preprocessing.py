"""How long preprocessing takes, beside Pillow, scikit-image and kornia: ratios of times, ours over theirs.

    python -m benchmarks.preprocessing --images 256 --runs 5

Every ratio is the median over pairs of runs in one process, on one thread, with the same CIFAR-10 images and settings.
A gradient is a forward pass and the gradient of a weighted sum of its result; only kornia has one to compare with.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks._timing import pairs, surroundings
from robustbench_local.core.defense import Deployed
from robustbench_local.data.load import load_data
from robustbench_local.defenses._wrapper import Step, Wrapper
from robustbench_local.defenses.bilateral import Bilateral
from robustbench_local.defenses.gaussian_blur import GaussianBlur
from robustbench_local.defenses.jpeg import JPEG
from robustbench_local.defenses.median import Median
from robustbench_local.defenses.non_local_means import NonLocalMeans
from robustbench_local.defenses.total_variation import TotalVariation

CPU = torch.device("cpu")
Change = Callable[[Tensor], Any]
Peer = tuple[str, Change, bool]  # its name, what it does to a batch, whether it has a gradient


def pillow(change: Callable[[Any], Any]) -> Peer:
    """change takes and gives one of its images."""
    from PIL import Image

    def run(x: Tensor) -> None:
        for image in (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy():
            np.asarray(change(Image.fromarray(image)))

    return "pillow", run, False


def scikit_image(module: str, function: str, *arguments: Any, **settings: Any) -> Iterator[Peer]:
    """None where it is not installed; the function takes and gives one image (H, W, C)."""
    if importlib.util.find_spec("skimage"):
        change = getattr(importlib.import_module(f"skimage.{module}"), function)

        def run(x: Tensor) -> None:
            for image in x.permute(0, 2, 3, 1).contiguous().numpy():
                change(image, *arguments, **settings)

        yield "scikit-image", run, False


def kornia(function: str, *arguments: Any, **settings: Any) -> Iterator[Peer]:
    """None where it is not installed; the function takes and gives a batch."""
    if importlib.util.find_spec("kornia"):
        change = getattr(importlib.import_module("kornia.filters"), function)
        yield "kornia", lambda x: change(x, *arguments, **settings), True


def kornia_jpeg() -> Iterator[Peer]:
    if importlib.util.find_spec("kornia"):
        codec = importlib.import_module("kornia.enhance").JPEGCodecDifferentiable()
        yield "kornia", lambda x: codec(x, torch.tensor([75.0])), True


def through_a_file(image: Any) -> Any:
    from PIL import Image

    file = io.BytesIO()
    image.save(file, "jpeg", quality=75)
    return Image.open(file)


def cases() -> Iterator[tuple[Wrapper, list[Peer]]]:
    from PIL.ImageFilter import GaussianBlur as PillowBlur
    from PIL.ImageFilter import MedianFilter

    yield JPEG(75), [pillow(through_a_file), *kornia_jpeg()]
    yield (
        Median(3),
        [
            pillow(lambda image: image.filter(MedianFilter(3))),
            *scikit_image("filters", "median", np.ones((3, 3, 1))),
            *kornia("median_blur", 3),
        ],
    )
    yield (
        GaussianBlur(0.7),
        [
            pillow(lambda image: image.filter(PillowBlur(0.7))),
            *scikit_image("filters", "gaussian", 0.7, mode="mirror", channel_axis=2),
            *kornia("gaussian_blur2d", 7, (0.7, 0.7)),
        ],
    )
    yield (
        Bilateral(5, 1.0, 0.1),
        [
            *scikit_image("restoration", "denoise_bilateral", 5, 0.1, 1.0, mode="reflect", channel_axis=2),
            *kornia("bilateral_blur", 5, 0.1, (1.0, 1.0), color_distance_type="l2"),
        ],
    )
    yield (
        TotalVariation(0.1, 30),
        [*scikit_image("restoration", "denoise_tv_chambolle", 0.1, eps=0, max_num_iter=31, channel_axis=2)],
    )
    yield (
        NonLocalMeans(11, 3, 0.1),
        [*scikit_image("restoration", "denoise_nl_means", 3, 5, 0.1, fast_mode=True, channel_axis=2)],
    )


def gradient(change: Change) -> Change:
    def run(x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        weights = torch.linspace(-1, 1, x[0].numel()).view_as(x[0])
        return torch.autograd.grad((change(leaf) * weights).sum(), leaf)[0]

    return run


def compare(ours: Change, theirs: Change, x: Tensor, runs: int) -> tuple[float, float, float]:
    """Medians: seconds of ours, of theirs, and of the ratio in each pair; the first pair is for warming up."""
    times = [(a, b) for (_, a), (_, b) in islice(pairs(lambda: ours(x), lambda: theirs(x), CPU), 1, runs + 1)]
    own, other, ratio = zip(*((a, b, a / b) for a, b in times), strict=True)
    return statistics.median(own), statistics.median(other), statistics.median(ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time preprocessing beside other packages.")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x, _ = load_data("cifar10", n=arguments.images, source="bundled")
    scale = 1e6 / len(x)
    table = Table("defense", "pass", "peer", "ours, µs per image", "theirs", "ours / theirs")
    for wrapper, peers in cases():
        ours = Deployed(nn.Identity(), [Step(wrapper)])  # with its surrogate's gradient
        forward = partial(wrapper.apply, draws=None)
        rows: list[tuple[str, Change, str, Change]] = [("forward", forward, name, job) for name, job, _ in peers]
        rows += [("gradient", gradient(ours), name, gradient(job)) for name, job, graded in peers if graded]
        for what, own, name, job in rows:
            mine, theirs, ratio = compare(own, job, x, arguments.runs)
            table.add_row(str(wrapper), what, name, f"{mine * scale:.0f}", f"{theirs * scale:.0f}", f"{ratio:.2f}")
        if not any(graded for _, _, graded in peers):
            mine, _, _ = compare(gradient(ours), lambda x: x, x, arguments.runs)
            table.add_row(str(wrapper), "gradient", "none", f"{mine * scale:.0f}", "-", "-")
    about = ", ".join(f"{key} {value}" for key, value in surroundings(CPU).items())
    console = Console(width=120)
    console.print(table)
    console.print(f"{len(x)} images; {about}")


if __name__ == "__main__":
    main()
