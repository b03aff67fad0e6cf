"""What a command's file adds its parser to, and the flags that all commands have."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, TypeAlias

from robustbench_local import __version__
from robustbench_local.cli.folding import Folding

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no public name for it
else:
    Commands = argparse._SubParsersAction


class Parser(argparse.ArgumentParser):
    """Knows the flags of every command, which may stand before its name as well as after it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": Folding} | settings)
        say_less = self.add_argument_group("of every command", argument_default=argparse.SUPPRESS)
        say_less.add_argument("--version", action="version", version=f"robustbench_local {__version__}")
        say_less.add_argument(
            "-q", "--quiet", action="store_true", help="no progress and no warnings, nothing but errors and results"
        )
        say_less.add_argument("-v", "--verbose", action="store_true", help="more of what is known")
        say_less.add_argument(
            "--debug", action="store_true", help="of an error show where it came from, your own code's too"
        )


def add_json(parser: argparse.ArgumentParser, what: str = "as JSON, for another program") -> None:
    parser.add_argument("--json", action="store_true", help=what)
