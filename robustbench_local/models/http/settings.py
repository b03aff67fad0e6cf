"""What may be said of an endpoint under `endpoint`: what it costs, how fast it may be asked, and with which keys."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from robustbench_local.config.ranges import Count, Positive, Range
from robustbench_local.config.settings import construct
from robustbench_local.core.errors import ConfigError, ModelError

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True)
class EndpointSettings:
    """None of them changes what the model answers, so none of them names its rows.

    queries            images in all that may be asked about, by every run of this model together
    queries_per_image  of these, for one image under one attack, at most; it becomes the `budget` of every verdict
    price, currency    of one image
    per_second         requests a second, at most
    concurrent         requests at once
    batch              images a request, at most
    timeout            seconds that one request may take
    retries            how often a request is repeated that was refused for now, lost or cut short
    longest_wait       seconds before a retry, at most; an endpoint that asks for more ends the run
    headers            {header: NAME_OF_AN_ENVIRONMENT_VARIABLE}, which holds its value
    protocol           json or binary; auto takes binary where the server announces it
    """

    queries: Count | None = None
    queries_per_image: Count | None = None
    price: Annotated[float, Range(0)] | None = None
    currency: str = ""
    per_second: Positive | None = None
    concurrent: Annotated[int, Range(1, 64)] = 1
    batch: Count = 32
    timeout: Positive = 30.0
    retries: Annotated[int, Range(0, 100)] = 6
    longest_wait: Annotated[float, Range(0)] = 60.0
    headers: dict[str, str] = field(default_factory=dict)
    protocol: Literal["auto", "json", "binary"] = "auto"

    def __post_init__(self) -> None:
        for header, variable in self.headers.items():
            if not _HEADER.fullmatch(header):
                raise ConfigError(f"headers names {header!r}, which can be no header: write Authorization, say")
            if not _VARIABLE.fullmatch(variable):  # it may be the key itself, and is not repeated
                raise ConfigError(
                    f"headers gives {header} something that is no name of an environment variable (capitals, digits"
                    f" and _): put the value into one, and write {header}: ITS_NAME"
                )

    def header_values(self) -> dict[str, str]:
        """The headers as they are sent. ModelError, which shows no value, where one is missing or cannot be sent."""
        found = {}
        for header, variable in self.headers.items():
            value = os.environ.get(variable, "").strip()
            if not _VALUE.fullmatch(value):
                what = "holds characters that no header may hold" if value else "is not set, or empty"
                raise ModelError(f"the environment variable {variable}, for the header {header}, {what}")
            found[header] = value
        return found


def endpoint_settings(values: Mapping[str, Any] | None) -> EndpointSettings:
    """What a model.yaml or a grid says under `endpoint`; ConfigError on any mistake."""
    return construct(EndpointSettings, values or {}, "endpoint")
