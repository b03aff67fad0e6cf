"""What a verdict shows of itself, and how it is kept in a file."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustbench_local.core import tensor_file
from robustbench_local.core.errors import ConfigError, StoreError
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.verdicts import Verdicts, load_verdict
from tests.helpers.verdicts import a_verdict

X = torch.linspace(0, 1, 16).reshape(4, 1, 2, 2)


def measured() -> Verdict:
    """With all that a verdict can hold."""
    return a_verdict(
        attack="pgd",
        threat="linf:0.1",
        x=X,
        x_adv=1 - X,
        scores=torch.tensor([[0.0, -1], [0, -1], [0, -1], [-1, 0]]),
        notes={"steps": torch.tensor([1.0, float("nan"), 3, 4])},
        clean_bits=torch.ones(4, 3, dtype=torch.bool),
        detects=True,
        prepared_forwards=7,
    )


def pictures(html: str) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def assert_same(one: Verdict, other: Verdict) -> None:
    for name in (each.name for each in fields(Verdict)):
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, Tensor):
            assert a.dtype is b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(9), b.nan_to_num(9)), name
        elif name != "notes":
            assert a == b, name
    assert one.notes.keys() == other.notes.keys()
    assert all(torch.equal(one.notes[name].nan_to_num(9), other.notes[name].nan_to_num(9)) for name in one.notes)


def test_of_a_random_model_the_worst_of_ten_draws_stands_beside_the_mean() -> None:
    bits = torch.arange(20) < torch.tensor([20, 19, 10, 9])[:, None]  # ten of them are all right: 1, 1/2, 1/184756, 0
    random = a_verdict(bits=bits)
    assert random.worst_of_ten == pytest.approx((1.5 + 1 / 184756) / 4)
    assert "robust at most 72.5 % (worst of 10 draws 37.5 %) of 4 images" in repr(random)
    assert Verdicts((random, measured())).to_frame()["worst_of_ten"].isna().tolist() == [False, True]
    assert a_verdict(bits=bits[:, :9]).worst_of_ten is a_verdict(bits=bits, corrupted=bits[:, 0]).worst_of_ten is None


def test_a_terminal_shows_one_line() -> None:
    line = repr(measured())
    assert line == ("Verdict(pgd within linf:0.1: clean 100.0 %, robust at most 25.0 % of 4 images; probabilities)")
    assert "75.0 % of 4 images right when corrupted" in repr(
        a_verdict(corrupted=torch.tensor([True, True, True, False]))
    )


def test_a_notebook_shows_a_table_and_what_fell() -> None:
    html = measured()._repr_html_()
    assert "<table>" in html and "at most 25.0 %" in html and "http" not in html and "<script" not in html
    shown = pictures(html)
    broken = [1, 2]  # right, and then not
    wanted = [(each[place, 0] * 255).round().numpy() for place in broken for each in (X, 1 - X)]
    assert len(shown) == 4 and all(np.array_equal(a, b) for a, b in zip(shown, wanted, strict=True))
    assert "image 1: class 1 becomes 0 (pgd)" in html


def test_a_notebook_shows_a_table_alone_where_no_image_was_kept() -> None:
    assert pictures(a_verdict(x_adv=X[:0])._repr_html_()) == []
    html = a_verdict(attack="<b>", x=X)._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;" in html  # a name is a stranger's


def test_a_frame_has_a_row_per_image() -> None:
    frame = measured().to_frame()
    assert frame["robust"].tolist() == [True, False, False, False]
    assert frame["predicted"].tolist() == [0, 0, 0, 1]
    assert frame.loc[2, "steps"] == 3 and len(frame) == 4


def test_a_frame_without_pandas_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        measured().to_frame()


def test_what_is_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    verdict = measured()
    verdict.save(tmp_path / "deep" / "v.npz")
    loaded = load_verdict(tmp_path / "deep" / "v.npz")
    assert isinstance(loaded, Verdict)
    assert_same(verdict, loaded)
    with pytest.raises(AssertionError):
        assert_same(a_verdict(forwards=torch.tensor([41, 3, 5, 2])), a_verdict())
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "v.npz"]


def test_numbers_that_numpy_does_not_have_are_kept_as_well(tmp_path: Path) -> None:
    verdict = a_verdict(x_adv=X.bfloat16())
    verdict.save(tmp_path / "v.npz")
    loaded = load_verdict(tmp_path / "v.npz")
    assert isinstance(loaded, Verdict)
    assert_same(verdict, loaded)


def test_several_verdicts_share_a_file_and_their_images(tmp_path: Path) -> None:
    several = Verdicts((measured(), a_verdict(attack="fgsm", threat="linf:0.1", x=X)))
    several.verdicts[1].save(tmp_path / "one.npz")
    apart = Verdicts((measured(), a_verdict(attack="fgsm", threat="linf:0.1", x=1 - X)))
    for name, each in (("shared", several), ("apart", apart)):
        each.save(tmp_path / f"{name}.npz")
        loaded = load_verdict(tmp_path / f"{name}.npz")
        assert isinstance(loaded, Verdicts) and len(loaded) == 2
        for one, other in zip(each, loaded, strict=True):
            assert_same(one, other)
    with np.load(tmp_path / "shared.npz") as file, np.load(tmp_path / "apart.npz") as other_file:
        assert "1/x" not in file and "1/x" in other_file


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 and then nothing", b"\x93NUMPY"])
def test_what_is_no_verdict_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "v.npz").write_bytes(content)
    with pytest.raises(StoreError, match=r"v\.npz"):
        load_verdict(tmp_path / "v.npz")


@pytest.mark.parametrize("about", [{}, {"kind": "verdict"}, {"kind": "verdicts"}, {"kind": "verdicts", "verdicts": []}])
def test_a_file_that_lacks_what_a_verdict_has_is_an_error(tmp_path: Path, about: dict[str, object]) -> None:
    tensor_file.write(tmp_path / "v.npz", {"labels": torch.zeros(3)}, about)
    with pytest.raises(StoreError, match="no verdict"):
        load_verdict(tmp_path / "v.npz")


def test_somebody_elses_arrays_are_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", x=np.zeros(3))
    with pytest.raises(StoreError, match=r"v\.npz"):
        load_verdict(tmp_path / "v.npz")
