"""`best` from three seeds beside AutoAttack, on nets of all kinds: what luck carries, and whether it ever stays above.

    python -m benchmarks.best_seeds                                the zoo's nets, the first 1,000 test images of each
    python -m benchmarks.best_seeds --weights trades_cnn=PATH --weights fast_cnn=PATH --only cnn    those of others
    python -m benchmarks.best_seeds --images 0                     only the table again

A row a net, attack and seed, kept in seeds.jsonl as it ends. AutoAttack runs once. Where one was asked about more
images than the other, shares are those of the first ones, which both attacked; passes per image are each one's over
all of its images. The bar: the mean over seeds is no more than 0.1 points above AutoAttack.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

import torch

from benchmarks._comparisons import Subject, images_of, model_of
from benchmarks._kept import Row, keep, kept
from benchmarks._timing import surroundings
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.zoo import zoo_names
from robustbench_local.report.markdown import markdown_table
from robustbench_local.storage.checkpoints import weights_digest

SEEDS = (0, 1, 2)
BALLS = {  # undefended, adversarially trained, certified, distilled, smoothed, masked
    "mnist/none": 0.1,
    "mnist/adversarial_training": 0.3,
    "mnist/trades": 0.3,
    "mnist/ibp": 0.3,
    "mnist/distillation": 0.1,
    "mnist/label_smoothing": 0.1,
    "mnist/thermometer": 0.2,
    "cifar10/none": 1 / 255,
    "cifar10/adversarial_training": 8 / 255,
    "cifar10/trades": 8 / 255,
    "cifar10/distillation": 1 / 255,
    "cifar10/thermometer": 1 / 255,
}
HEADS = ("model", "ball", "images", "best, mean", "least", "most", "autoattack", "points", "forwards", "backwards")


def subjects(weights: Sequence[str]) -> Iterator[Subject]:
    for text in weights:
        architecture, _, path = text.partition("=")
        yield Subject(f"{architecture}={Path(path).name}", "mnist", 0.3, 2.0, Path(path))
    for name, eps in BALLS.items():
        if name in zoo_names():
            yield Subject(name, name.partition("/")[0], eps, 0.0)


def measured(subject: Subject, attack: str, seed: int, images: int, device: str) -> Row:
    """Which images are robust, 0 and 1, and the passes of all together."""
    x, y = images_of(subject.data, images, device)
    verdict = evaluate(model_of(subject, device), x, y, attack, ThreatModel(Norm.LINF, subject.linf), seed)
    return {
        "robust": "".join(str(int(robust)) for robust in verdict.robust.tolist()),
        "forwards": int(verdict.forwards.sum()),
        "backwards": int(verdict.backwards.sum()),
    }


def line(ours: Sequence[Row], theirs: Row | None) -> list[str]:
    """One line of the table: the rows of `best` on one net and ball, and AutoAttack's there."""
    what = ours[0]["what"]
    count = min(size(row) for row in (ours[0], theirs or ours[0]))
    robust = [100 * row["robust"][:count].count("1") / count for row in ours]
    points, reference = "-", "-"
    passes = [mean(row[kind] for row in ours) / what["images"] for kind in ("forwards", "backwards")]
    spent = [f"{each:.0f}" for each in passes]
    if theirs:
        left = 100 * theirs["robust"][:count].count("1") / count
        reference, points = f"{left:.1f}", f"{mean(robust) - left:+.2f}"
        full = [theirs[kind] / size(theirs) for kind in ("forwards", "backwards")]
        spent = [f"{each:.0f} ({each / more:.3f} of AutoAttack's)" for each, more in zip(passes, full, strict=True)]
    spread = [f"{mean(robust):.2f}", f"{min(robust):.1f}", f"{max(robust):.1f}"]
    return [what["subject"], what["threat"], str(count), *spread, reference, points, *spent]


def alike(row: Row, what: Row) -> bool:
    """Whether the row is of this net, ball, attack and version, whatever its seed and images."""
    return all(row["what"][key] == what[key] for key in what if key not in ("images", "seed"))


def size(row: Row) -> int:
    return int(row["what"]["images"])


def markdown(rows: Sequence[Row]) -> str:
    """The table, of the newest version of each attack that was measured."""
    newest: dict[str, int] = {}
    for row in rows:
        name = row["what"]["attack"]
        newest[name] = max(newest.get(name, 0), row["what"]["version"])
    shown = [row for row in rows if row["what"]["version"] == newest[row["what"]["attack"]]]
    theirs = [row for row in shown if row["what"]["attack"] == "autoattack"]
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in shown:
        what = row["what"]
        if what["attack"] == "best":
            groups.setdefault((what["subject"], what["threat"], what["images"]), []).append(row)
    seeds = sorted({row["what"]["seed"] for group in groups.values() for row in group})
    machines = sorted({row["surroundings"]["hardware"] for row in rows})
    versions = ", ".join(f"{name} {version}" for name, version in sorted(newest.items()))
    head = f"Versions: {versions}; seeds of best: {', '.join(map(str, seeds))}. Robust accuracy in percent, passes per"
    lines = ["# best beside AutoAttack, over seeds", "", f"{head} image. Hardware: {', '.join(machines)}.", ""]
    table = []
    for group in groups.values():
        beside = group[0]["what"] | {"attack": "autoattack", "version": newest.get("autoattack")}
        table.append(line(group, max((row for row in theirs if alike(row, beside)), key=size, default=None)))
    return "\n".join([*lines, markdown_table(HEADS, table)]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/best"))
    parser.add_argument("--weights", action="append", default=[], metavar="ARCHITECTURE=PATH", help="MNIST weights")
    parser.add_argument("--only", default="", help="nets whose name holds this")
    parser.add_argument("--attacks", nargs="+", choices=("best", "autoattack"), default=["best", "autoattack"])
    parser.add_argument("--images", type=int, default=1000, help="the first so many test images")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "seeds.jsonl"
    for subject in subjects(given.weights):
        if given.only not in subject.name or given.images < 1:
            continue
        about = {
            "subject": subject.name,
            "weights": weights_digest(model_of(subject, "cpu")),
            "threat": str(ThreatModel(Norm.LINF, subject.linf)),
            "images": given.images,
        }
        for attack in given.attacks:
            version = find_attack(attack).version_in(Norm.LINF)
            for seed in SEEDS if attack == "best" else SEEDS[:1]:
                what = about | {"attack": attack, "version": version, "seed": seed}
                done = [row for row in kept(file) if alike(row, what) and attack == "autoattack"]
                if any(row["what"] == what for row in kept(file)) or any(size(row) >= given.images for row in done):
                    continue
                found = measured(subject, attack, seed, given.images, given.device)
                keep(file, {"what": what, "surroundings": surroundings(torch.device(given.device))} | found)
                robust = found["robust"].count("1")
                print(f"{subject.name}, {what['threat']}, {attack}, seed {seed}: {robust} are robust", flush=True)
    table = markdown(kept(file))
    (given.out / "seeds.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
