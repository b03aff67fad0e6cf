"""A grid on a Ray cluster of two nodes of this machine, one of which is lost as soon as it is at work on a cell.

    python tests/helpers/ray_nodes.py FOLDER

FOLDER/one.yaml is the grid; its results come to FOLDER/ray. The node that stays has another cache, and where a mount
namespace may be made (by root) an empty folder lies over the results: what it does must be sent back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from robustbench_local.core.progress import Progress
from robustbench_local.grids.run import run
from robustbench_local.grids.running import FOLDER
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from robustbench_local.storage.claims import Claims
from tests.helpers.one_grid import opened

PORT = 26379
ADDRESS = f"127.0.0.1:{PORT}"
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that the loopback address stays what it is
}
BLIND = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"']


class Printed(Progress):
    def line(self, text: str) -> None:
        print(text, flush=True)


def node(folder: Path, name: str, *options: str, before: list[str], **more: str) -> subprocess.Popen[bytes]:
    """A node of one core, in a session of its own."""
    start = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
    sizes = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=100000000"]
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen(
            [*before, *start, *sizes, *options],
            env={**os.environ, **more},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def lose(lost: subprocess.Popen[bytes], claims: Claims) -> None:
    """Kill a node's raylet when anybody is at work on a cell, as far as that can be seen from here."""
    while not any("audit" not in str(held.about.get("label", "audit")) for held in claims.all()):
        time.sleep(0.05)
    found = subprocess.run(["pgrep", "-P", str(lost.pid), "raylet"], capture_output=True, text=True, check=True)
    for process in found.stdout.split():
        os.kill(int(process), signal.SIGKILL)
    print("a node was lost", flush=True)


def main(folder: Path) -> None:
    os.environ |= RAY
    (folder / "ray").mkdir()
    blind = [*BLIND, str(folder / "ray")]
    if subprocess.run([*blind, "true"], capture_output=True).returncode != 0:
        blind = []
    print("the node that stays sees no results" if blind else "both nodes see the results")
    cache = {CACHE_VARIABLE: str(folder / "another-cache")}
    stays = node(folder, "stays", "--head", f"--port={PORT}", "--include-dashboard=false", before=blind, **cache)
    nodes = [stays]
    try:
        time.sleep(20)
        nodes.append(node(folder, "lost", f"--address={ADDRESS}", before=[]))
        time.sleep(15)
        grid = opened(folder, "ray", Printed(), executor="ray", cluster={"address": ADDRESS})
        claims = Claims(grid.store.folder / FOLDER)
        threading.Thread(target=lose, args=(nodes[1], claims), daemon=True).start()
        run(grid)
    finally:
        for each in reversed(nodes):
            each.terminate()
        for each in nodes:
            each.wait(timeout=60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
