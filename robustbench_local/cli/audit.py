"""`robustbench-local audit MODEL data=mnist threat=linf:0.3 n=200`: the report card of one model."""

from __future__ import annotations

import argparse
import inspect

from robustbench_local.cli.audit_config import AuditConfig
from robustbench_local.cli.output import say_json
from robustbench_local.cli.parsing import Commands, add_json


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "audit",
        help="a report card of one model: audit zoo:mnist/none data=mnist threat=linf:0.3",
        description="Run the evaluation checklist on one model (list models) and print a report card: sound (exit code"
        " 0), suspicious (3) or broken (4). With -v the time that each check took.",
        epilog=f"keys:\n\n{inspect.getdoc(AuditConfig)}",
    )
    parser.add_argument("model")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    add_json(parser, "the card as JSON on standard output; out=FILE writes the same")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.cli.auditing import card_of

    card, about, code = card_of(options.model, options.overrides)
    if options.json:
        say_json(card.as_dict() | about)
    else:
        card.show(verbose=options.verbose)
    return code
