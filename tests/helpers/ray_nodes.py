"""A Ray cluster of two nodes of this machine, one of which is lost when it is told so.

    python tests/helpers/ray_nodes.py

Says the cluster's address when it is up; loses a node at the first line on standard input, and ends with that. Started
in a mount namespace of its own (`blinded`), its nodes see an empty folder in place of another one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that a loopback address stays what it is
}


def blinded(folder: Path) -> list[str]:
    """What to write before a command, so that it and its children see nothing in the folder; [] if that cannot be."""
    before = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)]
    able = shutil.which("unshare") and subprocess.run([*before, "true"], capture_output=True).returncode == 0
    return before if able else []


def main() -> None:
    os.environ |= RAY
    from ray.cluster_utils import Cluster  # reads the environment

    one = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
    second = cluster.add_node(**one)
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
        sys.stdin.readline()
    cluster.shutdown()


if __name__ == "__main__":
    main()
