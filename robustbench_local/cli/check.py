"""`robustbench-local check robustness.yaml`: is any model less robust than the last one, or than its floor?"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from robustbench_local.cli.output import FAILED, OK, WRONG, say, wrapped
from robustbench_local.cli.parsing import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "check",
        help="regression checks of a robustness.yaml, without pytest",
        description="Judge models against a lock file and against floors. Ends with 0 where all hold, 1 where one is"
        " worse, 2 where none is and one cannot be judged.",
    )
    parser.add_argument("file", nargs="?", type=Path, default=Path("robustness.yaml"))
    parser.add_argument("--update", action="store_true", help="write what is measured to the lock")
    parser.add_argument("--images", action="store_true", help="with --update: keep the adversarial images beside it")
    parser.add_argument("--anchor", action="store_true", help="with --update: move the anchor as well")
    parser.add_argument("--report", type=Path, metavar="DIR", help="where rows, pages and pictures of what changed go")
    parser.add_argument("--sarif", type=Path, metavar="FILE", help="write the failed checks as SARIF")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all outcomes as JSON")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, xpu or mps")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.core.progress import Terminal
    from robustbench_local.regression import checks_file
    from robustbench_local.regression.outcome import Verdict
    from robustbench_local.regression.session import Session
    from robustbench_local.regression.words import line, story
    from robustbench_local.regression.written import write_outcomes

    asked = checks_file.read(options.file)
    common = asked.common | ({"device": options.device} if options.device else {})
    with Terminal() as progress:
        session = Session(
            lock=options.file.parent / asked.lock,
            folder=options.report,
            alpha=asked.alpha,
            update=options.update,
            keep_images=options.images,
            re_anchor=options.anchor,
            common=common,
            progress=progress,
        )
        for settings in asked.checks:
            session.attempt(str(settings.get("name") or settings.get("model")), partial(session.check, **settings))
        session.finish()
    outcomes = session.final()
    for outcome in outcomes:
        for text in [line(outcome)] if outcome.verdict is Verdict.HOLDS else story(outcome).splitlines():
            print(wrapped(text, indent="  " * text.startswith(" ")))
    for path in write_outcomes(outcomes, options.report, options.sarif, options.json):
        say(f"written: {path}")
    if options.update:
        say(f"written: {session.lock}")
    verdicts = {outcome.verdict for outcome in outcomes}
    return FAILED if Verdict.WORSE in verdicts else WRONG if Verdict.CANNOT_JUDGE in verdicts else OK
