"""`robustbench-local list attacks pgd`: what there is, by name, and of one attack or defense every setting."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from robustbench_local.cli.output import OK, say_json, wrapped
from robustbench_local.cli.parsing import Commands, add_json
from robustbench_local.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from robustbench_local.cli.listings import Item

KINDS = ("attacks", "defenses", "grids", "models", "data")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "list",
        help="what there is, by name: list attacks, list attacks pgd",
        description="What there is, by name. Of attacks and defenses that are named, or with -v of all of them, every"
        " setting with its type, its default and what it means.",
    )
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("names", nargs="*", metavar="name", help="only these")
    add_json(parser)
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.cli.listings import LISTS, settings

    items = _chosen(LISTS[options.what](), options.names, options.what)
    details = bool(options.names) or options.verbose or options.json
    each = [settings(options.what, item.name) if details else [] for item in items]
    if options.json:
        say_json(
            [
                {"name": item.name, "about": item.about, **item.facts}
                | ({"settings": [*map(asdict, own)]} if own else {})
                for item, own in zip(items, each, strict=True)
            ]
        )
        return OK
    for item, own in zip(items, each, strict=True):
        print(wrapped(f"{item.name}  {item.about}"))
        for key, value in item.facts.items():
            if value and not (own and key == "settings"):
                print(wrapped(f"{key}: {value}", "    "))
        for setting in own:
            print(wrapped(f"{setting.name}={setting.default}  {setting.must_be}: {setting.about}", "    "))
    return OK


def _chosen(items: Sequence[Item], names: Sequence[str], what: str) -> list[Item]:
    known = [item.name for item in items]
    for name in names:
        if name not in known:
            raise ConfigError(f'list {what} has no "{name}"{did_you_mean(name, known)}: `list {what}` shows all')
    return [item for item in items if not names or item.name in names]
