"""ImageNet-C's corruptions at 224 pixels, but for its photographs of frost: as _published.py has CIFAR-10-C's.

Hendrycks and Dietterich 2019, arXiv:1903.12261 (make_imagenet_c.py), written anew from what it computes, before it
writes JPEG files of quality 85.
"""

from __future__ import annotations

from benchmarks._published import (
    Rendering,
    _255,
    additive,
    blurred,
    contrast,
    defocus,
    elastic,
    fog,
    glass,
    hsv,
    impulse,
    jpeg,
    motion,
    of,
    pixelate,
    shot,
    snow,
    spatter,
    zoom_blur,
)

RENDERINGS: dict[str, Rendering] = {
    "gaussian_noise": additive(of(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": shot(of(60, 25, 12, 5, 3)),
    "impulse_noise": impulse(of(0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": defocus(of((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": glass(of((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)), coin=False),
    "motion_blur": motion(of((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": zoom_blur(of((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
    "snow": snow(
        of(
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        )
    ),
    "fog": fog(256, of((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": hsv(2, of((1, 0.1), (1, 0.2), (1, 0.3), (1, 0.4), (1, 0.5))),
    "contrast": contrast(of(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": elastic(
        of((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88))
    ),
    "pixelate": pixelate(of(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": jpeg(of(25, 18, 15, 10, 7)),
    "speckle_noise": additive(of(0.15, 0.2, 0.35, 0.45, 0.6), in_proportion=True),
    "gaussian_blur": lambda x, severity, rng: _255(blurred(x, of(1, 2, 3, 4, 6)(severity))),
    "spatter": spatter(
        of(
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        )
    ),
    "saturate": hsv(1, of((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
}
