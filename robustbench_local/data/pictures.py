"""One image file as 8-bit pixels: what Pillow reads without loss. What would be cut or guessed at is an error."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Bytes
from robustbench_local.data.transform import Transform

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
_PRINTED = {"CMYK": "RGB", "YCbCr": "RGB"}  # with rounding: of photographs that are scaled anyway
_MOST_PIXELS = 4096 * 4096
_MOST_OF_PHOTOGRAPH = 89_478_485  # Pillow's own guard against bombs
_BITS_PER_SAMPLE = 258  # a TIFF tag

Content = Path | bytes  # an image file, or what one holds


def read_picture(content: Content, transform: Transform | None = None, *, name: str | None = None) -> Bytes:
    """uint8 (C, H, W), C 1 or 3. Without a transform, as the file stores them: as torchvision's ImageFolder does,
    transparency is dropped and an orientation that a camera noted beside the pixels is not applied.

    DataError, with the name, where the file is damaged, larger than 4096 x 4096 (89 million pixels with a transform),
    of other modes or of more than 8 bits a channel (Pillow would cut them), or holds several pictures.
    """
    name = str(content if isinstance(content, Path) else name)
    channels = _CHANNELS | _PRINTED if transform else _CHANNELS
    with _opened(content, name) as image:
        if image.width * image.height > (_MOST_OF_PHOTOGRAPH if transform else _MOST_PIXELS):
            most = f"{_MOST_OF_PHOTOGRAPH:,}" if transform else "4096x4096"
            raise DataError(f"{name} is {image.width}x{image.height}: at most {most} pixels are read")
        if _deep(image):
            raise DataError(f"{name} has mode {image.mode} of over 8 bits a channel: give 8-bit grey or RGB images")
        if image.mode not in channels:
            raise DataError(f"{name} has mode {image.mode}: give 8-bit grey or RGB images")
        if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO is a photograph and its preview
            raise DataError(f"{name} holds several pictures: give each a file of its own")
        mode = channels[image.mode]
        pixels = np.asarray(transform.apply(image, mode, name) if transform else image.convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def has_colour(content: Content) -> bool:
    """Whether the file would be read as RGB, by its header alone; False where it cannot be read."""
    with contextlib.suppress(DataError), _opened(content, "") as image:
        return (_CHANNELS | _PRINTED).get(image.mode) == "RGB"
    return False


def picture_size(content: Content) -> tuple[int, int]:
    """(width, height) by the header alone; (0, 0) where it cannot be read."""
    with contextlib.suppress(DataError), _opened(content, "") as image:
        return image.size
    return 0, 0


@contextlib.contextmanager
def _opened(content: Content, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=_FORMATS) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # a decoder may die of anything that a damaged file holds
        raise DataError(f"{name} cannot be read as an image: {error or type(error).__name__}") from error


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
