"""The command line: run a grid, report on its rows, audit a model, list what there is, fetch data, train."""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence

from robustbench_local import __version__
from robustbench_local.cli import (
    audit,
    check,
    compare,
    data,
    evaluate,
    gallery,
    metrics,
    pack,
    report,
    run,
    status,
    train,
)
from robustbench_local.cli import list as list_names
from robustbench_local.cli.output import CUT_SHORT, INTERRUPTED, WRONG
from robustbench_local.core import streams
from robustbench_local.core.errors import RobustBenchError
from robustbench_local.core.escaping import shown

# a command's file loads little; its run() loads what takes longer than a keypress, where Ctrl-C is expected
DEBUG = "--debug"  # anywhere on the line
COMMANDS = (evaluate, run, status, check, metrics, report, compare, pack, gallery, list_names, data, train, audit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0; 1 where a cell failed; 2 where a mistake, or the disk, stopped it; 3 or 4 where an audit found a
    model suspicious or broken; 5 where compare lost a cell.

    130 after Ctrl-C; 141 where whoever read the output left.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in arguments
    arguments = [each for each in arguments if each != DEBUG]
    streams.replace_missing()
    formatted = warnings.formatwarning
    warnings.formatwarning = _in_a_line
    try:
        code = _do(_parsed(arguments), debug)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        again = shlex.join(["robustbench-local", *arguments])
        streams.say(f"\ninterrupted; what is finished is kept. The same command goes on:\n  {again}")
        return INTERRUPTED
    except BrokenPipeError:  # whoever was reading along, as `head` does, has read enough
        streams.abandon(sys.stdout)
        return CUT_SHORT
    except OSError as error:  # the disk behind standard output is full, say
        streams.abandon(sys.stdout)
        streams.say(f"error: {shown(error, 'terminal')}; what is finished is kept")
        return WRONG
    finally:
        warnings.formatwarning = formatted


def _in_a_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as a user reads it, without the line of ours that gave it."""
    return f"warning: {shown(message, 'terminal')}\n"


def _do(options: argparse.Namespace, debug: bool) -> int:
    """debug: of an error the whole traceback, with the file and line of whatever code of the user's it came from."""
    try:
        from robustbench_local.core.containment import guarded

        with guarded():
            code: int = options.do(options)
        return code
    except RobustBenchError as error:
        if debug:
            streams.say("".join(traceback.format_exception(error)))
        streams.say(f"error: {shown(error, 'terminal')}")
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # how rich ends where nobody reads along any more
            raise error.__context__ from None
        how = shown(repr(error), "terminal")
        streams.say(f"error: somebody's code ended this command ({how}); what is finished is kept")
    return WRONG


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """Flags may stand before, between and after a command's words (argparse takes words from one place only)."""
    parser = _parser()
    options, left = parser.parse_known_args(arguments)
    if left and (not hasattr(options, "overrides") or any(word.startswith("-") for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.overrides += left
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="robustbench-local", description=__doc__)
    parser.add_argument("--version", action="version", version=f"robustbench_local {__version__}")
    parser.add_argument(DEBUG, action="store_true", help="of an error show where it came from, your own code's too")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    return parser
