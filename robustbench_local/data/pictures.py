"""One image file as 8-bit pixels: what Pillow reads without loss. What would be cut or guessed at is an error."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Bytes

SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
}
OTHER_SUFFIXES = {  # images too, but none that is read: of more bits, without a fixed size, or without a signature
    ".apng",
    ".arw",
    ".avif",
    ".cr2",
    ".cr3",
    ".dcm",
    ".dds",
    ".dib",
    ".dng",
    ".eps",
    ".exr",
    ".fits",
    ".hdr",
    ".heic",
    ".heif",
    ".ico",
    ".j2k",
    ".jp2",
    ".jxl",
    ".mpo",
    ".nef",
    ".orf",
    ".pcx",
    ".pfm",
    ".psd",
    ".qoi",
    ".raw",
    ".rw2",
    ".sgi",
    ".svg",
    ".tga",
    ".xbm",
    ".xpm",
}
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no other decoder meets a stranger's file
_CHANNELS = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB"}
_MOST_PIXELS = 4096 * 4096
_BITS_PER_SAMPLE = 258  # a TIFF tag


def read_picture(file: Path) -> Bytes:
    """uint8 (C, H, W), C 1 or 3, as the file stores them: as torchvision's ImageFolder does, transparency is dropped
    and an orientation that a camera noted beside the pixels is not applied.

    DataError where the file is damaged, larger than 4096 x 4096, of other modes or of more than 8 bits a channel
    (Pillow would cut them), or holds several pictures.
    """
    with _opened(file) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise DataError(f"{file} is {image.width}x{image.height}: at most 4096x4096 pixels are read")
        if _deep(image):
            raise DataError(f"{file} has mode {image.mode} of over 8 bits a channel: give 8-bit grey or RGB images")
        if image.mode not in _CHANNELS:
            raise DataError(f"{file} has mode {image.mode}: give 8-bit grey or RGB images")
        if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO is a photograph and its preview
            raise DataError(f"{file} holds several pictures: give each a file of its own")
        pixels = np.asarray(image.convert(_CHANNELS[image.mode]))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def has_colour(file: Path) -> bool:
    """Whether the file would be read as RGB, by its header alone; False where it cannot be read."""
    with contextlib.suppress(DataError), _opened(file) as image:
        return _CHANNELS.get(image.mode) == "RGB"
    return False


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as image:
                yield image
    except DataError:
        raise
    except Exception as error:  # a decoder may die of anything that a damaged file holds
        raise DataError(f"{file} cannot be read as an image: {error or type(error).__name__}") from error


def _deep(image: Image.Image) -> bool:
    """More than 8 bits a channel in the file, whatever Pillow makes of them."""
    if ";16" in image.mode or image.mode in ("I", "F"):
        return True
    if isinstance(image, TiffImageFile):
        return bool(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8)
    decoder = image.tile[0].args if isinstance(image, ImageFile) and image.tile else None
    if image.format == "PPM":
        return isinstance(decoder, tuple) and int(decoder[-1]) > 255
    return image.format == "PNG" and ";16" in str(decoder)
