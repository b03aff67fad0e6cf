"""Who a model is of: what a leaderboard that is published says beside its figures. No row is named by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from robustbench_local.core.errors import ConfigError
from robustbench_local.report.table import Line

_LINKS = ("link", "code")


@dataclass(frozen=True)
class ModelInfo:
    """title, authors and venue of the paper, its link and that of the code (http or https), whether extra_data was
    trained on, the licence of the weights, and a bibtex entry. ConfigError for another kind of link.
    """

    title: str = ""
    authors: str = ""
    venue: str = ""
    link: str = ""
    code: str = ""
    extra_data: bool | None = None
    licence: str = ""
    bibtex: str = ""

    def __post_init__(self) -> None:
        for name in _LINKS:
            if (link := getattr(self, name)) and not _is_web(link):
                raise ConfigError(f"{name} is {link!r:.80}: it must be an address that begins with http:// or https://")

    @property
    def reference(self) -> str:
        """ "Madry et al., ICLR 2018"."""
        return ", ".join(filter(None, (self.authors, self.venue)))


def info_of(record: Mapping[str, Any]) -> ModelInfo:
    """As grid.json says it. TypeError or ValueError where it is not as ModelInfo is."""
    kinds = {field.name: bool if field.name == "extra_data" else str for field in fields(ModelInfo)}
    for name, value in record.items():
        if not isinstance(value, kinds.get(name, type(None))):
            raise TypeError(f"model_info has {name} = {value!r:.40}")
    try:
        return ModelInfo(**record)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def of_line(line: Line, infos: Mapping[str, ModelInfo]) -> ModelInfo | None:
    """What is said of a line's model and defense, or else of its model."""
    row = next((row for row in line.rows if row is not None), None)
    return None if row is None else infos.get(f"{row.model} / {row.defense}", infos.get(row.model))


def _is_web(link: str) -> bool:
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    plain = link.isprintable() and not any(char.isspace() for char in link)
    return plain and parts.scheme in ("http", "https") and bool(parts.netloc)
