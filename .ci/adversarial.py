"""docs/assets/adversarial.png, the README's picture: an image, what FGSM adds to it, and what the model then says.

Of the bundled CIFAR-10 images it is the first that the model is sure of, before and after: chosen by rule, not by eye.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import robustbench_local as rbl
from robustbench_local.data.catalogue import CIFAR10

OUT = Path("docs/assets/adversarial.png")
SURE = 0.9
FACTOR = 16  # a difference of 8/255 is then half of what a pixel can be


def chosen() -> tuple[Tensor, Tensor, list[str]]:
    """The image (C, H, W), its adversarial twin, and what the model says of each."""
    x, y = rbl.load_data("cifar10", n=200, source="bundled")
    model = rbl.load_model("zoo:cifar10/none")
    verdict = rbl.evaluate(model, x, y, attack="fgsm", threat="linf:8/255")
    with torch.no_grad():
        before, after = (model(images).softmax(1).max(1) for images in (x, verdict.x_adv))
    sure = verdict.clean & ~verdict.robust & (before.values > SURE) & (after.values > SURE)
    place = int(sure.nonzero()[0])
    said = [f"{CIFAR10.classes[int(each.indices[place])]}, {each.values[place]:.0%}" for each in (before, after)]
    return x[place], verdict.x_adv[place], said


def main() -> None:
    image, twin, (before, after) = chosen()
    change = (0.5 + FACTOR * (twin - image)).clamp(0, 1)
    panels = [(image, before), (change, f"the change, {FACTOR} times as strong"), (twin, after)]
    figure, axes = plt.subplots(1, 3, figsize=(6.6, 2.3), layout="constrained")
    for axis, (pixels, title) in zip(axes, panels, strict=True):
        axis.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.savefig(OUT, dpi=110, metadata={"Software": None})
    print(f"{OUT}: {OUT.stat().st_size:,} bytes; {before} -> {after}")


if __name__ == "__main__":
    main()
