"""The robust accuracy under `best`, and what it costs, beside AutoAttack.

    python -m benchmarks.best --weights trades_cnn=PATH --weights fast_cnn=PATH    effort 1, first 1,000 test images
    python -m benchmarks.best --hopeless 0.8 --only trades --weights trades_cnn=PATH    fewer images are given up
    python -m benchmarks.best --images 0                                           only the table again
    python -m benchmarks.best --pyautoattack --only cifar10                        pyautoattack, where it is missing

A hundred images at a time, each part kept in best.jsonl as it ends: stop and go on at will. Which images are robust
against our AutoAttack and pyautoattack is read from the parts that `python -m benchmarks.strength --autoattack 1000`
keeps, and only images that both attacked are compared; `--pyautoattack` runs pyautoattack alone on parts that are
missing there, for half the time, and keeps them in pyautoattack.jsonl. The bars: at effort 1 no more robust images
than under pyautoattack (+ 0.2 points), for a tenth of AutoAttack's forwards and a fifth of its backwards; for all of
them, fewer.

AutoAttack's cost is bounded from below: a robust image has cost the whole of its `cost()`, a broken one nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks._comparisons import AUTOATTACK, PART, UNDEFENDED, ZOO, Comparison, Subject, images_of, model_of
from benchmarks._kept import Row, keep, kept
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.zoo import zoo_names
from robustbench_local.report.markdown import markdown_table
from robustbench_local.storage.checkpoints import weights_digest

CLASSES = 10


def subjects(weights: Sequence[str]) -> Iterator[Subject]:
    for text in weights:
        architecture, _, path = text.partition("=")
        yield Subject(f"{architecture}={Path(path).name}", "mnist", 0.3, 2.0, Path(path))
    zoo = (*ZOO, *UNDEFENDED)
    yield from (subject for subject in zoo if subject.data == "cifar10" and subject.name in zoo_names())


def ball(subject: Subject) -> ThreatModel:
    return ThreatModel(Norm.LINF, subject.linf)


def part(subject: Subject, settings: dict[str, Any], first: int, device: str) -> Row:
    """Which images are robust, 0 and 1, and the passes of all together."""
    x, y = (rows[first : first + PART] for rows in images_of(subject.data, first + PART, device))
    verdict = evaluate(model_of(subject, device), x, y, "best", ball(subject), seed=first, **settings)
    return {
        "robust": verdict.robust.int().tolist(),
        "forwards": int(verdict.forwards.sum()),
        "backwards": int(verdict.backwards.sum()),
    }


def reference(subject: Subject, first: int, device: str) -> Row:
    """Which are robust against pyautoattack, in the form of the parts of both, of which it is the last."""
    x, y = (rows[first : first + PART] for rows in images_of(subject.data, first + PART, device))
    (theirs,) = AUTOATTACK.theirs
    robust = Comparison(subject, AUTOATTACK, theirs, PART).after_theirs(model_of(subject, device), x, y, first)
    return {"robust": [robust.int().tolist()]}


HEADS = ("model", "ball", "settings", "images", "best", "autoattack", "pyautoattack", "points", "forwards", "backwards")


def line(rows: Sequence[Row], beside: Sequence[Row]) -> list[str]:
    """One line of the table: the parts of one model and effort, and AutoAttack's of the same images.

    A part of AutoAttack's holds which are robust against ours and against pyautoattack, or the latter alone.
    """
    what = rows[0]["what"]
    peers = {row["first"]: row["robust"] for row in beside if what["same"].items() <= row["what"].items()}
    both = [row for row in rows if row["first"] in peers]
    shown = both or rows
    count = sum(len(row["robust"]) for row in shown)
    left = sum(sum(row["robust"]) for row in shown)
    ours, theirs = (sum(sum(peers[row["first"]][side]) for row in both) for side in (0, -1))
    paired = all(len(peers[row["first"]]) == 2 for row in both)
    cost = find_attack("autoattack").cost(CLASSES)
    spent = [sum(row[kind] for row in shown) for kind in ("forwards", "backwards")]
    passes = [
        f"{used / count:.0f} ({used / (theirs * full):.3f} of AutoAttack's)" if theirs else f"{used / count:.0f}"
        for used, full in zip(spent, cost, strict=True)
    ]
    settings = ", ".join(f"{name} {what[name]:g}" for name in ("effort", "hopeless") if name in what)
    known = ((ours, both and paired), (theirs, both))
    percent = [f"{100 * robust / count:.1f}" if there else "-" for robust, there in known]
    points = f"{100 * (left - theirs) / count:+.1f}" if both else "-"
    return [
        what["same"]["subject"],
        what["same"]["threat"],
        settings,
        str(count),
        f"{100 * left / count:.1f}",
        *percent,
        points,
        *passes,
    ]


def markdown(rows: Sequence[Row], beside: Sequence[Row]) -> str:
    """The table, of the newest version of `best` that was measured."""
    newest = max((row["what"]["version"] for row in rows), default=0)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["what"]["version"] == newest:
            groups.setdefault(str(row["what"]), []).append(row)
    lines = ["# best beside AutoAttack", "", f"Version {newest}; robust accuracy in percent, passes per image.", ""]
    lines.append(markdown_table(HEADS, [line(group, beside) for group in groups.values()]))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/best"))
    parser.add_argument("--beside", type=Path, default=Path("results/benchmarks/strength/parts.jsonl"))
    parser.add_argument("--weights", action="append", default=[], metavar="ARCHITECTURE=PATH", help="MNIST weights")
    parser.add_argument("--only", default="", help="models whose name, space, ball holds this")
    parser.add_argument("--images", type=int, default=1000, help="the first so many test images")
    parser.add_argument("--effort", type=float, default=1.0, help="4.8: at most AutoAttack's forwards for an image")
    parser.add_argument("--hopeless", type=float, help="as best's setting; inf: no image is given up")
    parser.add_argument("--pyautoattack", action="store_true", help="it, on parts that it has not attacked, not best")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice where not given")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args(arguments)
    if given.images < 0 or given.images % PART:
        parser.error(f"--images is {given.images}: give a multiple of {PART}")
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    file, alone = given.out / "best.jsonl", given.out / "pyautoattack.jsonl"
    version = find_attack("best").version_in(Norm.LINF)
    for subject in subjects(given.weights):
        if given.only not in f"{subject.name} {ball(subject)}" or given.images < 1:
            continue
        weights = weights_digest(model_of(subject, "cpu"))
        same = {"subject": subject.name, "weights": weights, "threat": str(ball(subject))}  # as in AutoAttack's parts
        what: Row
        if given.pyautoattack:
            kind, what, into = reference, same, alone
            done = {row["first"] for row in kept(alone) + kept(given.beside) if same.items() <= row["what"].items()}
        else:
            settings = {"effort": given.effort} | ({} if given.hopeless is None else {"hopeless": given.hopeless})
            kind, into = partial(part, settings=settings), file
            what = {"same": same, "version": version} | settings
            done = {row["first"] for row in kept(file) if row["what"] == what}
        for first in range(0, given.images, PART):
            if first not in done:
                found = kind(subject, first=first, device=given.device)
                keep(into, {"what": what, "first": first} | found)
                robust = int(torch.tensor(found["robust"]).sum())
                print(f"{subject.name}, {ball(subject)}, from {first}: {robust} of {PART} are robust", flush=True)
    table = markdown(kept(file), kept(alone) + kept(given.beside))
    (given.out / "best.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
