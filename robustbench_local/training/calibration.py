"""The images by which a variant of a model is calibrated."""

from __future__ import annotations

import warnings
from itertools import product

import torch

from robustbench_local.core.errors import DataError
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_data
from robustbench_local.data.transform import Transform, arguments_of

COUNT = 128  # images at most: ranges need no more


def calibration_images(
    data: str, source: str | None = None, transform: Transform | None = None, device: torch.device | str = "cpu"
) -> Images:
    """The first images of the training split, or as many of each class; the same ones every time.

    Data of a user's own may have no training split. Then they are of the test split, with a warning: some of them are
    judged as well, so the model knows a little of the images that it is measured on. What it knows is the range of
    their activations and no label; still, a training split is better.
    """
    read = {"source": source, "device": device, **arguments_of(transform)}
    reason: DataError | None = None
    for split, n in product(("train", "test"), (COUNT, None)):  # None: there are fewer
        try:
            images = open_data(data, split=split, n=n, **read)
        except DataError as error:
            reason = reason or error
            continue
        if split == "test":
            warnings.warn(
                f"{data} has no training images: int8 is calibrated on {len(images)} of its test images, and some of"
                " these may be judged",
                stacklevel=2,
            )
        return images
    raise reason or DataError(f"{data} has no images")
