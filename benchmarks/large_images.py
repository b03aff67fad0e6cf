"""What a grid on large pictures takes: pictures of mixed sizes and formats, made up, before a 1,000-class ResNet-18.

    python -m benchmarks.large_images FOLDER [COUNT]

The weights are fresh, so a quarter of the pictures are labelled as the network answers, for an attack to have work.
Prints the grid's table, its seconds, and the most memory that the process held; a second start goes on where it ended.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from robustbench_local.data.vision import import_torchvision
from robustbench_local.grids.run import run_grid
from robustbench_local.models.load import load_model

MODEL = "torchvision:resnet18"
CLASSES = 1000
SUFFIXES = (".jpg", ".png", ".webp", ".bmp")


def make(folder: Path, count: int) -> None:
    """FOLDER/pictures/00000.jpg and so on, each side of 224 to 400 pixels, and their labels; once."""
    root = folder / "pictures"
    if root.exists():
        return
    half_made = folder / "half made"
    transforms = import_torchvision().transforms
    seen = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    net = load_model(MODEL, weights="random")
    half_made.mkdir(parents=True, exist_ok=True)
    (half_made / "classes.txt").write_text("".join(f"class {k:03}\n" for k in range(CLASSES)), encoding="utf-8")
    with (half_made / "labels.csv").open("w", encoding="utf-8") as labels:
        labels.write("file,label\n")
        for number in range(count):
            rng = np.random.default_rng(number)
            coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            width, height = rng.integers(224, 401, 2).tolist()
            picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            label = number % CLASSES
            if number % 4 == 3:
                with torch.no_grad():
                    label = int(net(seen(picture)[None]).argmax())
            name = f"{number:05}{SUFFIXES[number % len(SUFFIXES)]}"
            picture.save(half_made / name)
            labels.write(f"{name},class {label:03}\n")
    half_made.rename(root)


def run(folder: Path) -> None:
    """The grid, in this process, and what it took."""
    started = time.monotonic()
    run_grid(
        str(Path(__file__).with_name("large_images.yaml")),
        data=f"folder:{folder / 'pictures'}",
        results=str(folder / "results"),
    )
    print((folder / "results" / "large_images" / "table.md").read_text(encoding="utf-8"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.monotonic() - started:.0f} s, {peak:.2f} GiB at most")


def main(folder: str, count: str = "2000") -> None:
    make(Path(folder), int(count))
    subprocess.run([sys.executable, "-m", "benchmarks.large_images", "--run", folder], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        run(Path(sys.argv[2]))
    else:
        main(*sys.argv[1:])
