"""Kept re-runs and draws -> figures with their intervals, the criteria that they must meet, and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Any

import numpy as np

from benchmarks._kept import Row
from benchmarks._regression_draws import PAIRS
from benchmarks._regression_models import MORE_NOISE
from benchmarks._regression_reruns import CASES
from robustbench_local.metrics.rates import wilson
from robustbench_local.regression.outcome import Verdict
from robustbench_local.regression.session import ALPHA
from robustbench_local.report.markdown import markdown_table

Figures = dict[str, Any]

HEAD = """\
# How often a regression check errs

`python -m benchmarks.regression`: the check of a model against the last one, tried where the truth is known. alpha, the
risk that a run of unchanged models fails, is {alpha:g} everywhere. Intervals are Wilson's, 95 %. Models that are not
the zoo's are in [_regression_models.py](../../../benchmarks/_regression_models.py). Made on:

{made}
"""

RERUNS = """\
## False alarms: the model has not changed

The same model is attacked again and again, each time with another seed, by a search so short that luck decides on many
images:

{attacks}

Each run is held against a lock file that the two runs before it wrote, one as the last model and one as the anchor,
with the adversarial images of the last kept. So a run tests three hypotheses: less robust than the last model, less
robust than the anchor, and masked (the old images break more than the attacks of now). None of them is true, so every
run that fails is a false alarm. Required: the share that fails is not above alpha beyond the error of so many runs.
It is below alpha since Holm's correction reckons with hypotheses that never fail together, and since an exact test of
few images that change sides stays below its limit.

The last two columns are checks that are broken on purpose, on the same runs: without Holm's correction for several
hypotheses, and one that lets the old images break the new model but not the last one's. Required: both are above alpha
beyond error, so that this table could have shown a fault. Runs that follow each other share two runs of attacks;
neighbours is the correlation of failing with the next run's failing.
"""

DRAWS = """\
## Power: the model is worse

Two models are attacked once on many test images, whose figures then count as the truth:

{pairs}

Of these images n are drawn {times} times, with replacement, and judged, without an anchor and old images. Caught is the
share of draws in which the check fails. Predicted is what the check's own formula says for this drop and the share of
images that are exchanged beside it; one n is that where it says 80 %, the power that the check's words speak of.
Required: the interval of the one holds the other. The drop that would have been caught is what the check said in its
words, on average. The last column is the formula of a two-sided test, which this test is not: it shows how much the
interval can tell apart.

Of random models the formula is a normal limit, and on few images it promises a little too much: with the noise of
`noisier` at 0.45 in place of {noise}, a drop of 5.4 points on 32 images was predicted to be caught in 80.4 %, and was
in 76.9 % (74.2-79.4) of 1,000 draws.
"""

MARGINS = """\
## Non-inferiority: the drop is as large as the margin

The same draws with `margin` set to the true drop, so that every check that passes is wrong. Required: the share that
passes is not above alpha beyond error. The last column is a check that is broken on purpose, which holds the measured
drop itself against the margin.

Of random models the interval is a bootstrap's, which on a few dozen images is too narrow: on 58 it let 8.0 % (6.5-9.8)
of these models pass. A check with a margin on fewer than 200 of their images is refused, and none passes.
"""


def figures(reruns: Sequence[Row], draws: Sequence[Row]) -> Figures:
    """Of the cases and pairs as they are now; others, which older code made, are left out."""
    cases = [(case.what, _own(reruns, "case", case.key)) for case in CASES]
    pairs = [(pair.what, _own(draws, "pair", pair.key)) for pair in PAIRS]
    return {
        "alpha": ALPHA,
        "made": sorted({_made(row) for _, rows in [*cases, *pairs] for row in rows if "what" in row}),
        "reruns": [_of_reruns(what, rows) for what, rows in cases if any("seed" in row for row in rows)],
        "draws": [
            row | {"pair": what} | _shares(row["times"], {name: row[name] for name in _COUNTED})
            for what, rows in pairs
            for row in rows
            if "caught" in row
        ],
    }


def _own(rows: Sequence[Row], kind: str, key: str) -> list[Row]:
    return [row for row in rows if row[kind] == key]


_COUNTED = ("caught", "passed", "measured_passed")


def faults(found: Figures) -> list[str]:
    """What does not meet the criteria."""
    return [*_faults(found)]


def markdown(found: Figures) -> str:
    first = sorted({_attack(each["case"]) for each in found["reruns"]})
    pairs = {each["pair"]["name"]: _pair(each["pair"]) for each in found["draws"]}
    times = max((each["times"] for each in found["draws"]), default=0)
    failed = faults(found)
    parts = [
        HEAD.format(alpha=found["alpha"], made=_listed(found["made"])),
        "Every requirement is met." if not failed else "Not met: " + "; ".join(failed) + ".",
        RERUNS.format(attacks=_listed(first)),
        markdown_table(
            [
                "model",
                "runs",
                "images",
                "change sides",
                "worse",
                "masked",
                "fail",
                "neighbours",
                "no Holm",
                "old images",
            ],
            [_rerun_line(each) for each in found["reruns"]],
        ),
        DRAWS.format(pairs=_listed([*pairs.values()]), times=f"{times:,}", noise=MORE_NOISE),
        markdown_table(
            ["model", "n", "drop", "exchanged", "caught", "predicted", "would have been caught", "two-sided"],
            [_draw_line(each) for each in found["draws"]],
        ),
        MARGINS,
        markdown_table(
            ["model", "n", "margin", "wrongly passed", "no interval"],
            [
                [each["pair"]["name"], str(each["n"]), _points(each["drop"]), *_cells(each, _COUNTED[1:])]
                for each in found["draws"]
            ],
        ),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _of_reruns(what: Row, rows: Sequence[Row]) -> Figures:
    runs = [row for row in rows if "seed" in row]
    failed = [row["verdict"] != Verdict.HOLDS for row in runs]
    counts = {
        "worse": sum(row["verdict"] == Verdict.WORSE for row in runs),
        "masked": sum(row["verdict"] == Verdict.CANNOT_JUDGE for row in runs),
        "failed": sum(failed),
        "without_holm": sum(min(row["p"].values()) < ALPHA for row in runs),
        "replays_counted": sum(row["replays_counted"] < ALPHA for row in runs),
    }
    apart = np.array(failed) - np.mean(failed)
    neighbours = float(apart[1:] @ apart[:-1] / (apart @ apart)) if any(failed) and not all(failed) else 0.0
    return {
        "case": what,
        "runs": len(runs),
        "doubted": sum(bool(row["doubts"]) for row in runs),
        "changed": mean(row["changed"] for row in runs) / what["n"],
        "neighbours": round(neighbours, 4),
        **_shares(len(runs), counts),
    }


def _shares(of: int, counts: Row) -> Figures:
    """(share, low, high) of each."""
    return {name: [round(each, 6) for each in (count / of, *wilson(count, of))] for name, count in counts.items()}


def _faults(found: Figures) -> Iterator[str]:
    alpha = found["alpha"]
    for each in found["reruns"]:
        name = each["case"]["name"]
        if each["failed"][1] > alpha:
            yield f"{name}: {_percent(each['failed'])} of the runs fail"
        for twin in ("without_holm", "replays_counted"):
            if each[twin][1] <= alpha:
                yield f"{name}: {twin} is not told from a sound check"
    for each in found["draws"]:
        name = f"{each['pair']['name']}, n = {each['n']}"
        if not each["caught"][1] <= each["predicted"] <= each["caught"][2]:
            yield f"{name}: {_percent(each['caught'])} are caught, {100 * each['predicted']:.1f} % were predicted"
        if each["passed"][1] > alpha:
            yield f"{name}: {_percent(each['passed'])} pass"
        if each["measured_passed"][1] <= alpha:
            yield f"{name}: measured_passed is not told from a sound check"


def _rerun_line(each: Figures) -> list[str]:
    case = each["case"]
    shares = _cells(each, ("worse", "masked", "failed"))
    twins = _cells(each, ("without_holm", "replays_counted"))
    changed = f"{100 * each['changed']:.1f} %"
    return [case["name"], f"{each['runs']:,}", str(case["n"]), changed, *shares, f"{each['neighbours']:+.2f}", *twins]


def _draw_line(each: Figures) -> list[str]:
    return [
        each["pair"]["name"],
        str(each["n"]),
        _points(each["drop"]),
        f"{100 * each['exchanged']:.1f} %",
        _percent(each["caught"]),
        f"{100 * each['predicted']:.1f} %",
        _points(each["noticeable"]),
        f"{100 * each['two_sided']:.1f} %",
    ]


def _cells(each: Figures, names: Sequence[str]) -> list[str]:
    return [_percent(each[name]) for name in names]


def _percent(share: Sequence[float]) -> str:
    value, low, high = (100 * each for each in share)
    return f"{value:.1f} % ({low:.1f}-{high:.1f})"


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _attack(case: Row) -> str:
    settings = "".join(f", {name} {value}" for name, value in case["settings"].items())
    return f"{case['name']}: `{case['model']}`, {case['attack']}, {case['steps']} steps, {case['threat']}{settings}"


def _pair(pair: Row) -> str:
    return (
        f"{pair['name']}: `{pair['first']}` and `{pair['second']}`, {pair['attack']}, {pair['steps']} steps,"
        f" {pair['threat']}, {pair['images']:,} images"
    )


def _made(row: Row) -> str:
    return f"{row['hardware']}, {row['threads']} thread{'s' * (row['threads'] != 1)}, torch {row['torch']}"
