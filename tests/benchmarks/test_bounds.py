"""The table of what is certified: a broken certificate ends the benchmark, and the shares are those of its images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import bounds
from benchmarks._comparisons import Subject

MODEL = Subject("mnist/none", "mnist", 0.1, 1.5)


def test_a_line_holds_shares_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = torch.tensor([True, True, False, False])
    monkeypatch.setattr(bounds, "evaluate", lambda *_, **__: SimpleNamespace(clean=torch.ones(4).bool(), robust=bits))
    monkeypatch.setattr(bounds, "certify", lambda *_, method: SimpleNamespace(certified=bits & (method == "crown")))
    cells = bounds.line(MODEL, "linf:0.1", 4)
    assert cells[:7] == ["mnist/none", "linf:0.1", "4", "100", "0", "50", "50"] and cells[9:] == ["-", "-"]
    one = bounds.line(MODEL, "linf:0.1", 4, ("crown",))
    assert (one[4], one[5], one[7]) == ("-", "50", "-")
    published = MODEL._replace(name="fast_cnn=x.pth", weights=Path("x"))
    monkeypatch.setattr(bounds, "model_of", lambda *_: None)
    assert bounds.line(published, "l2:0.3", 4)[9:] == ["-", "64"]


def test_a_certified_image_that_fell_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fell = SimpleNamespace(clean=torch.ones(4).bool(), robust=torch.zeros(4).bool())
    monkeypatch.setattr(bounds, "evaluate", lambda *_, **__: fell)
    monkeypatch.setattr(bounds, "certify", lambda *_, method: SimpleNamespace(certified=torch.ones(4).bool()))
    with pytest.raises(AssertionError, match="an image that ibp certifies was broken"):
        bounds.line(MODEL, "linf:0.1", 4)


def test_a_method_is_asked_about_what_the_one_before_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def certify(model: object, x: torch.Tensor, *_: object, method: str) -> SimpleNamespace:
        asked.append((method, len(x)))
        return SimpleNamespace(certified=torch.arange(len(x)) < len(x) - 1)

    robust = SimpleNamespace(clean=torch.ones(4).bool(), robust=torch.ones(4).bool())
    monkeypatch.setattr(bounds, "evaluate", lambda *_, **__: robust)
    monkeypatch.setattr(bounds, "certify", certify)
    assert bounds.line(MODEL, "linf:0.1", 4)[4:6] == ["75", "75"]
    assert asked == [("ibp", 4), ("crown", 1)]


def test_parts_that_are_kept_are_not_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = []

    def part(subject: Subject, threat: str, images: slice, methods: object) -> dict[str, list[float]]:
        made.append((images.start, images.stop))
        bits = [float(number % 2) for number in range(images.start, images.stop)]
        return {"clean": [1.0] * len(bits), "robust": bits, "ibp": bits, "s ibp": [float(len(bits))] * len(bits)}

    monkeypatch.setattr(bounds, "part", part)
    monkeypatch.setattr(bounds, "TOGETHER", 2)
    first = bounds.line(MODEL, "linf:0.1", 2, ("ibp",), tmp_path)
    cells = bounds.line(MODEL, "linf:0.1", 5, ("ibp",), tmp_path)
    assert made == [(0, 2), (2, 4), (4, 5)]
    assert first[3:8] == ["100", "50", "-", "50", "2.0000"] and cells[3:8] == ["100", "40", "-", "40", "1.8000"]


def test_lines_that_are_not_measured_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bounds, "line", lambda subject, threat, *_: [subject.name, threat, "3", *["1"] * 8])
    bounds.main(["--out", str(tmp_path), "--only", "mnist/none"])
    monkeypatch.setattr(bounds, "line", lambda subject, threat, *_: [subject.name, threat, "3", *["2"] * 8])
    bounds.main(["--out", str(tmp_path), "--only", "cifar10/ibp"])
    lines = bounds.measured(tmp_path / "bounds.md")
    assert {key[0]: each[-1] for key, each in lines.items()} == {"mnist/none": "1", "cifar10/ibp": "2"}


def test_shares_have_the_decimals_that_their_images_tell_apart() -> None:
    assert [bounds.percent(torch.arange(n) < n // 3) for n in (4, 100, 1000, 10_000)] == ["25", "33", "33.3", "33.33"]
