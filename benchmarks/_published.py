"""The 34 published corruptions, image by image, by the libraries that their scripts call: what ours are held against.

Hendrycks and Dietterich 2019, arXiv:1903.12261 (CIFAR-10-C: make_cifar_c.py) and Mu and Gilmer 2019, arXiv:1906.02337
(MNIST-C: corruptions.py), written anew from what these compute. A rendering takes pixels in [0, 1], float64 (H, W, 3)
or (H, W), the severity, and a generator, and gives levels, 0 .. 255. ImageMagick's motion blur is written out here.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage import color, feature, transform, util

Picture = npt.NDArray[Any]
Rendering = Callable[[Picture, int, np.random.Generator], Picture]


def published(name: str, levels: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """An image of 256 levels, uint8, under the corruption of that name: cut to 256 levels by a cast, as files are."""
    found = RENDERINGS[name](levels / 255.0, severity, rng)
    return (found.astype(np.float32) if levels.ndim == 2 else found).astype(np.uint8)


def of(*constants: Any) -> Callable[[int], Any]:
    return lambda severity: constants[severity - 1]


def _255(x: Picture) -> Picture:
    return np.clip(x, 0, 1) * 255


def additive(scale: Callable[[int], float], in_proportion: bool = False) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        noise = rng.normal(0, scale(severity), x.shape)
        return _255(x + (x * noise if in_proportion else noise))

    return render


def shot(grains: Callable[[int], float]) -> Rendering:
    return lambda x, severity, rng: _255(rng.poisson(x * grains(severity)) / grains(severity))


def impulse(share: Callable[[int], float]) -> Rendering:
    return lambda x, severity, rng: _255(util.random_noise(x, mode="s&p", amount=share(severity), rng=rng))


def blurred(x: Picture, sigma: float) -> Picture:
    """gaussian(x, sigma, multichannel=True): the last axis counts channels, those of a grey image its columns."""
    return ndimage.gaussian_filter(x, [sigma] * (x.ndim - 1) + [0], mode="nearest")


def glass(constants: Callable[[int], tuple[float, int, int]], coin: bool) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        sigma, reach, turns = constants(severity)
        seen = (blurred(x, sigma) * 255).astype(np.uint8)
        places = range(len(seen) - reach, reach, -1)
        for h, w in ((h, w) for _ in range(turns) for h in places for w in places):
            if not coin or rng.random() < 0.5:
                right, down = rng.integers(-reach, reach, 2)
                # of an image in colour these are views, of a grey one numbers
                seen[h, w], seen[h + down, w + right] = seen[h + down, w + right], seen[h, w]
        return _255(blurred(seen / 255.0, sigma))

    return render


def defocus(constants: Callable[[int], tuple[float, float]]) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        radius, sigma = constants(severity)
        reach, blur = (8, 3) if radius <= 8 else (int(radius), 5)
        down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        disk = (down**2 + right**2 <= radius**2).astype(np.float32)
        return _255(cv2.filter2D(x, -1, cv2.GaussianBlur(disk / disk.sum(), (blur, blur), sigma)))

    return render


def moved(levels: Picture, radius: int, sigma: float, angle: float) -> Picture:
    """ImageMagick's motion blur of whole levels: along a line, at the nearest pixels, rounded."""
    steps, turn = np.arange(2 * radius + 1), math.radians(angle)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    total = np.zeros(levels.shape)
    for i, weight in zip(steps, weights / weights.sum(), strict=True):
        rows, columns = (
            np.clip(np.arange(len(levels)) + math.ceil(i * way - 0.5), 0, len(levels) - 1)
            for way in (math.sin(turn), math.cos(turn))
        )
        total += weight * levels[np.ix_(rows, columns)]
    return np.floor(total + 0.5)


def motion(constants: Callable[[int], tuple[int, float]]) -> Rendering:
    return lambda x, severity, rng: moved(np.rint(x * 255), *constants(severity), rng.uniform(-45, 45))


def zoomed(x: Picture, zoom: float) -> Picture:
    side = len(x)
    kept = math.ceil(side / zoom)
    first = (side - kept) // 2
    middle = x[first : first + kept, first : first + kept]
    large = ndimage.zoom(middle, (zoom, zoom, 1)[: x.ndim], order=1, mode="nearest")
    trimmed = (len(large) - side) // 2
    return large[trimmed : trimmed + side, trimmed : trimmed + side]


def zoom_blur(constants: Callable[[int], tuple[float, float]]) -> Rendering:
    """constants: where the zooms end, and their step."""

    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        end, step = constants(severity)
        zooms = np.arange(1, end, step)
        return _255((x + sum(zoomed(x, zoom) for zoom in zooms)) / (len(zooms) + 1))

    return render


def plasma(size: int, decay: float, rng: np.random.Generator) -> Picture:
    """Diamonds and squares on a torus: `wibble` shrinks by the decay, and what is drawn is wibble times +- wibble."""
    height, wibble, step = np.zeros((size, size)), 100.0, size
    while step > 1:
        half = step // 2
        aslant = [(-half, -half), (-half, half), (half, -half), (half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for (row, column), ways in (((half, half), aslant), ((0, half), straight), ((half, 0), straight)):
            rows, columns = np.mgrid[row:size:step, column:size:step]
            mean = sum(height[(rows + down) % size, (columns + right) % size] for down, right in ways) / 4
            height[rows, columns] = mean + wibble * rng.uniform(-wibble, wibble, rows.shape)
        step, wibble = half, wibble / decay
    height -= height.min()
    scaled: Picture = height / height.max()
    return scaled


def fog(size: int, constants: Callable[[int], tuple[float, float]]) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        thickness, decay = constants(severity)
        cloud = plasma(size, decay, rng)[: len(x), : len(x)]
        cloud = cloud if x.ndim == 2 else cloud[..., None]
        return _255((x + thickness * cloud) * x.max() / (x.max() + thickness))

    return render


@functools.cache
def photographs() -> Sequence[Picture]:
    """The ice of the published set, at a fifth of its size, from the package imagecorruptions; none without it."""
    spec = importlib.util.find_spec("imagecorruptions")
    folder = Path(spec.origin or "").parent / "frost" if spec else Path("nowhere")
    files = [folder / f"frost{number}.{'png' if number < 4 else 'jpg'}" for number in range(1, 6)]
    return [cv2.resize(cv2.imread(str(f)), (0, 0), fx=0.2, fy=0.2)[..., ::-1] for f in files if f.exists()]


def frost(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    kept, added = of((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))(severity)
    ice = photographs()[int(rng.integers(5))]
    row, column = (rng.integers(0, length - 32) for length in ice.shape[:2])
    iced: Picture = np.clip(kept * x * 255 + added * ice[row : row + 32, column : column + 32], 0, 255)
    return iced


def snow(constants: Callable[[int], tuple[float, ...]]) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        mean, deviation, zoom, threshold, radius, sigma, kept = constants(severity)
        flakes = zoomed(rng.normal(mean, deviation, x.shape[:2]), zoom)
        flakes = np.floor(_255(np.where(flakes < threshold, 0, flakes)))
        flakes = moved(flakes, int(radius), sigma, rng.uniform(-135, -45)) / 255
        grey = cv2.cvtColor(np.float32(x), cv2.COLOR_RGB2GRAY)[..., None]
        bleached = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
        return _255(bleached + (flakes + flakes[::-1, ::-1])[..., None])

    return render


def relief(drops: Picture) -> Picture:
    """What OpenCV makes of drops, uint8: light on them."""
    far = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    far = cv2.equalizeHist(cv2.blur(np.minimum(far, 20), (3, 3)).astype(np.uint8))
    lit = cv2.filter2D(far, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    smooth: Picture = cv2.blur(lit, (3, 3)).astype(np.float32)
    return smooth


def spatter(constants: Callable[[int], tuple[float, float, float, float, float, bool]]) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        mean, deviation, sigma, threshold, last, mud = constants(severity)
        liquid = ndimage.gaussian_filter(rng.normal(mean, deviation, x.shape[:2]), sigma, mode="nearest")
        if mud:
            cover: Picture = ndimage.gaussian_filter((liquid > threshold).astype(np.float32), last, mode="nearest")
            cover = np.where(cover < 0.8, 0, cover)
            colour = np.array([63, 42, 20]) / 255
        else:
            drops = (np.where(liquid < threshold, 0, liquid) * 255).astype(int).astype(np.uint8)
            cover = drops * relief(drops)
            cover *= last / cover.max()
            colour = np.array([175, 238, 238]) / 255
        if x.ndim == 3:
            cover = cover[..., None]
        shown = x * (1 - cover) if mud else x
        return _255(shown + cover * (colour if x.ndim == 3 else colour[0]))

    return render


def contrast(constants: Callable[[int], float]) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        mean = x.mean((0, 1))
        return _255(mean + (x - mean) * constants(severity))

    return render


def hsv(channel: int, constants: Callable[[int], tuple[float, float]]) -> Rendering:
    """A channel of HSV times the first constant, plus the second; grey images by way of colour."""

    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        factor, offset = constants(severity)
        seen = color.rgb2hsv(x if x.ndim == 3 else color.gray2rgb(x))
        seen[..., channel] = np.clip(seen[..., channel] * factor + offset, 0, 1)
        seen = color.hsv2rgb(seen)
        return _255(seen if x.ndim == 3 else color.rgb2gray(seen))

    return render


def jpeg(constants: Callable[[int], int]) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        file = io.BytesIO()
        Image.fromarray(np.rint(x * 255).astype(np.uint8)).save(file, "JPEG", quality=constants(severity))
        return np.asarray(Image.open(file))

    return render


def pixelate(constants: Callable[[int], float]) -> Rendering:
    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        large = (len(x),) * 2
        small = (int(len(x) * constants(severity)),) * 2
        image = Image.fromarray(np.rint(x * 255).astype(np.uint8)).resize(small, Image.Resampling.BOX)
        return np.asarray(image.resize(large, Image.Resampling.BOX))

    return render


def elastic(constants: Callable[[int], tuple[float, float, float]]) -> Rendering:
    """constants: how far the field moves, its blur, how far the points move, in pixels."""

    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        (reach, sigma, corner), side = constants(severity), len(x)
        near, far = side // 2 - side // 3, side // 2 + side // 3
        points = np.array([[far, far], [far, near], [near, near]], np.float32)
        there = points + rng.uniform(-corner, corner, points.shape).astype(np.float32)
        turned = cv2.warpAffine(
            np.float32(x), cv2.getAffineTransform(points, there), (side, side), borderMode=cv2.BORDER_REFLECT_101
        )
        down, right = (
            np.float32(
                reach * ndimage.gaussian_filter(rng.uniform(-1, 1, (side, side)), sigma, mode="reflect", truncate=3)
            )
            for _ in range(2)
        )
        rows, columns = np.indices((side, side))
        place = [rows + down, columns + right]
        planes = [ndimage.map_coordinates(turned[..., c], place, order=1, mode="reflect") for c in range(3)]
        return _255(np.stack(planes, 2))

    return render


def warped(make: Callable[[int, np.random.Generator], tuple[list[list[float]], list[float]]]) -> Rendering:
    """skimage's warp by a matrix over (column, row) about the middle, and a shift."""

    def render(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
        matrix, shift = (np.array(part, float) for part in make(severity, rng))
        middle = np.array([13.5, 13.5])
        whole = np.vstack([np.c_[matrix, middle - matrix @ middle + shift], [0, 0, 1]])
        return _255(transform.warp(x, transform.ProjectiveTransform(whole)))

    return render


def _angle(severity: int, rng: np.random.Generator) -> float:
    return float(rng.choice([-1, 1])) * 0.2 * severity


def _shear(severity: int, rng: np.random.Generator) -> tuple[list[list[float]], list[float]]:
    angle = _angle(severity, rng)
    return [[1, -math.sin(angle)], [0, math.cos(angle)]], [0, 0]


def _rotate(severity: int, rng: np.random.Generator) -> tuple[list[list[float]], list[float]]:
    angle = _angle(severity, rng)
    return [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], [0, 0]


def _scale(severity: int, rng: np.random.Generator) -> tuple[list[list[float]], list[float]]:
    return [[1 / (1 - 0.1 * severity), 0], [0, 1 / (1 - 0.1 * severity)]], [0, 0]


def _translate(severity: int, rng: np.random.Generator) -> tuple[list[list[float]], list[float]]:
    return [[1, 0], [0, 1]], list(severity * rng.choice([-1, 1], 2))


def stroke(c0: float, r0: float, c1: float, r1: float) -> Picture:
    """28 x 28: 1 + log(1 - d / 2.3), d pixels above or below the line, in columns floor(c0) .. ceil(c1) - 1."""
    rows, columns = np.indices((28, 28))
    far = np.minimum(np.abs(rows - r0 - (r1 - r0) / (c1 - c0) * (columns - c0)), 2.3 - 1e-10)
    inside = (columns >= math.floor(c0)) & (columns < math.ceil(c1))
    return np.where(inside, np.clip(1 + np.log(1 - far / 2.3), 0, 1), 0)


def dotted_line(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    for _ in range(severity):
        line = stroke(0, int(rng.integers(27)), 27, int(rng.integers(27)))
        x = np.clip(x + line * (np.arange(28) // 2 % 2), 0, 1)
    return _255(x)


def zigzag(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    for _ in range(severity):
        start, rise = rng.integers(27), rng.integers(-5, 5)
        tilt = math.atan(rise / 23)
        length = 23 / math.cos(tilt)
        corners = [(0, 0), *((4 * i + 2, 2 * (-1) ** i) for i in range(6)), (length, -2 / (2 * (length - 20)))]
        turned = [
            (2 + math.cos(tilt) * c - math.sin(tilt) * r, start + math.sin(tilt) * c + math.cos(tilt) * r)
            for c, r in corners
        ]
        for first, last in pairwise(turned):
            x = np.clip(x + stroke(*first, *last), 0, 1)
    return _255(x)


def stripe(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    width = 2 * severity + 1
    columns = np.arange(28)
    return np.where((columns < width) | (columns >= 28 - width), 1 - x, x) * 255


def canny_edges(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    edges: Picture = feature.canny(x, sigma=of(1, 1.25, 1.5, 1.75, 2)(severity)) * 255.0
    return edges


RENDERINGS: dict[str, Rendering] = {
    "gaussian_noise": additive(of(0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": shot(of(500, 250, 100, 75, 50)),
    "impulse_noise": impulse(of(0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": defocus(of((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": glass(of((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)), coin=False),
    "motion_blur": motion(of((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": zoom_blur(of((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))),
    "snow": snow(
        of(
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        )
    ),
    "frost": frost,
    "fog": fog(32, of((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": hsv(2, of((1, 0.05), (1, 0.1), (1, 0.15), (1, 0.2), (1, 0.3))),
    "contrast": contrast(of(0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": elastic(
        of((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96))
    ),
    "pixelate": pixelate(of(0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": jpeg(of(80, 65, 58, 50, 40)),
    "speckle_noise": additive(of(0.06, 0.1, 0.12, 0.16, 0.2), in_proportion=True),
    "gaussian_blur": lambda x, severity, rng: _255(blurred(x, of(0.4, 0.6, 0.7, 0.8, 1)(severity))),
    "spatter": spatter(
        of(
            (0.62, 0.1, 0.7, 0.7, 0.5, False),
            (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1, 0.69, 0.5, False),
            (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        )
    ),
    "saturate": hsv(1, of((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
    "mnist_shot_noise": shot(of(60, 25, 12, 5, 3)),
    "mnist_impulse_noise": impulse(of(0.03, 0.06, 0.09, 0.17, 0.27)),
    "mnist_glass_blur": glass(of((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)), coin=True),
    "mnist_motion_blur": motion(of((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "shear": warped(_shear),
    "scale": warped(_scale),
    "rotate": warped(_rotate),
    "mnist_brightness": hsv(2, of((1, 0.1), (1, 0.2), (1, 0.3), (1, 0.4), (1, 0.5))),
    "translate": warped(_translate),
    "stripe": stripe,
    "mnist_fog": fog(256, of((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "mnist_spatter": spatter(
        of(
            (0.65, 0.3, 4, 0.69, 0.6, True),
            (0.65, 0.3, 3, 0.68, 0.6, True),
            (0.65, 0.3, 2, 0.68, 0.5, True),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        )
    ),
    "dotted_line": dotted_line,
    "zigzag": zigzag,
    "canny_edges": canny_edges,
}

CODEC = {"jpeg_compression"}  # nothing is drawn, but another make rounds another coefficient now and then
# nothing is drawn: equal to a grey level, which rounding errors of the published code decide here and there
EXACT = {
    "defocus_blur",
    "gaussian_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "saturate",
    "pixelate",
    "scale",
    "stripe",
    "mnist_brightness",
    "canny_edges",
}
