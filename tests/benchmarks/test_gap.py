"""The table of PGD-100 beside AutoAttack: of images that both attacked, beside the published gap of those weights."""

from __future__ import annotations

from typing import Any

from benchmarks.gap import line

SAME = {"subject": "trades_cnn=file.pt", "weights": "w", "threat": "linf:0.3"}


def part(first: int, robust: int, **what: Any) -> dict[str, Any]:
    return {"what": what, "first": first, "robust": [1] * robust + [0] * (100 - robust)}


def test_only_images_that_both_attacked_count() -> None:
    rows = [part(0, 97, same=SAME), part(100, 90, same=SAME), part(200, 1, same=SAME)]
    beside = [
        {"what": SAME | {"version": 2}, "first": 0, "robust": [[1] * 92 + [0] * 8, [0] * 100]},
        {"what": SAME | {"version": 2}, "first": 100, "robust": [[1] * 88 + [0] * 12, [0] * 100]},
        {"what": SAME | {"weights": "others"}, "first": 200, "robust": [[0] * 100, [0] * 100]},
    ]
    cells = line(rows, beside)
    assert cells[2:6] == ["200", "93.5", "90.0", "3.5"]
    assert cells[6:9] == ["96.07", "92.81", "3.3"]


def test_weights_of_which_nothing_is_published() -> None:
    same = SAME | {"subject": "mnist/adversarial_training"}
    assert line([part(0, 50, same=same)], [{"what": same, "first": 0, "robust": [[1] * 50 + [0] * 50] * 2}])[6:] == [
        "-",
        "-",
        "-",
        "",
    ]
