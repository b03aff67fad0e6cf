"""Every test here has a cache of its own, and those that ask for it a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from tests.helpers.model_server import Served, serving


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("httpx2")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as server:
        yield server
