"""The pytest plug-in: the fixture `robustness`, its options, and what the end of a run prints and writes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from robustbench_local.regression.pytest_run import WORKER, Run

if TYPE_CHECKING:
    from robustbench_local.regression.outcome import Outcome

_RUN = pytest.StashKey[Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("robustness", "robustness of image classifiers (robustbench_local)")
    group.addoption(
        "--robustness-update", action="store_true", help="write what is measured to the lock, for later runs to meet"
    )
    group.addoption(
        "--robustness-images",
        action="store_true",
        help="with --robustness-update: keep the adversarial images beside the lock, to hold later models against",
    )
    group.addoption(
        "--robustness-anchor",
        action="store_true",
        help="with --robustness-update: move the anchor as well, the baseline that updates otherwise leave alone",
    )
    group.addoption(
        "--robustness-report", metavar="DIR", help="where to write rows, pages and pictures of what changed"
    )
    group.addoption("--robustness-sarif", metavar="FILE", help="write the failed checks as SARIF")
    group.addoption("--robustness-device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, xpu or mps")
    parser.addini("robustness_lock", "the lock file, from the rootdir", default="robustness.lock.json")
    parser.addini("robustness_alpha", "the risk that a run of unchanged models fails", default="0.05")
    parser.addini("robustness_images", "keep the adversarial images at every update", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "robustness: measures the robustness of a model (robustbench_local)")
    config.addinivalue_line("markers", "robustness_slow: a check with a suite that takes long, such as release")
    config.stash[_RUN] = Run(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker of pytest-xdist puts its adversarial images where the controller finds them."""
    node.workerinput[WORKER] = str(node.config.stash[_RUN].folder())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[_RUN].gather(getattr(node, "workeroutput", {}).get(WORKER))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "robustness" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.robustness)


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[_RUN].whole = False


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_RUN].selected = {
        item.nodeid for item in session.items if item.get_closest_marker("robustness")
    }


@pytest.hookimpl(tryfirst=True)  # before the JUnit file is written
def pytest_sessionfinish(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
    session.config.stash[_RUN].finish(session, int(exitstatus))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.config.stash[_RUN].summarise(terminalreporter)


@pytest.fixture
def robustness(request: pytest.FixtureRequest) -> Iterator[Robustness]:
    """Checks of robustness: robustness.check("net.pt2", data="mnist", threat="linf:0.1") fails where it is worse."""
    yield Robustness(request.config.stash[_RUN], request.node.nodeid)


class Robustness:
    """What a test has in its hands."""

    def __init__(self, run: Run, test: str) -> None:
        self._run, self._test = run, test

    def check(self, model: str, data: str, threat: str | None = None, **settings: Any) -> Outcome:
        """Measure the model; fail the test where it is worse than the lock or a floor, or where nobody can judge.

        settings: suite, at_least, worst_class_at_least, margin, n and all else that settings.Check says.
        """
        __tracebackhide__ = True
        session = self._run.session
        ask = partial(session.check, self._test, model=model, data=data, threat=threat, **settings)
        return _held(session.attempt(model, ask))

    def compare(self, first: str, second: str | None = None, *, variant: str | None = None, **settings: Any) -> Outcome:
        """Two models on the same images; fail the test where the second is worse than the first, or nobody can judge.

        second: None for a variant of the first ("int8", "pruned:0.5"). settings: data, threat, margin and so on.
        """
        __tracebackhide__ = True
        session = self._run.session
        return _held(session.attempt(first, partial(session.compare, first, second, variant=variant, **settings)))


def _held(outcome: Outcome) -> Outcome:
    """An outcome that holds; otherwise the test fails with its story."""
    __tracebackhide__ = True
    from robustbench_local.regression.outcome import Verdict
    from robustbench_local.regression.words import story

    if outcome.verdict is not Verdict.HOLDS:
        pytest.fail(story(outcome), pytrace=False)
    return outcome
