"""What processes of our own are told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from robustbench_local.core.child import command, environment, of_worker


def test_it_finds_what_this_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def main():\n    print('found')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = subprocess.run(command("only_here"), env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "found\n"


def test_a_worker_has_its_threads_and_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")
    told = of_worker(3)
    assert told["OMP_NUM_THREADS"] == told["MKL_NUM_THREADS"] == "3"
    assert told["GLIBC_TUNABLES"].endswith(":glibc.malloc.trim_threshold=1"), "the user's counts, being last"
    assert "mmap_threshold=" in told["GLIBC_TUNABLES"]
