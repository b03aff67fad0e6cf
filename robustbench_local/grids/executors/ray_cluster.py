"""A Ray cluster: one that is there, or one of this machine alone; and whether it has what a cell asks for."""

from __future__ import annotations

import importlib
import math
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustbench_local.config.quantities import size
from robustbench_local.core.device import is_accelerator
from robustbench_local.core.errors import ConfigError, RobustBenchError, said
from robustbench_local.grids.executors.local import usual_workers
from robustbench_local.grids.grid import Grid

_STORE = 200 * 2**20  # bytes of memory for what a cluster of this machine passes on: rows are small
_PATIENCE = 10.0  # seconds until a cluster has answered


@dataclass(frozen=True)
class Asked:
    """What `cluster` of a grid says to Ray.

    address: of a cluster that is there, as in RAY_ADDRESS; without both one of this machine is started. num_cpus,
    num_gpus, resources: for a cell; by default one core, and a GPU where the grid runs on GPUs. runtime_env: what Ray
    brings to its machines, such as {working_dir: .}
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float | None = None
    resources: dict[str, float] = field(default_factory=dict)
    runtime_env: dict[str, Any] | None = None

    def for_a_cell(self, grid: Grid) -> dict[str, float]:
        """By the names that Ray has for them."""
        gpus = float(is_accelerator(grid.builder.device)) if self.num_gpus is None else self.num_gpus
        memory = 0 if grid.config.memory is None else size(grid.config.memory, "memory")
        asked = {"CPU": self.num_cpus, "GPU": gpus, "memory": float(memory), **self.resources}
        return {name: amount for name, amount in asked.items() if amount}


def machines_of(ray: Any) -> list[dict[str, float]]:
    """What each machine of the cluster has, by Ray's names."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_room(wanted: Mapping[str, float], machines: Sequence[Mapping[str, float]], where: str) -> None:
    """ConfigError unless a machine has all of it: Ray would wait for one, for ever and without a word."""
    if not any(room_for(wanted, machine) for machine in machines):
        have = "; ".join(_named({name: machine.get(name, 0.0) for name in wanted}) for machine in machines) or "none"
        raise ConfigError(
            f"a cell asks for {_named(wanted)}, and no machine of the Ray cluster {where} has that: they have {have}."
            " Ask for less by cluster.num_cpus, cluster.num_gpus, cluster.resources or memory, or add such a machine"
        )


def room_for(wanted: Mapping[str, float], machine: Mapping[str, float]) -> int:
    """How many cells a machine can have at once."""
    return min((int(machine.get(name, 0.0) / amount) for name, amount in wanted.items()), default=1)


def _named(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_amount(name, amount)}" for name, amount in amounts.items())


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB" if name == "memory" else f"{amount:g}"


@contextmanager
def connected(grid: Grid, asked: Asked, wanted: Mapping[str, float]) -> Iterator[tuple[Any, str]]:
    """Ray, with a cluster, and where that is. What was started here is stopped at the end."""
    there = asked.address or os.environ.get("RAY_ADDRESS")
    if there is not None:
        _knock(there)
    _authenticate(own=there is None)
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(f"executor=ray needs Ray: pip install 'robustbench_local[ray]' ({error})") from error
    if ray.is_initialized():
        yield ray, "of this process"
        return
    common: dict[str, Any] = {"runtime_env": asked.runtime_env, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        context = ray.init(there, **common) if there else ray.init("local", **_own_cluster(grid, wanted), **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = f"no Ray cluster answers at {there}" if there else "Ray does not start here"
        raise RobustBenchError(f"{why}: {said(error)}") from error
    url, token = context.dashboard_url, os.environ.get("RAY_AUTH_TOKEN")
    asks = f" (it asks for the token {token})" if token and not there else ""
    where = f"http://{url}{asks}" if url else "there is none; pip install 'ray[default]' brings it"
    grid.progress.line(f"Ray's dashboard: {where}")
    try:
        yield ray, f"at {there}" if there else "of this machine"
    finally:
        ray.shutdown()


def _authenticate(own: bool) -> None:
    """Whoever reaches the ports of a cluster may run anything there, unless it asks for a token.

    own: a cluster of this machine gets one that nobody else knows. With others this user's is sent, which `ray start`
    found as well.
    """
    if "RAY_AUTH_MODE" in os.environ or "ray" in sys.modules:
        return  # it is decided: Ray reads this as it is imported
    if own:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    elif {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or (Path.home() / ".ray/auth_token").exists():
        os.environ["RAY_AUTH_MODE"] = "token"


def _knock(address: str) -> None:
    """RobustBenchError where nobody listens: Ray would try for minutes. What is no HOST:PORT is Ray's to say."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
        except OSError as error:
            raise RobustBenchError(
                f"no Ray cluster answers at {address} ({error}): start one with `ray start --head`, or leave out"
                " cluster.address and RAY_ADDRESS for one of this machine"
            ) from error


def _own_cluster(grid: Grid, wanted: Mapping[str, float]) -> dict[str, Any]:
    """What a cluster of this machine has: room for the workers; of GPUs and memory what there is."""
    workers = grid.config.workers or usual_workers(grid)
    room = {name: amount * workers for name, amount in wanted.items() if name not in ("GPU", "memory")}
    return {
        "num_cpus": max(1, math.ceil(room.pop("CPU", 1.0))),
        "resources": room,
        "object_store_memory": _STORE,
        "_node_ip_address": "127.0.0.1",
    }
