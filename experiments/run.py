"""python -m experiments.run grid=NAME key=value ...: the same as `robustbench-local run`."""

from __future__ import annotations

import sys

from robustbench_local.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
