"""How far the robust accuracy under PGD-100 is above that under AutoAttack: the gap, beside published ones.

    python -m benchmarks.gap --weights trades_cnn=PATH --weights fast_cnn=PATH    the images that AutoAttack attacked
    python -m benchmarks.gap --images 0                                           only the table again

Which images are robust against our AutoAttack is read from the parts that `python -m benchmarks.strength --autoattack
N` keeps; PGD runs on the same images, a hundred at a time, and is kept in gap.jsonl.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks._comparisons import PART, ZOO, Subject, images_of, model_of
from benchmarks._kept import Row, keep, kept
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.report.markdown import markdown_table
from robustbench_local.storage.checkpoints import weights_digest

STEPS = 100
STEP_SIZE = {"mnist": 0.01, "cifar10": 2 / 255}  # as the papers below took
# accuracy after PGD and after AutoAttack on all test images; TRADES: arXiv:1901.08573 and its repository's table of
# attacks; MNIST after AutoAttack: Liu et al. 2022 (A3, arXiv:2203.05154); Fast is better: arXiv:2001.03994
PUBLISHED = {
    "trades_cnn": (96.07, 92.81, "these weights, PGD-40"),
    "fast_cnn": (88.77, 82.93, "these weights, PGD-50 x 10"),
    "cifar10/adversarial_training": (56.6, 53.1, "TRADES, WRN-34-10, PGD-20: another network"),
}
HEADS = ("model", "ball", "images", "PGD-100", "AutoAttack", "gap", "published PGD", "AutoAttack", "gap", "of")


def subjects(weights: Sequence[str]) -> list[Subject]:
    given = (text.partition("=") for text in weights)
    files = [Subject(f"{name}={Path(path).name}", "mnist", 0.3, 2.0, Path(path)) for name, _, path in given]
    return [*files, *(subject for subject in ZOO if subject.name.endswith("adversarial_training"))]


def after_pgd(subject: Subject, threat: ThreatModel, first: int) -> list[int]:
    x, y = (rows[first : first + PART] for rows in images_of(subject.data, first + PART, "cpu"))
    step_size = STEP_SIZE[subject.data]
    verdict = evaluate(model_of(subject, "cpu"), x, y, "pgd", threat, seed=first, steps=STEPS, step_size=step_size)
    return [int(bit) for bit in verdict.robust]


def line(rows: Sequence[Row], beside: Sequence[Row]) -> list[str]:
    """One line of the table, of the parts of one model and AutoAttack's of the same images."""
    what = rows[0]["what"]["same"]
    ours = {row["first"]: row["robust"][0] for row in beside if what.items() <= row["what"].items()}
    pairs = [(sum(row["robust"]), sum(ours[row["first"]]), len(row["robust"])) for row in rows if row["first"] in ours]
    pgd, autoattack, count = (sum(column) for column in zip(*pairs, strict=True))
    before, after, of = PUBLISHED.get(what["subject"].partition("=")[0], (None, None, ""))
    published = ["-"] * 3 if before is None or after is None else [str(before), str(after), f"{before - after:.1f}"]
    return [
        what["subject"],
        what["threat"],
        str(count),
        f"{100 * pgd / count:.1f}",
        f"{100 * autoattack / count:.1f}",
        f"{100 * (pgd - autoattack) / count:.1f}",
        *published,
        of,
    ]


def markdown(rows: Sequence[Row], beside: Sequence[Row]) -> str:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["what"]), []).append(row)
    lines = ["# What PGD-100 leaves beside AutoAttack", "", "Accuracy in percent.", ""]
    lines.append(markdown_table(HEADS, [line(group, beside) for group in groups.values()]))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gap"))
    parser.add_argument("--beside", type=Path, default=Path("results/benchmarks/strength/parts.jsonl"))
    parser.add_argument("--weights", action="append", default=[], metavar="ARCHITECTURE=PATH", help="MNIST weights")
    parser.add_argument("--images", type=int, default=1000, help="at most so many test images")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice where not given")
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    file, beside = given.out / "gap.jsonl", kept(given.beside)
    for subject in subjects(given.weights):
        threat = ThreatModel(Norm.LINF, subject.linf)
        weights = weights_digest(model_of(subject, "cpu"))
        same = {"subject": subject.name, "weights": weights, "threat": str(threat)}
        attack = {"version": find_attack("pgd").version, "steps": STEPS, "step_size": STEP_SIZE[subject.data]}
        what = {"same": same, "pgd": attack}
        done = {row["first"] for row in kept(file) if row["what"] == what}
        firsts = {row["first"] for row in beside if same.items() <= row["what"].items()}
        for first in sorted(firsts - done):
            if first < given.images:
                keep(file, {"what": what, "first": first, "robust": after_pgd(subject, threat, first)})
    table = markdown(kept(file), beside)
    (given.out / "gap.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
