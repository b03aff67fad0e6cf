"""Tables for other programs: JSON, and the model_info files that RobustBench asks of a submission."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from robustbench_local.core.escaping import visible
from robustbench_local.report.labels import Label
from robustbench_local.report.model_info import ModelInfo, of_line
from robustbench_local.report.table import Line, Rate, Table
from robustbench_local.report.text import slug
from robustbench_local.storage.row import done

_FOLDERS = {"linf": "Linf", "l2": "L2"}  # the norms that RobustBench ranks within


def json_text(tables: Iterable[Table]) -> str:
    """Every figure of the tables; accuracies in [0, 1], null where there is none. A rank is [best, worst]."""
    record = [_table(table) for table in tables]
    return json.dumps({"tables": record}, indent=1, ensure_ascii=False) + "\n"


def model_infos(
    tables: Iterable[Table], infos: Mapping[str, ModelInfo] = MappingProxyType({})
) -> Iterator[tuple[str, str]]:
    """(path, JSON) per model within an Linf or L2 ball, as RobustBench's model_info/DATA/NORM/NAME.json.

    What rows do not know (title, authors, venue, links, additional data) is of `infos`, and empty where nobody said it
    (`model_info` of the grid). autoattack_acc is
    only there where AutoAttack ran at its standard strength; "reported" is the worst case over all attacks here. Of
    several tables of a model and ball the first counts, which has most images; a random model's namesake is "_random".
    """
    made: dict[str, bool] = {}
    for table in tables:
        norm, _, eps = table.threat.partition(":")
        if norm not in _FOLDERS or table.targets is not None or table.under:
            continue
        for line in table.lines:
            name = slug(f"{line.model}_{line.defense}")
            about = of_line(line, infos) or ModelInfo()
            info = {
                "link": visible(about.link),
                "name": visible(about.title) or f"{line.model}, {line.defense}",
                "authors": visible(about.authors),
                "additional_data": about.extra_data,
                "number_forward_passes": None,
                "dataset": table.data,
                "venue": visible(about.venue),
                "architecture": line.model,
                "eps": eps,
                "clean_acc": _percent(line.clean),
                "reported": _percent(line.worst[-1]),
                "autoattack_acc": _percent(_autoattack(line)),
                "unreliable": _unreliable(line),
                "footnote": f"{table.images} images of the {table.split} split, by robustbench_local",
            } | {key: visible(value) for key, value in (("code", about.code), ("licence", about.licence)) if value}
            path = f"model_info/{slug(table.data)}/{_FOLDERS[norm]}/{name}_{slug(eps)}"
            if made.get(path, table.stochastic) is not table.stochastic:
                path += "_random"
            if path in made:
                continue
            made[path] = table.stochastic
            yield f"{path}.json", json.dumps(info, indent=2, ensure_ascii=False) + "\n"


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "data": table.data,
        "split": table.split,
        "images": table.images,
        "threat": table.threat,
        "targets": table.targets,
        "random": table.stochastic,
        "attacks": [_label(attack) for attack in table.attacks],
        "worst_cases": [*table.worst, *table.beside],
        "lines": [
            {
                "rank": [line.rank.best, line.rank.worst] if line.rank else None,
                "model": line.model,
                "defense": _label(line.defense),
                "clean": _rate(line.clean),
                "robust": [_rate(rate) for rate in line.robust],
                "worst": [_rate(rate) for rate in (*line.worst, *line.beside)],
                "flags": [[*map(visible, row.results["flags"])] if done(row) else [] for row in line.rows],
                "audit": [
                    *[{"check": f"not audited: {line.unaudited}", "status": "unchecked"}] * bool(line.unaudited),
                    *({"check": visible(fault.check), "status": fault.status.name.lower()} for fault in line.faults),
                ],
                "keys": [row.key if row else None for row in line.rows],
                **({"certified": _certified(line)} if table.certifies else {}),
            }
            for line in table.lines
        ],
        "notes": list(table.notes),
    }


def _label(label: Label) -> dict[str, Any]:
    return {"name": label.name, "details": list(label.details)}


def _certified(line: Line) -> dict[str, Any] | None:
    """A lower bound: its share, or why there is none."""
    found = line.certified
    if found is None:
        return None
    how = {"confidence": found.confidence, "draws": found.draws, "keys": [row.key for row in found.rows]}
    return how | ({"missing": found.missing} if found.rate is None else dict(_rate(found.rate) or {}))


def _rate(rate: Rate | None) -> dict[str, float] | None:
    return {"value": rate.value, "low": rate.low, "high": rate.high} if rate else None


def _percent(rate: Rate | None) -> str | None:
    return f"{100 * rate.value:.2f}" if rate else None


def _autoattack(line: Line) -> Rate | None:
    for row, rate in zip(line.rows, line.robust, strict=True):
        if row is None or row.attack != "autoattack":
            continue
        if row.definition["attack_settings"].get("variant") == "standard":
            return rate
    return None


def _unreliable(line: Line) -> bool | None:
    """RobustBench's word for what AutoAttack cannot be trusted with: here, anything flagged, not sound or unaudited."""
    rows = [row for row in line.rows if done(row)]
    return bool(line.faults or line.unaudited) or any(row.results["flags"] for row in rows) if rows else None
