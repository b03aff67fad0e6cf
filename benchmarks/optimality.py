"""How near the minimum-norm attacks come to the nearest images known: AttackBench's optimality, at 2,000 passes.

    python -m benchmarks.optimality                               five of the zoo's networks, the first 50 test images
    python -m benchmarks.optimality --weights trades_cnn=PATH --weights fast_cnn=PATH     and other MNIST networks
    python -m benchmarks.optimality --only "mnist l1" --images 20    where "model norm attack" holds all these words
    python -m benchmarks.optimality --images 0                    only the table again

Cinà et al. 2025 ("AttackBench", arXiv:2404.19460): the area over an attack's curve of robust accuracy by eps, up to the
eps at which no image is robust against all attacks together, divided by the same area of all together. 1 is the best:
no attack found any image nearer. All together are this package's attacks that seek the nearest image and those of the
peers that are installed: Foolbox, adversarial-library, torchattacks, ART; yet another may still find nearer ones, and
would lower every figure.

Forward and backward passes of an image are at most 2,000 by the meter, of ours and of peers, or the benchmark stops. Of
a peer too the nearest success counts that it asked about. Peers have their own default settings but for the steps, and
ALMA for the length of its first step: its default, 0.1 for every coordinate, leaves an L1 distance of 5 on CIFAR-10.
In L0 this package counts pixels, adversarial-library and Foolbox their channels. adversarial-library was
measured with an empty stand-in of visdom, which it imports and these attacks do not use. Not in the table, since they
were behind on six images of mnist/none: torchattacks' CW, EADL1, DeepFool, JSMA and SparseFool, ART's CarliniL2Method,
CarliniLInfMethod and NewtonFool. Foolbox's Brendel-Bethge attacks need numba and were not tried. Each attack's
distances are kept in optimality.jsonl as they are found, and packed at the end: stop and go on at will.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._adv_lib import AdvLib
from benchmarks._comparisons import ZOO, Subject, images_of, model_of, others
from benchmarks._kept import Row, keep, kept, pack
from benchmarks._peers import release
from benchmarks._timing import surroundings
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.attack import Attack
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.report.markdown import markdown_table

PASSES = 2000
SUBJECTS = (*ZOO, Subject("mnist/ibp", "mnist", 0.1, 1.5))
EVERYWHERE = {Norm.L0: 1e6, Norm.L1: 1e6, Norm.L2: 1e6, Norm.LINF: 0.49}  # balls that hold whatever is found
LONG = {"fmn": {"steps": 999}, "fab": {"steps": 160}}
ATTACKS: dict[Norm, dict[str, dict[str, Any]]] = {
    Norm.L0: {"nearest": {}, "sigma_zero": {"steps": 999}, "fmn": LONG["fmn"], "jsma": {}},
    Norm.L1: {
        "nearest": {},
        **LONG,
        "pdpgd": {"steps": 999, "polish": 0.4},
        "ead": {"steps": 110, "searches": 6, "rule": "l1"},
    },
    Norm.L2: {"nearest": {}, **LONG, "ddn": {"steps": 999}, "cw": {"steps": 166, "searches": 6}, "deepfool": {}},
    Norm.LINF: {"nearest": {}, **LONG, "deepfool": {}},
}
PEERS: dict[Norm, dict[str, dict[str, Any]]] = {
    Norm.L0: {
        "foolbox:L0FMNAttack": {"steps": 999},
        "adv_lib:sigma_zero": {"num_steps": 999},
        "adv_lib:vfga": {"max_iter": 90, "targeted": False},
    },
    Norm.L1: {
        "foolbox:L1FMNAttack": {"steps": 999},
        "foolbox:EADAttack": {"steps": 160, "binary_search_steps": 6, "decision_rule": "L1"},
        "adv_lib:pdpgd": {"num_steps": 999},
        "adv_lib:alma": {"num_steps": 999, "init_lr_distance": 0.5},
        "art:ElasticNet": {"max_iter": 20, "binary_search_steps": 6, "decision_rule": "L1"},
    },
    Norm.L2: {
        "foolbox:L2FMNAttack": {"steps": 999},
        "foolbox:DDNAttack": {"steps": 999},
        "adv_lib:alma": {"num_steps": 999, "init_lr_distance": 0.1},
        "adv_lib:pdgd": {"num_steps": 999},
        "adv_lib:sdf": {"steps": 13},
        "torchattacks:FAB": {"steps": 160},
        "art:DeepFool": {},
    },
    Norm.LINF: {
        "foolbox:LInfFMNAttack": {"steps": 999},
        "adv_lib:pdpgd": {"num_steps": 999},
        "adv_lib:tr": {"iter": 490, "adaptive": True},
        "torchattacks:FAB": {"steps": 160},
    },
}


def made(name: str, settings: Mapping[str, Any]) -> Attack:
    """The attack of that name, ours or "package:attack"."""
    package, _, inner = name.partition(":")
    return AdvLib(inner, dict(settings)) if package == "adv_lib" else find_attack(name, settings)


def listed(norm: Norm) -> dict[str, dict[str, Any]]:
    """Ours, and those of the peers that are installed."""
    return ATTACKS[norm] | {
        name: settings for name, settings in PEERS[norm].items() if release(name.partition(":")[0]) is not None
    }


def distances(
    subject: Subject, norm: Norm, attack: str, settings: Mapping[str, Any], images: int, device: str = "cpu"
) -> Row:
    """Of each image that is classified correctly, how far its nearest adversarial image is; None: none was found.

    ValueError where any image took more than PASSES.
    """
    x, y = images_of(subject.data, images, device)
    threat = ThreatModel(norm, EVERYWHERE[norm])
    verdict = evaluate(model_of(subject, device), x, y, made(attack, settings), threat)
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
            mean = (
                f"{sum(mine.values()) / len(mine):.3f}"
                if len(mine) == sum((norm, model) in groups for model in models)
                else "-"
            )
            cells = []
            for model in models:
                middle = f"{float(groups[norm, model][attack].median()):.4g}" if model in mine else ""
                cells.append(f"{mine[model]:.3f} ({middle})" if model in mine else "-")
            table.append([norm, attack, mean, *cells])
    return table


def advice(table: Sequence[Sequence[str]]) -> list[str]:
    """Of the lines below the head, a sentence for each norm: which attack of ours to take, and others' best.

    Where the mean is over all models that the norm was measured on, and the first of equals.
    """
    sentences = []
    for norm in dict.fromkeys(line[0] for line in table):
        ranked = sorted(
            (line for line in table if line[0] == norm and line[2] != "-"), key=lambda line: -float(line[2])
        )
        ours = [f"`{attack}` ({mean})" for _, attack, mean, *_ in ranked if ":" not in attack][:1]
        theirs = [f"of other packages `{attack}` ({mean})" for _, attack, mean, *_ in ranked if ":" in attack][:1]
        if ours:
            sentences.append(f"{norm}: {'; '.join(ours + theirs)}")
    return sentences


def markdown(rows: Sequence[Row]) -> str:
    table = lines(rows)
    advised = "\n".join(f"- {sentence}" for sentence in advice(table[1:]))
    machines = "; ".join(sorted({row["hardware"] for row in rows}))
    head = f"""# Optimality of minimum-norm attacks

AttackBench's formula, at most {PASSES:,} passes of an image; in brackets the median distance. All attacks measured on a
model are its reference. Mean: over the models that the norm was measured on. A dash: not measured; where a model has
more of them its reference is weaker, and its figures are higher. Measured on {machines}.

Which to take:

{advised}

"""
    return head + markdown_table(table[0], table[1:]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/optimality"))
    parser.add_argument("--only", default="", help='words that "model norm attack" must hold')
    parser.add_argument("--images", type=int, default=50, help="the first so many test images")
    parser.add_argument("--weights", action="append", default=[], metavar="ARCHITECTURE=PATH", help="MNIST weights")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args(arguments)
    if given.images < 0:
        parser.error(f"--images is {given.images}: give 0 or more")
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "optimality.jsonl"
    machine = surroundings(torch.device(given.device))["hardware"]
    for subject in [*SUBJECTS, *others(given.weights)] if given.images else []:
        for norm, attack, settings in [(each, *one) for each in ATTACKS for one in listed(each).items()]:
            if not all(word in f"{subject.name} {norm} {attack}" for word in given.only.split()):
                continue
            same = {"subject": subject.name, "norm": str(norm), "attack": attack, "settings": settings}
            package = attack.partition(":")[0]
            version = release(package) if package != attack else find_attack(attack, settings).version_in(norm)
            what = same | {"version": version, "images": given.images}
            if what in [row["what"] for row in kept(file)]:
                continue
            found = distances(subject, norm, attack, settings, given.images, given.device)
            keep(file, {"what": what, "hardware": machine} | found)
            print(f"{subject.name}, {norm}, {attack}: {found['passes']} passes", flush=True)
    pack(file)
    table = markdown(kept(file))
    (given.out / "optimality.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
