"""What the pixels of a small set are: an array in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustbench_local.data.images import Images


def stored(images: Images) -> npt.NDArray[np.uint8]:
    """uint8 (N, C, H, W) as `Images` holds them on the CPU."""
    assert isinstance(images.pixels, np.ndarray)
    return images.pixels
