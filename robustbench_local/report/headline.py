"""The answer first: what tables say, in a sentence by rule, so that it is never more than was measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_local.report import words
from robustbench_local.report.corruption import CorruptionTable
from robustbench_local.report.detail import flags_of
from robustbench_local.report.table import Line, Table
from robustbench_local.report.text import percent

_KEPT = 0.5  # of what is right without an attacker, to withstand one
RULE = (
    "A model withstands if at least half of the images that it classifies correctly stay so under every attack. “Only”"
    " says that all others are behind the best, beyond doubt; “is seen to”, that some model has no figure to believe."
)
_CHANCE = "at_chance"
_MOST = 5  # sentences, beyond which an answer would be a table of its own


@dataclass(frozen=True)
class Headline:
    """What a table says. known: models with a figure that may be believed, of `models`; standing: those of them that
    withstand; only: who alone does, "" where others do or might.

    share: what the best one keeps, "93 of 100 MNIST images"; least: and what is certain, ", and at least 90, by
    proof", "" where nothing is; low, top: the lower end of its interval, and the highest
    end of all.
    """

    table: Table
    sentence: str
    models: int
    known: int = 0
    standing: int = 0
    only: str = ""
    share: str = ""
    least: str = ""
    low: float = 0.0
    top: float = 0.0


def headline(table: Table) -> Headline:
    """Which models withstand, and how much the best of them keeps."""
    known = [line for line in table.lines if _believed(line)]
    models = len(table.lines)
    if not known:
        return Headline(table, _nothing(table), models)
    standing, fallen = [line for line in known if _stands(line)], [line for line in known if not _stands(line)]
    best, share, least = words.apart(known[0], table), _share(known[0], table), _least(known[0], table)
    only = _only(standing, fallen, table)
    withstands = _withstands(len(known) == models)
    if models == 1:
        said = (
            f"{best} {f'withstands: {share}, at most' if standing else f'does not withstand: at most {share}'}{least}."
        )
    elif not standing:
        said = f"No model {withstands}: at most {share}{least}, with {best}."
    elif only:
        said = f"Only {only} {withstands}: {share}, at most{least}."
    else:
        several = "withstands" if len(standing) == 1 else "withstand"
        said = f"{len(standing)} of {models} models {several}: {share}, at most{least}, with {best}."
    said += _unknown(models - len(known))
    rates = [line.worst[-1] for line in known]
    low, top = min(rate.low for rate in rates[:1] if rate), max(rate.high for rate in rates if rate)
    return Headline(table, said, models, len(known), len(standing), only, share, least, low, top)


def answer(tables: Sequence[Table], corruptions: Sequence[CorruptionTable]) -> list[str]:
    """What a whole report says, in few sentences: of attacks, and of corruptions where there are none."""
    if not tables:
        return [*map(weathered, corruptions)] or ["Nothing was measured."]
    found = [headline(table) for table in tables]
    return [found[0].sentence] if len(found) == 1 else _summary(found)


def _summary(headlines: Sequence[Headline]) -> list[str]:
    """Of several tables: those of the same images within the same threat model are spoken of together."""
    groups: dict[tuple[str, ...], list[Headline]] = defaultdict(list)
    for each in headlines:
        table = each.table
        groups[table.grid, table.data, table.within, str(table.images), str(table.targets)].append(each)
    said: dict[tuple[str, str], list[list[Headline]]] = defaultdict(list)
    for group in groups.values():
        said[_predicate(group)].append(group)
    if len(said) > _MOST:
        standing = sum(any(each.standing for each in group) for group in groups.values())
        return [f"Some model withstands in {standing} of {len(groups)} threat models."]
    balls = {who: {_ball(each[0].table, headlines) for each in within} for who, within in said.items()}
    several = Counter(ball for each in balls.values() for ball in each)
    found = []
    for (who, joint), within in sorted(said.items(), key=_order):
        named = [
            f"{ball}{f' ({group[0].table.images:,} images)' if several[ball] > 1 else ''}"
            for group in within
            for ball in [_ball(group[0].table, headlines)]
        ]
        found.append(f"{who} {_listed(list(dict.fromkeys(named)), joint)}{_kept(within)}.")
    return found


def _listed(names: Sequence[str], joint: str) -> str:
    return f"{', '.join(names[:-1])} {joint} {names[-1]}" if len(names) > 1 else names[0]


def _kept(within: Sequence[Sequence[Headline]]) -> str:
    """What the best of one threat model keeps; of several nothing."""
    best = max(within[0], key=lambda each: each.low)
    if len(within) > 1 or not best.known:
        return ""
    return f": {best.share}, at most{best.least}" if best.standing else f": at most {best.share}{best.least}"


def _predicate(group: Sequence[Headline]) -> tuple[str, str]:
    """(who withstands, what joins threat models): "No model withstands", "or"."""
    models, known, standing = (sum(getattr(each, name) for each in group) for name in ("models", "known", "standing"))
    best = max(group, key=lambda each: each.low)
    alone = all(each is best or (not each.standing and each.top < best.low) for each in group)
    if not known:
        return "No figure to believe within", "and"
    if not standing:
        return f"No model {_withstands(known == models)}", "or"
    if best.only and alone:
        return f"Only {best.only} {_withstands(known == models)}", "and"
    if standing == models:
        return f"All {models} models withstand" if models > 1 else "The model withstands", "and"
    return f"{standing} of {models} models {'withstands' if standing == 1 else 'withstand'}", "and"


def _order(said: tuple[tuple[str, str], object]) -> tuple[int, str]:
    """Who withstands alone comes first, what nobody does next, and last what all do or nobody knows."""
    who = said[0][0]
    known = ("Only", "No model", "All", "No figure")
    return next((2 * place for place, begin in enumerate(known) if who.startswith(begin)), 1), who


def _ball(table: Table, headlines: Sequence[Headline]) -> str:
    """ "the L2 ball of radius 2", and of which data where there are several."""
    several = len({each.table.data for each in headlines}) > 1
    aim = f" (targets: {table.targets})" if len({each.table.targets for each in headlines}) > 1 else ""
    return f"{words.ball(table)}{f' on {words.data_name(table.data)}' if several else ''}{aim}"


def weathered(table: CorruptionTable) -> str:
    """What a table of corruptions says of its best model."""
    best = table.lines[0]
    mean, worst = best.accuracy(), best.worst
    if mean is None:
        return "No figure: a corruption is missing or failed on every model."
    name = words.apart(best, table)
    clean = "" if best.clean is None else f", {percent(best.clean)} % without"
    hardest = f"; hardest is {worst[0]}, {percent(1 - worst[1])} %" if worst and len(table.corruptions) > 1 else ""
    others = best.rank.worst - best.rank.best if best.rank else 0
    tie = f" {others} other{'s' if others > 1 else ''} cannot be told apart from it on these images." if others else ""
    lead = f"Under corruptions {name} is right on" if len(table.lines) == 1 else f"Under corruptions {name} leads:"
    return f"{lead} {percent(mean.value)} % of {_images(table)}{clean}{hardest}.{tie}"


def _believed(line: Line) -> bool:
    """Whether a model has a worst case that says something of its robustness."""
    return not line.broken and line.worst[-1] is not None and all(flag.name != _CHANCE for flag in flags_of(line.rows))


def _stands(line: Line) -> bool:
    worst, clean = line.worst[-1], line.clean
    return worst is not None and clean is not None and clean.value > 0 and worst.value >= _KEPT * clean.value


def _only(standing: Sequence[Line], fallen: Sequence[Line], table: Table) -> str:
    """Who alone withstands, all others being beyond doubt behind the best: a kind of defense that all who stand have
    and some who fell have not, or the one model; "" where there is no such.
    """
    if not standing or not fallen or any(line.rank is None or line.rank.best == 1 for line in fallen):
        return ""
    behind = {kind: sum(kind in _kinds(line) for line in fallen) for kind in set.intersection(*map(_kinds, standing))}
    kind = min(behind, key=lambda kind: (behind[kind], kind), default="")
    if kind and not behind[kind]:
        return kind
    if len(standing) == 1:
        return words.apart(standing[0], table)
    return (
        f"{kind} ({len(standing)} of {len(standing) + behind[kind]} models)"
        if behind.get(kind, len(fallen)) < len(fallen)
        else ""
    )


def _kinds(line: Line) -> set[str]:
    """What kinds of defense it has; one that names none is of no kind."""
    return {kind for row in line.rows if row for kind in row.families if kind}


def _withstands(all_known: bool) -> str:
    return "withstands" if all_known else "is seen to withstand"


def _share(line: Line, table: Table) -> str:
    """ "93 of 100 MNIST images"; of a model that draws random numbers a mean, which is no whole number of images."""
    worst = line.worst[-1]
    assert worst is not None
    count = f"{percent(worst.value)} %" if table.stochastic else f"{round(worst.value * table.images):,}"
    aim = f" (targets: {table.targets})" if table.targets else ""
    return f"{count} of {_images(table)}{aim}"


def _least(line: Line, table: Table) -> str:
    """ ", and at least 90, by proof", counted as its share is."""
    found = line.certified
    if found is None or found.rate is None:
        return ""
    share = found.rate.value
    count = f"{percent(share)} %" if table.stochastic else f"{round(share * table.images):,}"
    return f", and at least {count}, {found.how}"


def _images(table: Table | CorruptionTable) -> str:
    return f"{table.images:,} {words.data_name(table.data)} image{'s' if table.images != 1 else ''}"


def _nothing(table: Table) -> str:
    """Why no model of a table has a figure."""
    broken = sum(line.broken for line in table.lines)
    missing = sum(not line.broken and line.worst[-1] is None for line in table.lines)
    chance = len(table.lines) - broken - missing
    whys = [
        f"the audit calls {_models(broken)} broken" if broken else "",
        f"an attack is missing or failed on {_models(missing)}" if missing else "",
        f"{_models(chance)} {'is' if chance == 1 else 'are'} at chance without an attacker" if chance else "",
    ]
    return f"No figure to believe: {', '.join(filter(None, whys))}."


def _models(count: int) -> str:
    return f"{count} model{'s' if count != 1 else ''}"


def _unknown(count: int) -> str:
    return f" {_models(count)} {'has' if count == 1 else 'have'} no figure to believe." if count else ""
