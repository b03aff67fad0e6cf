"""`robustbench-local audit MODEL data=mnist threat=linf:0.3 n=200`: the report card of one model."""

from __future__ import annotations

import argparse
import inspect

from robustbench_local.cli.audit_config import AuditConfig
from robustbench_local.cli.parsing import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "audit",
        help="a report card of one model: audit zoo:mnist/none data=mnist threat=linf:0.3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run the evaluation checklist on one model (list models) and print a report card: sound (exit code"
        " 0), suspicious (3) or broken (4).",
        epilog=f"keys:\n\n{inspect.getdoc(AuditConfig)}",
    )
    parser.add_argument("model")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the time that each check took")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.cli.auditing import card_of

    card, code = card_of(options.model, options.overrides)
    card.show(verbose=options.verbose)
    return code
