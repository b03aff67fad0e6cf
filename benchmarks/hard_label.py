"""How near attacks by labels alone come to an image, by the queries they have made: adba beside hopskipjump, in L∞.

    python -m benchmarks.hard_label                      the zoo's four networks, the first 50 test images, two seeds
    python -m benchmarks.hard_label --only cifar10       models whose name holds this
    python -m benchmarks.hard_label --images 0           only the table again

The same images, classified correctly, for both; the distance of an image is that of the nearest adversarial one among
all that were asked about. hopskipjump may make so many queries, adba half of them; the meter counts. adba draws
nothing, so its seeds would be one. Rows are kept in hard_label.jsonl as they are found: stop and go on at will.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._comparisons import ZOO, Subject, images_of, model_of
from benchmarks._kept import Row, keep, kept
from benchmarks._timing import surroundings
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from robustbench_local.report.markdown import markdown_table

ATTACKS = {"hopskipjump": (4000, (0, 1)), "adba": (2000, (0,))}  # queries of an image, seeds
AT = (100, 200, 500, 1000, 2000, 4000)  # queries after which distances are told
EVERYWHERE = ThreatModel(Norm.LINF, 0.49)  # a ball that holds whatever is found


def followed(attack: IterativeAttack, met: list[tuple[Tensor, Tensor, Tensor]]) -> IterativeAttack:
    """The same attack, which tells after each step of which samples (ids, forwards so far, nearest distance)."""

    class Followed(type(attack)):  # type: ignore[misc]
        def step(
            self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
        ) -> State:
            state = super().step(state, oracle, x, y, threat, draws, i)
            met.append((draws.ids, oracle.forwards.clone(), threat.distance(oracle.best(state["x_adv"]), x)))
            return state

    kind: Any = dataclass(frozen=True)(Followed)
    made: IterativeAttack = kind(**asdict(attack))
    return made


def distances(subject: Subject, attack: str, images: int, queries: int, seed: int) -> dict[str, list[float | None]]:
    """{queries: the distance of each image that is classified correctly, None before the first step ended}."""
    x, y = images_of(subject.data, images, "cpu")
    met: list[tuple[Tensor, Tensor, Tensor]] = []
    plugin = find_attack(attack, {})
    assert isinstance(plugin, IterativeAttack)
    judge = Judge(seed=seed, budget=queries)
    verdict = judge(model_of(subject, "cpu"), Tensors(x, y, torch.arange(images)), followed(plugin, met), EVERYWHERE)
    table = {}
    for at in (at for at in AT if at <= queries):
        nearest = torch.full((images,), torch.inf)
        for ids, forwards, far in met:
            nearest[ids] = torch.where((forwards <= at) & (far > 0), far.minimum(nearest[ids]), nearest[ids])
        found = nearest[verdict.clean].tolist()
        table[str(at)] = [float(f"{far:.4g}") if far < torch.inf else None for far in found]
    return table


def medians(row: Row) -> dict[int, float]:
    """{queries: the median distance}, infinite where most images have none yet."""
    found = {
        int(at): torch.tensor([torch.inf if far is None else far for far in each])
        for at, each in row["distances"].items()
    }
    return {at: float(each.median()) for at, each in found.items()}


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """The head, and a line for each row: the median distance after so many queries, and at how many the other's."""
    whole = max(AT)
    table = [["model", "images", "attack", "seed", *map(str, AT), f"queries to hopskipjump's distance at {whole}"]]
    for row in rows:
        what, far = row["what"], medians(row)
        rivals = [
            medians(other)[whole]
            for other in rows
            if other["what"]["attack"] == "hopskipjump"
            and all(other["what"][name] == what[name] for name in ("subject", "images"))
        ]
        there = [at for at, distance in far.items() if rivals and distance <= min(rivals)]
        reached = "" if what["attack"] == "hopskipjump" else f"{there[0]}" if there else f"not by {max(far)}"
        cells = [f"{far[at]:.4g}" if at in far else "" for at in AT]
        table.append([what["subject"], str(what["images"]), what["attack"], str(what["seed"]), *cells, reached])
    return table


def markdown(rows: Sequence[Row]) -> str:
    table = lines(rows)
    machines = "; ".join(sorted({row["hardware"] for row in rows}))
    head = f"""# Attacks by labels alone

Median L∞ distance of the nearest adversarial image, after so many queries of an image; lower is stronger. The last
column: after how many queries the median is no farther than hopskipjump's nearest at {max(AT):,}, of all its seeds.
Measured on {machines}.

"""
    return head + markdown_table(table[0], table[1:]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/hard_label"))
    parser.add_argument("--only", default="", help="models whose name holds this; an empty one: the four")
    parser.add_argument("--images", type=int, default=50, help="the first so many test images")
    given = parser.parse_args(arguments)
    if given.images < 0:
        parser.error(f"--images is {given.images}: give 0 or more")
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "hard_label.jsonl"
    for subject in (each for each in ZOO if given.only in each.name and given.images):
        for attack, (queries, seeds) in ATTACKS.items():
            for seed in seeds:
                same = {"subject": subject.name, "attack": attack, "version": find_attack(attack, {}).version}
                what = same | {"images": given.images, "queries": queries, "seed": seed}
                if what in [row["what"] for row in kept(file)]:
                    continue
                found = distances(subject, attack, given.images, queries, seed)
                machine = surroundings(torch.device("cpu"))["hardware"]
                keep(file, {"what": what, "hardware": machine, "distances": found})
                print(f"{subject.name}, {attack}, seed {seed}: {found[str(queries)]}", flush=True)
    table = markdown(kept(file))
    (given.out / "hard_label.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
