"""The table of strength beside peers: its arithmetic, what is kept, and that a second call goes on where one ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import _comparisons
from benchmarks._comparisons import AUTOATTACK, ZOO, Comparison, entries, figures, images_of, model_of
from benchmarks._kept import keep, kept
from benchmarks._peers import peer
from benchmarks.strength import behind, main, markdown, newest


def robust(*bits: str) -> Tensor:
    """One word of 0 and 1 per pair of runs."""
    return torch.tensor([[bit == "1" for bit in word] for word in bits])


def test_figures_of_one_pair_and_of_several() -> None:
    row = figures(robust("1110000000"), robust("0100000001"))
    assert row["robust_accuracy"] == pytest.approx([30, 20]) and row["difference"] == pytest.approx(10)
    assert row["luck"] == pytest.approx(10 * 3**0.5)  # three images differ
    assert (row["more_after_ours"], row["more_after_theirs"]) == ([0, 2], [9])
    halves = figures(robust("10", "10"), robust("10", "00"))  # one image, in one pair of two
    assert halves["difference"] == pytest.approx(25) and halves["luck"] == pytest.approx(25)


def test_behind_is_more_than_half_a_point_and_more_than_luck() -> None:
    most = robust("1" * 100)
    for fewer, expected in ((1, False), (4, False), (5, True), (100, True)):  # 2 sqrt(k) < k from 5 on
        assert behind(figures(most, robust("0" * fewer + "1" * (100 - fewer)))) is expected
    assert not behind(figures(robust("0" * 100), most))
    many, one_less = robust("1" * 10_000), robust("0" * 40 + "1" * 9_960)
    assert not behind(figures(many, one_less))  # 0.4 points: no luck, but allowed


def test_only_the_newest_version_of_a_comparison_is_shown() -> None:
    def row(attack: str, version: int, images: int, accuracy: int) -> dict[str, object]:
        return {"what": {"attack": attack, "version": version, "images": images}, "robust_accuracy": accuracy}

    rows = [
        row("autoattack", 1, 30, 90),
        row("cw", 1, 30, 80),
        row("autoattack", 2, 30, 70),
        row("autoattack", 1, 99, 60),
    ]
    assert [shown["robust_accuracy"] for shown in newest(rows)] == [80, 70, 60]


def test_rows_of_older_files_are_read_by_their_names_now(tmp_path: Path) -> None:
    (tmp_path / "parts.jsonl").write_text('{"first": 0, "stood": [1, 0], "standing": 50}\n')
    assert kept(tmp_path / "parts.jsonl") == [{"first": 0, "robust": [1, 0], "robust_accuracy": 50}]


def test_half_a_line_is_no_row_and_spoils_none(tmp_path: Path) -> None:
    file = tmp_path / "strength.jsonl"
    assert kept(file) == []
    keep(file, {"a": 1})
    with file.open("a") as out:
        out.write('{"b": ')  # killed here
    keep(file, {"c": 3})
    assert kept(file) == [{"a": 1}, {"c": 3}]


def test_every_attack_of_ours_takes_its_settings() -> None:
    for subject in ZOO:
        for entry in [*entries(subject.linf), AUTOATTACK]:
            for theirs in entry.theirs:
                comparison = Comparison(subject, entry, theirs, 10)
                assert comparison.what["version"] >= 1 and comparison.threat.eps > 0


def test_an_image_outside_the_ball_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    nearest = next(entry for entry in entries(0.1) if entry.attack == "deepfool")
    comparison = Comparison(ZOO[0], nearest, "torchattacks:DeepFool", 4)
    model, (x, y) = model_of(ZOO[0], "cpu"), images_of("mnist", 4, "cpu")
    fooled = x.flip(0)  # the images of the others
    monkeypatch.setattr(_comparisons, "peer", lambda *given, **more: lambda images, labels: fooled)
    assert not comparison._missed(model, fooled, y).any() and comparison.after_theirs(model, x, y, 0).all()
    everywhere = Comparison(ZOO[0], nearest._replace(eps=28.0), "torchattacks:DeepFool", 4)
    assert not everywhere.after_theirs(model, x, y, 0).any()
    assert not comparison.after_theirs(model, x, (y + 1) % 10, 0).any()  # misclassified from the start


@pytest.mark.parametrize(("eps", "robust_images"), [(200.0, 0), (1.0, 4)])
def test_an_attack_of_ours_stands_in_for_a_peer(eps: float, robust_images: int) -> None:
    name = "robustbench_local:sparse_rs"
    entry = next(entry for entry in entries(0.1) if name in entry.theirs)
    comparison = Comparison(ZOO[0], entry._replace(theirs={name: {"steps": 50}}, eps=eps), name, 4)
    model, (x, y) = model_of(ZOO[0], "cpu"), images_of("mnist", 4, "cpu")
    assert comparison.after_theirs(model, x, y, 0).sum() == robust_images
    with pytest.raises(ValueError, match="targets"):
        peer(name, {}, model, comparison.threat, targeted=True, seed=0)(x, y)


def test_a_second_call_adds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    call = ["--out", str(tmp_path), "--images", "8", "--pairs", "2", "--only", "fgsm mnist torchattacks"]
    main(call)
    rows = kept(tmp_path / "strength.jsonl")
    assert [row["what"]["subject"] for row in rows] == ["mnist/none", "mnist/adversarial_training"]
    for row in rows:
        assert row["robust_accuracy"][0] == row["robust_accuracy"][1]  # FGSM is FGSM
        assert len(row["seconds"][0]) == len(row["seconds"][1]) == 2
    assert "unverified" in (tmp_path / "strength.md").read_text() and markdown(rows).count("| fgsm |") == 2
    capsys.readouterr()
    main(call)
    assert kept(tmp_path / "strength.jsonl") == rows and "..." not in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--full"], ["--weights", "trades_cnn"], ["--pairs", "0"], ["--images", "0"], ["--autoattack", "-1"]]
)
def test_arguments_are_checked(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


def test_a_long_comparison_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_comparisons, "PART", 4)
    asked: list[int] = []

    def run(images: Tensor, name: str) -> Tensor:
        if name == "ours":
            asked.append(len(images))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return torch.ones(len(images), dtype=torch.bool)

    monkeypatch.setattr(Comparison, "_ours", lambda self, model, x, *rest: run(x, "ours"))
    monkeypatch.setattr(Comparison, "after_theirs", lambda self, model, x, *rest: run(x, "theirs"))
    comparison = Comparison(ZOO[0], AUTOATTACK, "pyautoattack:AutoAttack", 10)
    parts = tmp_path / "parts.jsonl"
    with pytest.raises(KeyboardInterrupt):
        comparison.run(1, 1, "cpu", parts)
    assert [row["first"] for row in kept(parts)] == [0, 4]
    asked.clear()
    row = comparison.run(1, 1, "cpu", parts)
    assert asked == [2] and row["robust_accuracy"] == [100, 100] and row["more_after_ours"] == []
