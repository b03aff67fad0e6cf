"""Every kind of file that the package keeps, damaged in every way: what is read is right, or the file is named."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import Audit, Retry, RowFinding, keep
from robustbench_local.core.errors import RobustBenchError
from robustbench_local.models import zoo
from robustbench_local.report.render import markdown
from robustbench_local.report.results import Results
from robustbench_local.storage import checkpoints
from robustbench_local.storage.archive import NAME
from robustbench_local.storage.drafts import read_draft, write_draft
from robustbench_local.storage.packing import pack
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row, stored

CASES = 300
N = 40
_PAGE = 4096


@dataclass
class Kind:
    """Files that are read in one way. read() gives all that can be read of them, by name, as text."""

    files: list[Path]
    read: Callable[[], dict[str, str]]


def flipped(whole: bytes, _: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(whole))
    return whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]


def zeroed(whole: bytes, _: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(max(1, len(whole) - _PAGE))
    return whole[:start] + bytes(min(_PAGE, len(whole) - start)) + whole[start + _PAGE :]


DAMAGES: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "a bit flipped": flipped,
    "a digit edited": lambda whole, _, dice: edited(whole, dice),
    "cut short": lambda whole, _, dice: whole[: dice.randrange(1, len(whole))],
    "emptied": lambda whole, _, dice: b"",
    "4 KiB zeroed": zeroed,
    "another's content": lambda _, other, dice: other,
}


def edited(whole: bytes, dice: random.Random) -> bytes:
    """One digit raised by one, as by hand; a file without digits has a bit flipped."""
    places = [place for place, byte in enumerate(whole) if 0x30 <= byte <= 0x39]
    if not places:
        return flipped(whole, b"", dice)
    place = dice.choice(places)
    return whole[:place] + str((int(whole[place : place + 1]) + 1) % 10).encode() + whole[place + 1 :]


def grid(folder: Path) -> None:
    """Two attacks on three models, and an audit of each model that lowers its numbers."""
    made = [
        a_row([k % (step + model) > 0 for k in range(N)], ids=f"0:{N}", attack=attack, defense=f"d{model}")
        for model in range(2, 5)
        for step, attack in ((1, "fgsm"), (2, "pgd"))
    ]
    store = stored(folder, *made)
    for place in range(0, len(made), 2):
        keys = tuple(row["key"] for row, _ in made[place : place + 2])
        retry = Retry("linf:8/255", "best", 10, (1, 3, 5 + place), keys)
        finding = RowFinding(Finding("a stronger attack", Status.SUSPICIOUS, "it succeeds"), "linf:8/255", True)
        keep(store, f"{place}.json", Audit(keys, (finding,), (retry,)))


def of_store(folder: Path) -> dict[str, str]:
    store = Store(folder)
    rows = {row["key"]: repr(row) for row in store.rows()}
    arrays = {f"arrays of {key}": repr({k: v.tolist() for k, v in store.arrays(key).items()}) for key in rows}
    return rows | arrays | {name: repr(record) for name, record in store.audits().items()}


def figures(state: dict[str, torch.Tensor] | None) -> str | None:
    return None if state is None else repr({name: value.tolist() for name, value in state.items()})


def known(found: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in found.items() if text is not None}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    home = tmp_path_factory.mktemp("kept")
    loose, packed = home / "results" / "loose", home / "results" / "packed"
    grid(loose)
    grid(packed)
    pack(packed)
    nets = {name: torch.nn.Linear(40, 30) for name in ("one", "two")}
    caches: dict[str, list[Path]] = {"models": [], "fitted": [], "zoo": []}
    for place, folder in caches.items():
        for name, net in nets.items():
            path = home / (f"{place}/mnist" if place == "zoo" else place) / f"{name}.safetensors"
            checkpoints.save(path, net, {"architecture": "none", "figures": '{"robust_accuracy": 0.5}'}, half=False)
            folder.append(path)
    drafts = [home / "training" / f"training-{name}.pt" for name in nets]
    for path, net in zip(drafts, nets.values(), strict=True):
        write_draft(path, {"net": net.state_dict(), "history": [{"loss": 0.5}]}, epochs=1)

    def of_cache(place: str) -> Callable[[], dict[str, str]]:
        return lambda: known({path.stem: figures(checkpoints.cached(path)) for path in caches[place]})

    def of_drafts() -> dict[str, str]:
        states = {path.stem: read_draft(path, torch.device("cpu")) for path in drafts}
        return known({name: repr({**state, "net": figures(state["net"])}) for name, state in states.items() if state})

    def of_zoo() -> dict[str, str]:
        found: dict[str, str | None] = {}
        for path in caches["zoo"]:
            try:
                entry = zoo.zoo_entry(f"mnist/{path.stem}")
                found[path.stem] = f"{entry.figures} {figures(entry.state)}"
            except RobustBenchError as error:
                warnings.warn(str(error), stacklevel=1)
        return known(found)

    return {
        "rows": Kind(sorted((loose / "rows").glob("*.json")), lambda: of_store(loose)),
        "arrays": Kind(sorted((loose / "rows").glob("*.npz")), lambda: of_store(loose)),
        "audits": Kind(sorted((loose / "audits").glob("*.json")), lambda: of_store(loose)),
        "archives": Kind([packed / NAME], lambda: of_store(packed)),
        "models": Kind(caches["models"], of_cache("models")),
        "fitted": Kind(caches["fitted"], of_cache("fitted")),
        "zoo": Kind(caches["zoo"], of_zoo),
        "training": Kind(drafts, of_drafts),
    }


def test_what_is_read_of_damaged_files_is_right_or_the_file_is_named(
    kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "ZOO", kinds["zoo"].files[0].parents[1])
    whole = {name: kind.read() for name, kind in kinds.items()}
    counts: Counter[str] = Counter()
    for case in range(CASES):
        dice = random.Random(case)
        of = list(kinds)[case % len(kinds)]
        kind, (what, damage) = kinds[of], dice.choice(list(DAMAGES.items()))
        file = dice.choice(kind.files)
        others = [each for each in kind.files if each != file] or kinds["arrays"].files
        before, other = file.read_bytes(), dice.choice(others).read_bytes()
        file.write_bytes(damage(before, other, dice))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = kind.read()
        about = f"case {case}: {file.name}, {what}"
        wrong = [name for name, text in found.items() if whole[of].get(name) != text]
        assert not wrong, f"{about}: {wrong} is not as it was"
        named = any(file.name in str(warning.message) or f"{file.stem}." in str(warning.message) for warning in said)
        assert found == whole[of] or named, f"{about}: nothing names it"
        counts[f"{of}: {'right' if found == whole[of] else 'named'}"] += 1
        file.write_bytes(before)
        for aside in file.parent.glob("*.damaged"):
            aside.unlink()
    print(f"{CASES} cases", dict(sorted(counts.items())))
    assert sum(counts.values()) == CASES
    assert sum(count for name, count in counts.items() if name.endswith("named")) > 0.8 * CASES
    assert {name: kind.read() for name, kind in kinds.items()} == whole


def test_tables_of_damaged_rows_hold_what_the_whole_ones_did(kinds: dict[str, Kind], tmp_path: Path) -> None:
    """A figure of a table is the one it was, or a dash; of what an audit had lowered the table says that it is gone."""
    folder = kinds["rows"].files[0].parents[1]
    whole = {(line.defense.name, str(attack)): cell for line, attack, cell in cells(folder)}
    for case in range(40):
        dice = random.Random(1000 + case)
        file = dice.choice([*kinds["rows"].files, *kinds["arrays"].files])
        before = file.read_bytes()
        file.write_bytes(dice.choice(list(DAMAGES.values()))(before, kinds["rows"].files[0].read_bytes(), dice))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for line, attack, cell in cells(folder):
                assert cell is None or cell == whole[line.defense.name, str(attack)], f"case {case}: {file.name}"
        file.write_bytes(before)
        for aside in file.parent.glob("*.damaged"):
            aside.unlink()
    assert "suspicious" in markdown(Results.read([folder]).tables())


def cells(folder: Path) -> list[tuple[Any, Any, Any]]:
    tables = Results.read([folder]).tables()
    return [
        (line, attack, cell)
        for table in tables
        for line in table.lines
        for attack, cell in zip(table.attacks, line.robust, strict=True)
    ]
