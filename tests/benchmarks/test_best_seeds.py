"""The table of `best` over seeds: mean, least and most of its rows, AutoAttack's beside, and nothing measured twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import best_seeds as benchmark
from benchmarks._comparisons import Subject
from benchmarks._kept import Row, kept


def row(attack: str, seed: int, robust: int, passes: int, version: int = 5, subject: str = "net") -> Row:
    what = {"subject": subject, "weights": "w", "threat": "linf:0.3", "images": 10}
    return {
        "what": what | {"attack": attack, "version": version, "seed": seed},
        "surroundings": {"hardware": "a machine"},
        "robust": "1" * robust + "0" * (10 - robust),
        "forwards": passes,
        "backwards": passes // 2,
    }


def test_the_line_says_mean_least_and_most_and_what_autoattack_leaves() -> None:
    ours = [row("best", seed, robust, 300 * (seed + 1)) for seed, robust in enumerate((5, 6, 7))]
    cells = benchmark.line(ours, row("autoattack", 0, 5, 60_000))
    assert cells[:5] == ["net", "linf:0.3", "10", "60.00", "50.0"] and cells[5] == "70.0"
    assert cells[6:8] == ["50.0", "+10.00"]
    assert cells[8:] == ["60 (0.010 of AutoAttack's)", "30 (0.010 of AutoAttack's)"]
    assert benchmark.line(ours, None)[6:] == ["-", "-", "60", "30"]


def test_shares_are_those_of_the_images_that_both_attacked() -> None:
    """The first ones are robust in these rows, the others not."""
    longer = row("autoattack", 0, 5, 60_000)
    longer |= {"what": longer["what"] | {"images": 20}, "robust": "1" * 7 + "0" * 13}
    text = benchmark.markdown([row("best", 0, 6, 300), longer])
    assert "| 10 | 60.00 | 60.0 | 60.0 | 70.0 | -10.00 | 30 (0.010 of AutoAttack's) | 15 (0.010" in text
    fewer = row("autoattack", 0, 4, 30_000)
    fewer["what"] |= {"images": 5}
    fewer["robust"] = "11110"
    text = benchmark.markdown([row("best", 0, 6, 300), fewer])
    assert "| 5 | 100.00 | 100.0 | 100.0 | 80.0 | +20.00 | 30 (0.005 of AutoAttack's) |" in text


def test_of_each_attack_the_newest_version_is_shown() -> None:
    rows = [row("best", 0, 9, 10, version=4), row("best", 0, 3, 10), row("autoattack", 0, 2, 90, version=2)]
    text = benchmark.markdown([*rows, row("autoattack", 0, 1, 90, version=2, subject="no row of best")])
    assert "| 30.00 | 30.0 | 30.0 | 20.0 | +10.00 |" in text and "90.00" not in text and "no row of best" not in text
    assert "Versions: autoattack 2, best 5; seeds of best: 0." in text and "Hardware: a machine." in text


def test_three_seeds_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    counting = benchmark.measured

    def measured(subject: Subject, attack: str, seed: int, images: int, device: str) -> Row:
        asked.append((attack, seed))
        return counting(subject, "fgsm", seed, images, device)

    monkeypatch.setattr(benchmark, "measured", measured)
    words = ["--out", str(tmp_path), "--only", "mnist/none", "--images", "4"]
    benchmark.main(words)
    benchmark.main(words)
    benchmark.main([*words[:-1], "2", "--attacks", "autoattack"])  # these are among the four
    assert asked == [("best", 0), ("best", 1), ("best", 2), ("autoattack", 0)]
    assert [len(found["robust"]) for found in kept(tmp_path / "seeds.jsonl")] == [4] * 4
    assert "mnist/none" in (tmp_path / "seeds.md").read_text()
