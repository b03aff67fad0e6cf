"""python -m experiments.train zoo=NAME key=value ...: the same as `robustbench-local train`."""

from __future__ import annotations

import sys

from robustbench_local.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
