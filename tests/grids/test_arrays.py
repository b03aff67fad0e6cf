"""The margin beside a row: of robust images below 0, and the nearer to 0 the nearer an attack came."""

from __future__ import annotations

import numpy as np

import robustbench_local as rbl
from robustbench_local.grids.arrays import arrays_of


def test_the_margin_tells_which_robust_images_a_stronger_attack_breaks() -> None:
    x, y = rbl.load_data("mnist", n=200, source="bundled")
    model = rbl.load_model("zoo:mnist/adversarial_training")
    weak = rbl.evaluate(model, x, y, "fgsm", threat="linf:0.3")
    strong = rbl.evaluate(model, x, y, "pgd", threat="linf:0.3", steps=40, loss="margin")
    arrays = arrays_of(weak, None)
    margin, robust = arrays["margin"], arrays["robust"]
    assert margin.dtype == np.float16 and (margin[robust] < 0).all() and (margin[arrays["clean"] & ~robust] >= 0).all()
    lost = robust & ~arrays_of(strong, None)["robust"]
    nearest = np.argsort(-np.where(robust, margin, -np.inf))[: 4 * lost.sum()]
    assert lost.sum() >= 3 and lost[nearest].sum() > 0.8 * lost.sum()


def test_of_a_corruption_no_image_is_near_to_anything() -> None:
    x, y = rbl.load_data("mnist", n=20, source="bundled")
    model = rbl.load_model("zoo:mnist/none")
    assert "margin" not in arrays_of(rbl.evaluate(model, x, y, "gaussian_noise", "none"), None)
