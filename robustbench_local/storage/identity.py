"""What tells cells apart: which keys of a row's definition say what.

Images, model and threat have keys of their own; all that a definition says besides is the attack's. A key that is new
is the attack's until it is named here, and never left out: rows that differ in it are two cells.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from robustbench_local.storage.row import Row

MODEL = ("model", "weights_digest", "defense", "defense_settings", "defense_version")
IMAGES = ("data", "split", "ids", "data_digest", "attack_under", "targets")
THREAT = ("threat", "eps")
DRAWN = ("eot", "draws")
READ = ("attack_sources",)  # of a growing folder of rows every model may have met another state
JUDGED = ("count", "precision", "budget", "seed")
BEHAVIOUR = ("behaviour_digest",)  # the model's as well, which only a user's own says
VERSIONS = ("defense_version", "attack_version")

_ATTACK = ("attack", "attack_settings", "attack_version", *JUDGED, *DRAWN, "adaptive")  # columns are in this order
_UNSAID = {"adaptive": True}  # what a definition leaves out where it is so


def cell(row: Row, but: Collection[str] = ()) -> str:
    """All that is defined, but for these keys: two rows of which it is the same measured the same."""
    return _text({key: value for key, value in _about(row).items() if key not in but})


def model(row: Row) -> str:
    """The deployed model: the line of a table."""
    return _listed(row, (*MODEL, *_said(row, BEHAVIOUR)))


def images(row: Row) -> str:
    """What was judged and towards which goal: the table. CorruptedImages beforehand, they are other images."""
    return _listed(row, IMAGES)


def group(row: Row) -> str:
    """A model on some images: what one audit is about, and named by."""
    return _listed(row, (*MODEL, *IMAGES, *_said(row, BEHAVIOUR)))


def attack(row: Row, but: Collection[str] = ()) -> str:
    """The attack, how it was judged, and whatever no other question asks for: the column of a table."""
    about = _about(row)
    named = [None if key in but else about.get(key) for key in _ATTACK]
    rest = of_attack(row)
    return _text([*named, {key: about[key] for key in sorted(rest) if key not in (*_ATTACK, *but)}])


def of_attack(row: Row) -> set[str]:
    """The keys that are neither the images', nor the model's, nor the threat's."""
    return _about(row).keys() - {*IMAGES, *MODEL, *BEHAVIOUR, *THREAT}


def shared(groups: Iterable[Iterable[Row]]) -> tuple[str, ...]:
    """Keys that do not tell the attacks of these models apart, given the rows of each model.

    How often a random model was asked is the model's, unless it differs among its attacks; what an attack read is of no
    account unless a model met the same attack twice.
    """
    rows = [list(group) for group in groups]
    drawn = () if any(len({_listed(row, DRAWN) for row in each}) > 1 for each in rows) else DRAWN
    twice = any(len({attack(row, READ) for row in each}) < len({attack(row) for row in each}) for each in rows)
    return (*drawn, *(() if twice else READ))


def adaptive(row: Row) -> bool:
    """False of an attack that knew of no defense: shown, and no part of a worst case."""
    return bool(_about(row)["adaptive"])


def _about(row: Row) -> dict[str, Any]:
    return {key: value for key, value in (_UNSAID | row["definition"]).items() if value is not None}


def _said(row: Row, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if key in row["definition"]]


def _listed(row: Row, keys: Iterable[str]) -> str:
    return _text([row["definition"].get(key) for key in keys])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
