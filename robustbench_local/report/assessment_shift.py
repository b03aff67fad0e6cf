"""One line of a corruption table -> accuracy under corruptions as an assessment has it, with the rows behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from robustbench_local.core.escaping import visible
from robustbench_local.report.assessment_condition import about_rows, figure_of
from robustbench_local.report.assessment_parts import Compared, CorruptionResult, Figure, Shift
from robustbench_local.report.corruption import CorruptionLine, CorruptionTable
from robustbench_local.report.detail import flags_of
from robustbench_local.storage.row import done


def shift(
    name: str, table: CorruptionTable, line: CorruptionLine, changes: Mapping[str, Sequence[Compared]] | None = None
) -> Shift:
    """name: its id. changes: of a comparison, by the keys of the rows that they are about."""
    rows = [row for row in line.cells.values() if row is not None]
    about = rows[0].definition
    clean = next((figure_of(row, "clean") for row in rows if done(row)), None)
    mean = _mean(line)
    return Shift(
        id=name,
        data=table.data,
        split=table.split,
        images=line.images,
        ids=about["ids"],
        data_digest=about["data_digest"],
        transform=about.get("transform"),
        benchmark=table.benchmark,
        under=table.under,
        seeds=tuple(sorted({row.definition["seed"] for row in rows})),
        clean=clean,
        mean=mean,
        drop=clean.value - mean.value if clean and mean else None,
        corruptions=tuple(
            CorruptionResult(
                corruption,
                tuple((level, _mean(line, corruption, level)) for level in table.severities),
                _mean(line, corruption),
            )
            for corruption in table.corruptions
        ),
        missing=tuple(_missing(line)),
        flags=tuple((flag.label, flag.why) for flag in flags_of(rows)),
        compared=None if changes is None else about_rows(changes, rows),
        rows=tuple(row.key for row in rows),
    )


def _mean(line: CorruptionLine, corruption: str | None = None, severity: int | None = None) -> Figure | None:
    """Over these cells, each counting the same; None where one failed or is missing."""
    found = line.accuracy(corruption=corruption, severity=severity)
    keys = [
        row.key
        for (name, level, _), row in line.cells.items()
        if row is not None and corruption in (None, name) and severity in (None, level)
    ]
    return None if found is None else Figure(found.value, found.low, found.high, line.images, "Wilson", tuple(keys))


def _missing(line: CorruptionLine) -> Iterator[str]:
    for (name, severity, _), row in line.cells.items():
        if not done(row):
            yield f"{name} {severity}: {'not run' if row is None else visible(row.why)}"
