"""A model's pictures in words and tiles, as a template shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from robustbench_local.report.panel import Panel, read_panel
from robustbench_local.report.results import Results
from robustbench_local.report.table import Line
from robustbench_local.report.text import percent
from robustbench_local.report.words import norm_name
from robustbench_local.storage.row import done

_COARSE = 64  # pixels of a tile's side, up to which they are shown as squares
_FIRST = 3  # images that are seen at once: the first to fall, the median, the last


@dataclass(frozen=True)
class Tile:
    """A picture of the sprite, at that column and row, with the words below it."""

    title: str
    column: int
    row: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Pictured:
    """One image: what was found, in a sentence, when it fell, and its tiles."""

    sentence: str
    fate: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class PanelView:
    """first: the images that are seen at once; more: the others. style: of what holds tiles, as CSS."""

    rule: str
    notes: list[str]
    style: Markup
    coarse: bool
    first: list[Pictured]
    more: list[Pictured]


def panel_of(line: Line, results: Results) -> PanelView | None:
    """Of a line of a table; None where no pictures of it were kept, or they are of other rows."""
    keys = {row.key for row in line.rows if done(row)}
    for row in line.rows:
        if done(row) and (panel := read_panel(results.stores[row.key], row)) is not None:
            return view(panel) if panel.row in keys and panel.samples else None
    return None


def view(panel: Panel) -> PanelView:
    every = [_pictured(panel, place) for place in range(len(panel.samples))]
    seen = sorted({0, (len(every) - 1) // 2, len(every) - 1})[:_FIRST]
    style = f"--sheet:url(data:image/webp;base64,{panel.webp});--across:{len(panel.columns)};--down:{len(every)}"
    return PanelView(
        rule=_rule(panel),
        notes=panel.notes,
        style=Markup(style),
        coarse=panel.side <= _COARSE,
        first=[every[place] for place in seen],
        more=[each for place, each in enumerate(every) if place not in seen],
    )


def _rule(panel: Panel) -> str:
    """Which images these are, and why these."""
    if not panel.fell:
        return (
            f"{panel.attack} broke none of the {panel.looked:,} images that were looked at: these are the first that"
            " stayed robust, as it left them."
        )
    order = "nearest first" if panel.minimises else "those of fewest forward passes first, then the nearest"
    count = len(panel.samples)
    broke = f"{panel.attack} broke {panel.fell:,} of {panel.looked:,} images"
    if count < _FIRST:
        return f"{broke} ({order})."
    others = ", and others at even steps between them" if count > _FIRST else ""
    return f"{broke}. Shown are the first to fall, the median, the last{others} ({order})."


def _pictured(panel: Panel, place: int) -> Pictured:
    sample, norm = panel.samples[place], panel.threat.partition(":")[0]
    tiles = (
        Tile(title, column, place, tuple(_said(title, sample, norm))) for column, title in enumerate(panel.columns)
    )
    return Pictured(sentence(sample, norm), _fate(panel, place), tuple(tiles))


def _fate(panel: Panel, place: int) -> str:
    rank, fell, last = panel.samples[place]["rank"], panel.fell, len(panel.samples) - 1
    if not rank:
        return "stayed robust"
    if fell == 1:
        return "the only one to fall"
    named = {1: "first to fall", fell: "last to fall"}
    return named.get(rank, f"{rank:,} of {fell:,}" + ", the median" * (2 * place == last))


def sentence(sample: dict[str, Any], norm: str) -> str:
    """ "#17, cat: at most 0.9 grey levels at 31 pixels make it a dog"."""
    begin, nearest = f"#{sample['id']}, {sample['label']}", sample["nearest"]
    if nearest is None and sample["rank"]:
        return f"{begin}: {_length(norm)} distance {sample['distance']:.3g} makes it {_one(sample['after']['name'])}"
    if nearest is None:
        return f"{begin}: what was tried leaves it {_one(sample['after']['name'])}"
    pixels = f"{nearest['pixels']:,} pixel{'' if nearest['pixels'] == 1 else 's'}"
    levels = f"at most {nearest['levels']:.2g} grey levels at {pixels}"
    if norm == "l0":
        change = f"{pixels} make{'s' if nearest['pixels'] == 1 else ''}"
    elif norm == "linf":
        change = f"{levels} make"
    else:
        change = f"a change of {_length(norm)} length {nearest['distance']:.3g}, {levels}, makes"
    nearer = sample["reached"]
    also = "" if nearer is None else f"; {nearer['attack']} needs a distance of only {nearer['distance']:.3g}"
    return f"{begin}: {change} it {_one(nearest['name'])}{also}"


def _length(norm: str) -> str:
    """What a distance is measured in; without a norm it is L2's."""
    return norm_name("l2" if norm == "none" else norm)


def _one(name: str) -> str:
    """A class with its article, where it is a word: "an airplane", "7", "rejected"."""
    if name == "rejected" or not (name.isalpha() and name.islower()):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _said(title: str, sample: dict[str, Any], norm: str) -> Sequence[str]:
    before, after, nearest = sample["before"], sample["after"], sample["nearest"]
    length = _length(norm)
    match title:
        case "image":
            return [_sure(before)]
        case "attacked":
            return [_sure(after), f"{length} {sample['distance']:.3g}"]
        case "difference":
            return [f"×{sample['factor']:.3g}" if sample["factor"] else "none"]
        case "least change":
            return ["none found"] if nearest is None else [nearest["name"], f"{length} {nearest['distance']:.3g}"]
        case "saliency before":
            return [f"for {before['name']}"]
    ranks = sample["correlation"]
    return [f"for {after['name']}", "no ranks" if ranks is None else f"ρ = {ranks:.2f}"]


def _sure(answer: dict[str, Any]) -> str:
    return f"{answer['name']}, {percent(answer['confidence'])}\u00a0%"
