"""The address of a model: https://host/v2/models/NAME, or with /versions/V; http+labels:// where only classes come."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from robustbench_local.core.errors import ModelError

_MODEL = re.compile(r"(?P<before>(?:/[^/]+)*?)/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/?")


@dataclass(frozen=True)
class Address:
    """server: up to and with /v2. version: where it is named. labels: whether only classes come back."""

    server: str
    name: str
    version: str | None = None
    labels: bool = False

    @classmethod
    def parse(cls, spec: str) -> Self:
        """ModelError where it is no such address, or holds a password or a key, which it does not repeat."""
        scheme, _, rest = spec.partition("://")
        scheme, _, labels = scheme.partition("+")
        try:
            parts = urlsplit(f"{scheme}://{rest}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ModelError(f"the address of the model cannot be read: {error}") from None
        if parts.username is not None or parts.password is not None:
            raise ModelError(
                "the address holds a user or a password (before the @), which would stand in every row: take it out,"
                " and name an environment variable with the header, endpoint: {headers: {Authorization: NAME}}"
            )
        if parts.query or parts.fragment:
            raise ModelError(
                "the address holds a query (after the ?), which would stand in every row: take it out. A key goes into"
                " a header, endpoint: {headers: {Authorization: NAME_OF_AN_ENVIRONMENT_VARIABLE}}"
            )
        found = _MODEL.fullmatch(parts.path)
        if not host or found is None or labels not in ("", "labels"):
            raise ModelError(
                f'"{spec}" is no address of a model: write https://HOST/v2/models/NAME, with /versions/V for one of'
                " several, and https+labels:// where only classes come back (the v2 inference protocol of KServe)"
            )
        at = f"[{host}]" if ":" in host else host
        server = f"{parts.scheme}://{at}{'' if port is None else f':{port}'}{found['before']}/v2"
        return cls(server, found["name"], found["version"], labels == "labels")

    @property
    def model(self) -> str:
        """Where its metadata are; with /infer after it, where it is asked."""
        return f"{self.server}/models/{self.name}" + (f"/versions/{self.version}" if self.version else "")

    @property
    def readable_on_the_way(self) -> bool:
        """Whether others on the network may read what is sent: http to another machine."""
        host = urlsplit(self.server).hostname or ""
        local = host in ("localhost", "::1") or host.startswith("127.")
        return self.server.startswith("http://") and not local
