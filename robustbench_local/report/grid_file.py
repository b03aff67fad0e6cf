"""What a grid says beside its rows, of which it is no part: the baseline of corruption errors, who its models are of.

Whoever reports on them anew says the same.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from robustbench_local.core.escaping import shown
from robustbench_local.report.model_info import ModelInfo, info_of
from robustbench_local.storage.files import whole_file

NAME = "grid.json"


@dataclass(frozen=True)
class Said:
    """baseline: a defense; models: by "MODEL" or "MODEL / DEFENSE", as tables call them."""

    baseline: str | None = None
    models: Mapping[str, ModelInfo] = field(default_factory=dict)


def keep(folder: Path, said: Said) -> None:
    """Write FOLDER/grid.json where there is something to say. StoreError as in whole_file."""
    path = folder / NAME
    if said == Said() and not path.exists():
        return
    models = {
        name: {key: value for key, value in asdict(info).items() if value not in ("", None)}
        for name, info in said.models.items()
    }
    record = {"baseline": said.baseline} | ({"model_info": models} if models else {})
    with whole_file(path) as file:
        file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def kept(folders: Iterable[Path]) -> Said:
    """What these folders say together: the baseline that they agree on, if any; of each model what the first says."""
    said = [_read(folder / NAME) for folder in folders]
    baselines = {each.baseline for each in said if each.baseline is not None}
    models: dict[str, ModelInfo] = {}
    for each in said:
        models = {**each.models, **models}
    return Said(baselines.pop() if len(baselines) == 1 else None, models)


def _read(path: Path) -> Said:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        baseline = record["baseline"]
        if baseline is None or isinstance(baseline, str):
            return Said(baseline, {name: info_of(about) for name, about in record.get("model_info", {}).items()})
        fault = f"its baseline is {baseline!r:.40}, which is no name"
    except FileNotFoundError:
        return Said()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}"
    warnings.warn(shown(f"{path.absolute()} counts as missing: {fault}", "terminal"), stacklevel=2)
    return Said()
