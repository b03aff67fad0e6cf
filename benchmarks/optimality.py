"""How near the minimum-norm attacks come to the nearest images known: AttackBench's optimality, at 2,000 passes.

    python -m benchmarks.optimality                               the zoo's MNIST networks, the first 20 test images
    python -m benchmarks.optimality --only cifar10 --images 15    models whose name holds this
    python -m benchmarks.optimality --images 0                    only the table again

Cinà et al. 2025 ("AttackBench", arXiv:2404.19460): the area over an attack's curve of robust accuracy by eps, up to the
eps at which no image is robust against all attacks together, divided by the same area of all together. 1 is the best:
no attack found any image nearer. All together are this package's attacks that seek the nearest image: an attack from
elsewhere may still find nearer ones, and would lower every figure.

Forward and backward passes of an image are at most 2,000 by the meter, or the benchmark stops. Each attack's distances
are kept in optimality.jsonl as they are found, and packed at the end: stop and go on at will.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._comparisons import ZOO, Subject, images_of, model_of
from benchmarks._kept import Row, keep, kept, pack
from benchmarks._timing import surroundings
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.report.markdown import markdown_table

PASSES = 2000
EVERYWHERE = {Norm.L0: 1e6, Norm.L1: 1e6, Norm.L2: 1e6, Norm.LINF: 0.49}  # balls that hold whatever is found
LONG = {"fmn": {"steps": 999}, "fab": {"steps": 160}}
ATTACKS: dict[Norm, dict[str, dict[str, Any]]] = {
    Norm.L0: {"sigma_zero": {"steps": 999}, "fmn": LONG["fmn"], "jsma": {}},
    Norm.L1: {**LONG, "ead": {"steps": 110, "searches": 6, "rule": "l1"}},
    Norm.L2: {**LONG, "ddn": {"steps": 999}, "cw": {"steps": 166, "searches": 6}, "deepfool": {}},
    Norm.LINF: {**LONG, "deepfool": {}},
}


def distances(subject: Subject, norm: Norm, attack: str, settings: Mapping[str, Any], images: int) -> Row:
    """Of each image that is classified correctly, how far its nearest adversarial image is; None: none was found.

    ValueError where any image took more than PASSES.
    """
    x, y = images_of(subject.data, images, "cpu")
    threat = ThreatModel(norm, EVERYWHERE[norm])
    verdict = evaluate(model_of(subject, "cpu"), x, y, find_attack(attack, settings), threat)
    spent = int((verdict.forwards + verdict.backwards).max())
    if spent > PASSES:
        raise ValueError(f"{attack} took {spent} passes of an image: allowed are {PASSES}, give it fewer steps")
    found = torch.where(verdict.robust, torch.inf, verdict.distance)[verdict.clean].tolist()
    return {"passes": spent, "distances": [float(f"{far:.5g}") if far < torch.inf else None for far in found]}


def optimality(found: Mapping[str, Tensor]) -> dict[str, float]:
    """{attack: optimality}, of the distances (N,) each found for the same images, infinite where it found none.

    The area over a curve of robust accuracy up to eps is the mean of max(0, eps - distance).
    """
    nearest = torch.stack(list(found.values())).amin(0)
    if not nearest.isfinite().any():
        raise ValueError("no attack found any adversarial image: there is no curve to compare with")
    eps = nearest[nearest.isfinite()].max()

    def area(distance: Tensor) -> float:
        return float((eps - distance).clamp_min(0).sum())

    if not area(nearest):
        raise ValueError(f"every image's nearest is at {float(eps):g}: with one distance there is no curve to compare")
    return {attack: area(distance) / area(nearest) for attack, distance in found.items()}


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """The head, and a line for each norm and attack: its optimality on each model and their mean, medians of distances.

    Of rows of the same model, images, norm and attack the last counts.
    """
    groups: dict[tuple[str, str], dict[str, Tensor]] = {}
    for row in rows:
        far = torch.tensor([torch.inf if each is None else each for each in row["distances"]], dtype=torch.float64)
        what = row["what"]
        groups.setdefault((what["norm"], f"{what['subject']}, {what['images']} images"), {})[what["attack"]] = far
    shares = {key: optimality(found) for key, found in groups.items()}
    models = sorted({model for _, model in groups}, reverse=True)
    table = [["norm", "attack", "mean", *models]]
    for norm in dict.fromkeys(norm for norm, _ in groups):
        attacks = dict.fromkeys(attack for key, found in groups.items() if key[0] == norm for attack in found)
        for attack in attacks:
            mine = {model: shares[norm, model][attack] for model in models if attack in shares.get((norm, model), {})}
            mean = f"{sum(mine.values()) / len(mine):.3f}" if len(mine) == len(models) else "-"
            cells = []
            for model in models:
                middle = f"{float(groups[norm, model][attack].median()):.4g}" if model in mine else ""
                cells.append(f"{mine[model]:.3f} ({middle})" if model in mine else "-")
            table.append([norm, attack, mean, *cells])
    return table


def markdown(rows: Sequence[Row]) -> str:
    table = lines(rows)
    machines = "; ".join(sorted({row["hardware"] for row in rows}))
    head = f"""# Optimality of minimum-norm attacks

AttackBench's formula, at most {PASSES:,} passes of an image; in brackets the median distance. All attacks of the table
together are the reference. Mean: over the models. Measured on {machines}.

"""
    return head + markdown_table(table[0], table[1:]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/optimality"))
    parser.add_argument("--only", default="mnist", help="models whose name holds this; an empty one: the four")
    parser.add_argument("--images", type=int, default=20, help="the first so many test images")
    given = parser.parse_args(arguments)
    if given.images < 0:
        parser.error(f"--images is {given.images}: give 0 or more")
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "optimality.jsonl"
    for subject in (each for each in ZOO if given.only in each.name and given.images):
        for norm, attacks in ATTACKS.items():
            for attack, settings in attacks.items():
                same = {"subject": subject.name, "norm": str(norm), "attack": attack, "settings": settings}
                what = same | {"version": find_attack(attack, settings).version, "images": given.images}
                if what in [row["what"] for row in kept(file)]:
                    continue
                found = distances(subject, norm, attack, settings, given.images)
                machine = surroundings(torch.device("cpu"))["hardware"]
                keep(file, {"what": what, "hardware": machine} | found)
                print(f"{subject.name}, {norm}, {attack}: {found['passes']} passes", flush=True)
    pack(file)
    table = markdown(kept(file))
    (given.out / "optimality.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
