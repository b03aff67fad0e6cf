"""A pool that loses a worker loses what waited, too; one that loses none loses nothing."""

from __future__ import annotations

import os

import pytest

from benchmarks import pools


@pytest.mark.slow
def test_the_standard_librarys_pool_loses_all_that_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    count, ready = pools.lost("concurrent.futures", 2, 0.5)
    assert pools.TASKS - 4 <= count < pools.TASKS and ready > 0
    monkeypatch.setattr(os, "kill", lambda process, with_signal: None)  # nobody is killed
    assert pools.lost("concurrent.futures", 2, 0.1)[0] == 0
