"""python -m experiments.reproduce NAME key=value ...: published figures beside ours. NAME may be all or list.

    python -m experiments.reproduce list
    python -m experiments.reproduce trades_mnist weights=PATH
    python -m experiments.reproduce madry_mnist n=1000
    python -m experiments.reproduce madry_mnist dry_run=true
    python -m experiments.reproduce all

Keys are those of a grid (see python -m experiments.run --help). The defaults are reduced, for about an hour of two CPU
cores each; n=10000 takes all test images. Rows and the page go to results/reproductions/NAME/; the same command goes
on where it was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.reproduce.page import show
from experiments.reproduce.published import Reproduction, find, reproductions
from experiments.reproduce.runner import NotHereError, opened, reproduce
from robustbench_local.cli.preview import show_preview
from robustbench_local.config import reading
from robustbench_local.core.errors import ConfigError, RobustBenchError
from robustbench_local.core.progress import Terminal
from robustbench_local.grids.preview import preview


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0; 2 where a mistake stopped it, or something that must be there first; 130 after Ctrl-C.

    `all` leaves out what lacks something, and goes on after a mistake as well.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    name, *texts = arguments
    try:
        overrides = reading.parse(texts)
        if name == "list":
            for item in reproductions().values():
                print(f"{item.name}  {item.title}. {item.source}")
            return 0
        if name == "all":
            return _all(overrides)
        _one(find(name), overrides)
    except RobustBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; what is finished is kept, and the same command goes on", file=sys.stderr)
        return 130
    return 0


def _all(overrides: Mapping[str, Any]) -> int:
    if "weights" in overrides:
        raise ConfigError("weights are those of one reproduction: give its name in place of all")
    code = 0
    for item in reproductions().values():
        try:
            _one(item, overrides)
        except RobustBenchError as error:
            print(f"{item.name} left out: {error}", file=sys.stderr)
            code = code if isinstance(error, NotHereError) else 2
    return code


def _one(item: Reproduction, overrides: Mapping[str, Any]) -> None:
    if overrides.get("dry_run"):
        _preview(item, overrides)
        return
    with Terminal() as progress:
        compared = reproduce(item, overrides, progress)
    show(item, compared)


def _preview(item: Reproduction, overrides: Mapping[str, Any]) -> None:
    with Terminal() as progress:
        grid, waiting = opened(item, overrides, progress)
        rows = preview(grid)
    print(f"{item.name}: {item.title}")
    show_preview(rows)
    for line in dict.fromkeys(row["waits"] for row in waiting):
        print(f"some cells are {line}")
    if item.certify:
        print(f"and certificates, of which each image takes {item.certify['n0'] + item.certify['n']} forward passes")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
