"""The command line: run a grid, report on its rows, audit a model, list what there is, fetch data, train."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from robustbench_local.cli import (
    audit,
    check,
    compare,
    completion,
    data,
    evaluate,
    gallery,
    metrics,
    pack,
    report,
    run,
    site,
    status,
    train,
)
from robustbench_local.cli import list as list_names
from robustbench_local.cli.output import CUT_SHORT, EXITS, INTERRUPTED, WRONG
from robustbench_local.cli.parsing import Parser
from robustbench_local.core import streams
from robustbench_local.core.errors import RobustBenchError
from robustbench_local.core.escaping import shown

# a command's file loads little; its run() loads what takes longer than a keypress, where Ctrl-C is expected
COMMANDS = (
    evaluate,
    run,
    status,
    check,
    metrics,
    report,
    compare,
    site,
    pack,
    gallery,
    list_names,
    data,
    train,
    audit,
    completion,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Its exit code, one of output.EXITS."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    streams.replace_missing()
    if "OMP_WAIT_POLICY" not in os.environ:  # before torch: threads that wait by spinning for long starve beside others
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    formatted = warnings.formatwarning
    warnings.formatwarning = _in_a_line
    try:
        options = _parsed(arguments)
        with _as_quiet_as(options):
            code = _do(options)
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
    return streams.heard(f"warning: {shown(message, 'terminal')}") + "\n"


@contextmanager
def _as_quiet_as(options: argparse.Namespace) -> Iterator[None]:
    """-q: nothing but errors on standard error, and results on standard output."""
    before = streams.QUIET.set(options.quiet)
    try:
        with warnings.catch_warnings():
            if options.quiet:
                warnings.simplefilter("ignore")
            yield
    finally:
        streams.QUIET.reset(before)


def _do(options: argparse.Namespace) -> int:
    """--debug: of an error the whole traceback, with the file and line of whatever code of the user's it came from."""
    try:
        from robustbench_local.core.containment import guarded

        with guarded():
            code: int = options.do(options)
        return code
    except RobustBenchError as error:
        if options.debug:
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
    line = parser()
    options, left = line.parse_known_args(arguments)
    if left and (not hasattr(options, "overrides") or any(word.startswith("-") for word in left)):
        line.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.overrides += left
    return options


def parser() -> argparse.ArgumentParser:
    """Of all commands."""
    line = Parser(
        prog="robustbench-local",
        description=__doc__,
        epilog="exit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXITS.items()),
    )
    line.set_defaults(quiet=False, verbose=False, debug=False, parser=line)
    commands = line.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    return line
