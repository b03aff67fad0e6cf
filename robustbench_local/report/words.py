"""Tables in sentences: what a number means, said so that nobody reads more into it."""

from __future__ import annotations

from robustbench_local.report.corruption import CorruptionLine, CorruptionTable
from robustbench_local.report.table import Line, Rate, Table
from robustbench_local.report.text import interval, percent

_NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
_DATA = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def within(threat: str) -> str:
    """ "L∞ ball of radius 8/255" of "linf:8/255"."""
    norm, _, eps = threat.partition(":")
    if norm == "l0":
        return f"{eps} pixel{'s' if eps != '1' else ''} changed"
    if norm in _NORMS:
        return f"{norm_name(norm)} ball of radius {eps}"
    return "no norm bound" if norm == "none" else threat


def ball(table: Table) -> str:
    """What a table is within, in a sentence: "the L2 ball of radius 2", "1 pixel changed under fog:3"."""
    norm, under = table.threat.partition(":")[0], f" under {table.under}" if table.under else ""
    return f"{'the ' if norm in _NORMS and norm != 'l0' else ''}{within(table.threat)}{under}"


def data_name(data: str) -> str:
    return _DATA.get(data, data)


def norm_name(norm: str) -> str:
    return _NORMS.get(norm, norm)


def defense(line: Line | CorruptionLine) -> str:
    return "undefended" if str(line.defense) == "none" else str(line.defense)


def named(line: Line | CorruptionLine) -> str:
    return f"{line.model} with {line.defense}" if line.defense.name != "none" else f"{line.model}, {defense(line)}"


def apart(line: Line | CorruptionLine, table: Table | CorruptionTable) -> str:
    """A model by what sets it apart in its table."""
    return defense(line) if len({other.model for other in table.lines}) == 1 < len(table.lines) else named(line)


def answer(table: Table) -> str:
    """What the table says of its best model, which is named by what sets it apart."""
    best = table.lines[0]
    name = apart(best, table)
    worst = best.worst[-1]
    if best.broken:
        return "No headline: the audit calls every figure of this table broken, and says why."
    if worst is None:
        return (
            "No headline: an attack of this table is missing or failed on every model, and what it would have found"
            " nobody knows."
        )
    every = "all attacks" if len(table.attacks) > 1 else "the attack"
    audit = " It was not audited." if best.unaudited else ""
    found = (
        f"at most {percent(worst.value)} % of the images are robust to {every} ({_interval(worst)}){from_below(best)}"
    )
    clean = f"; without an attacker {percent(best.clean.value)} % are right" if best.clean else ""
    if len(table.lines) == 1:
        return f"Of {name}, {found}{clean}.{audit}"
    shared = best.rank.worst - best.rank.best if best.rank else 0
    tie = f" {shared} other{'s' if shared > 1 else ''} cannot be told apart from it on these images." if shared else ""
    return f"Most robust here is {name}: {found}{clean}.{tie}{audit}"


def from_below(line: Line) -> str:
    """ ", and at least 92.0 % to any attack whatever, by proof"; "" where nothing is known."""
    found = line.certified
    if found is None or found.rate is None:
        return ""
    return f", and at least {percent(found.rate.value)} % to any attack whatever, {found.how}"


def verdict(line: Line, table: Table) -> str:
    """What was measured of one model, in whole images."""
    n, clean, worst = table.images, line.clean, line.worst[-1]
    every = f"all {len(table.attacks)} attacks" if len(table.attacks) > 1 else "the attack"
    if clean is None:
        return f"No attack on {named(line)} came to an end."
    if table.stochastic:
        begin = f"On average over fresh draws, {percent(clean.value)} % of the {n} images are right to begin with"
        end = f"at most {percent(worst.value)} % with the attack that is worst for each" if worst else ""
        again = next((rate for rate in line.resubmitted if rate), None)
        end += f", and {percent(again.value)} % where ten draws have to be right" if again else ""
    else:
        begin = f"Of {n} images {round(clean.value * n)} are right to begin with"
        end = f"at most {round(worst.value * n)} are robust to {every}" if worst else ""
    return f"{begin}; {end or 'there is no worst case, since an attack is missing or failed'}{from_below(line)}."


def _interval(rate: Rate) -> str:
    return f"95 % interval {interval(rate.low, rate.high, '–')}"
