"""`best` beside all attacks of the house together, in every norm: what it leaves, and for how many of their passes.

    python -m benchmarks.ensemble                       MNIST networks, the first 100 test images of each
    python -m benchmarks.ensemble --only "l0 trades"    the pairs whose name holds these words
    python -m benchmarks.ensemble --images 0            only the table again

All together: AutoAttack, PGD from either start and what seeks the nearest image, in L0 Sparse-AutoAttack, Sparse-RS and
what seeks the fewest pixels, each on what the ones before left, so that their passes are fewer than of each alone. The
bar: `best` leaves no more than 0.2 points above them, for a tenth of the passes, forward and backward ones together.
A row a network and ball is kept in ensemble.jsonl as it ends. Three networks are trained for L2, L1 and L0 on the first
run, in about four minutes of one core each, and then kept in the cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from benchmarks._comparisons import Subject, images_of, model_of
from benchmarks._kept import Row, keep, kept
from benchmarks._timing import surroundings
from robustbench_local.config.plugins import find_attack
from robustbench_local.config.schema import ModelConfig
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.report.markdown import markdown_table
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.training.builder import ModelBuilder

BALLS = (  # in which some images are robust
    ("mnist/none", "linf:0.1"),
    ("mnist/adversarial_training", "linf:0.3"),
    ("mnist/none", "l2:1.5"),
    ("mnist/adversarial_training", "l2:1.5"),
    ("mnist/trades", "l2:1.5"),
    ("mnist/ibp", "l2:1.5"),
    ("mnist/none", "l1:10"),
    ("mnist/adversarial_training", "l1:10"),
    ("mnist/none", "l0:5"),
    ("mnist/adversarial_training", "l0:6"),
    ("mnist/trades", "l0:8"),
    ("mnist/trained in L2", "l2:2"),
    ("mnist/trained in L1", "l1:15"),
    ("mnist/trained in L0", "l0:8"),
)
TRAINED = {"mnist/trained in L2": "l2:2", "mnist/trained in L1": "l1:15", "mnist/trained in L0": "l0:8"}  # in this ball
EITHER_START: tuple[tuple[str, dict[str, Any]], ...] = (("pgd", {}), ("pgd", {"random_start": False}))
MEMBERS: Mapping[Norm, tuple[tuple[str, dict[str, Any]], ...]] = {
    Norm.LINF: (*EITHER_START, ("fmn", {}), ("autoattack", {})),
    Norm.L2: (*EITHER_START, ("ddn", {"steps": 1000}), ("fmn", {"steps": 1000}), ("autoattack", {})),
    Norm.L1: (*EITHER_START, ("fmn", {"steps": 1000}), ("pdpgd", {"polish": 0.4}), ("autoattack", {})),
    Norm.L0: (("fmn", {"steps": 1000}), ("jsma", {}), ("sigma_zero", {}), ("sparse_autoattack", {}), ("sparse_rs", {})),
}
HEADS = ("model", "ball", "images", "best", "all together", "points", "passes of best", "of all together", "share")


@dataclass(frozen=True)
class Together(Suite):
    """All members of the norm, cheap ones first."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset(MEMBERS)

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {f"{place}": find_attack(*each) for place, each in enumerate(MEMBERS[norm])}

    def versions(self, norm: Norm) -> list[str]:
        """What attacked, in words that change with it."""
        return [f"{name} {find_attack(name).version_in(norm)} {settings}" for name, settings in MEMBERS[norm]]


def network(name: str, device: str) -> nn.Module:
    """One of the zoo's, or one trained here, the first time that it is asked for."""
    if name not in TRAINED:
        return model_of(Subject(name, name.partition("/")[0], 0.0, 0.0), device)
    builder = ModelBuilder(torch.device(device))
    training = {"adversarial_training": {"threat": TRAINED[name], "steps": 5, "ramp": 0.4}}
    spec = builder.spec("mnist", ModelConfig("mnist_small", schedule={"epochs": 3}), training)
    return builder.build(spec).requires_grad_(False)


def measured(name: str, attack: str, threat: ThreatModel, images: int, device: str) -> Row:
    """Which images are robust, 0 and 1, and the passes of all images together."""
    x, y = images_of(name.partition("/")[0], images, device)
    verdict = evaluate(network(name, device), x, y, Together() if attack == "together" else attack, threat)
    return {
        "robust": "".join(str(int(robust)) for robust in verdict.robust.tolist()),
        "passes": int((verdict.forwards + verdict.backwards).sum()),
    }


def line(ours: Row, together: Row) -> list[str]:
    what = ours["what"]
    count = what["images"]
    left = [100 * row["robust"].count("1") / count for row in (ours, together)]
    passes = [row["passes"] / count for row in (ours, together)]
    return [
        *(what["subject"], what["threat"], str(count)),
        *(f"{share:.1f}" for share in left),
        f"{left[0] - left[1]:+.1f}",
        *(f"{each:.0f}" for each in passes),
        f"{passes[0] / passes[1]:.2f}",
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The table: of each network, ball and number of images the newest row of either."""
    newest: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in rows:
        what = row["what"]
        newest.setdefault((what["subject"], what["threat"], what["images"]), {})[what["attack"]] = row
    table = [line(pair["best"], pair["together"]) for pair in newest.values() if len(pair) == 2]
    machines = ", ".join(sorted({row["surroundings"]["hardware"] for row in rows}))
    head = f"Robust accuracy in percent, forward and backward passes per image. Hardware: {machines}."
    return "\n".join(["# best beside all attacks together", "", head, "", markdown_table(HEADS, table)]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/best"))
    parser.add_argument("--only", default="", help="where NAME BALL holds all these words")
    parser.add_argument("--images", type=int, default=100, help="the first so many test images")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "ensemble.jsonl"
    for name, ball in BALLS if given.images else ():
        if not all(word in f"{name} {ball}" for word in given.only.split()):
            continue
        threat = ThreatModel.parse(ball)
        version = {"best": find_attack("best").version_in(threat.norm), "together": Together().versions(threat.norm)}
        weights = weights_digest(network(name, "cpu"))
        for attack in ("best", "together"):
            what = {"subject": name, "weights": weights, "threat": ball, "images": given.images}
            what |= {"attack": attack, "version": version[attack]}
            if any(row["what"] == what for row in kept(file)):
                continue
            found = measured(name, attack, threat, given.images, given.device)
            keep(file, {"what": what, "surroundings": surroundings(torch.device(given.device))} | found)
            print(f"{name}, {ball}, {attack}: {found['robust'].count('1')} are robust", flush=True)
    table = markdown(kept(file))
    (given.out / "ensemble.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
