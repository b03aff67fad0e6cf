"""pytest's fixture `robustness`, as a repository uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.audit.finding import Finding
from robustbench_local.grids import bench
from robustbench_local.regression import measured
from tests.helpers.checked import asking, folder

pytest_plugins = "pytester"

LOCK, IMAGES = "robustness.lock.json", "robustness.lock.images.npz"


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A repository with a model and one test. What an audit costs is spared: test_refusals.py has the real one."""
    folder(pytester.path)
    monkeypatch.setattr(measured, "_audit", spared)
    monkeypatch.setattr(bench, "audit_and_keep", spared)
    return pytester


def spared(*_: Any) -> tuple[Finding, ...]:
    return ()


def model_test(repository: pytest.Pytester, name: str = "test_model", *checks: dict[str, Any]) -> None:
    body = "\n".join(f"    robustness.check(**{check!r})" for check in checks or [asking()])
    repository.makepyfile(**{name: f"def test_still_robust(robustness):\n{body}\n"})


def run(repository: pytest.Pytester, *options: str) -> pytest.RunResult:
    return repository.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options)


def said(result: pytest.RunResult, *parts: str) -> None:
    text = result.stdout.str()
    for part in parts:
        assert part in text, f"{part!r} is not in:\n{text}"


def test_an_unchanged_model_passes_and_says_what_it_could_have_seen(repository: pytest.Pytester) -> None:
    model_test(repository)
    missing = run(repository)
    missing.assert_outcomes(failed=1)
    said(missing, 'the lock has no entry "net"', "--robustness-update", "cannot judge")
    assert not (repository.path / LOCK).exists()
    written = run(repository, "--robustness-update")
    written.assert_outcomes(passed=1)
    said(written, "1 check", "first entry of the lock")
    before = (repository.path / LOCK).read_bytes()
    again = run(repository)
    again.assert_outcomes(passed=1)
    said(again, "holds: net", "0 lost, 0 gained", "would have been caught (80 % power)")
    run(repository, "--robustness-update").assert_outcomes(passed=1)
    assert (repository.path / LOCK).read_bytes() == before  # nothing to review where nothing changed


def test_a_worse_model_fails_and_an_update_accepts_it_but_not_the_anchor(repository: pytest.Pytester) -> None:
    model_test(repository)
    run(repository, "--robustness-update")
    model_test(repository, "test_model", asking("worse"))
    worse = run(repository)
    worse.assert_outcomes(failed=1)
    said(worse, "significantly less robust than the last model", "lost", "classes of the images lost", "worse: net")
    run(repository, "--robustness-update").assert_outcomes(passed=1)
    entry = json.loads((repository.path / LOCK).read_text())["checks"]["net"]
    assert entry["last"]["model"] == "models.py:worse" and entry["anchor"]["model"] == "models.py:net"
    drifted = run(repository)
    drifted.assert_outcomes(failed=1)
    said(drifted, "significantly less robust than the anchor")
    run(repository, "--robustness-update", "--robustness-anchor").assert_outcomes(passed=1)
    run(repository).assert_outcomes(passed=1)
    model_test(repository)
    better = run(repository)
    better.assert_outcomes(passed=1)
    said(better, "3 lost, 14 gained, p = 1")


def test_what_holds_only_until_all_are_counted_is_told_at_the_end(repository: pytest.Pytester) -> None:
    """Holm: 0.031 is not below 0.05 / 2, until the other, 0.0064, is out of the count."""
    near, far = asking(name="near", threat="linf:0.06"), asking(name="far")
    model_test(repository, "test_a", near)
    model_test(repository, "test_b", far)
    run(repository, "--robustness-update").assert_outcomes(passed=2)
    model_test(repository, "test_a", {**near, "model": "models.py:worse"})
    alone = run(repository, "-k", "test_a")
    alone.assert_outcomes(failed=1, deselected=1)
    model_test(repository, "test_b", {**far, "model": "models.py:worse"})
    both = run(repository, "--robustness-sarif=r.sarif")
    both.assert_outcomes(passed=1, failed=1)
    said(both, "counted with all others (Holm), this fails as well: near", "worse: near", "worse: far")
    assert len(json.loads((repository.path / "r.sarif").read_text())["runs"][0]["results"]) == 2


def test_floors_need_no_lock(repository: pytest.Pytester) -> None:
    model_test(repository, "test_low", asking(at_least=0.1))
    model_test(repository, "test_high", asking(at_least=0.99))
    result = run(repository)
    result.assert_outcomes(passed=1, failed=1)
    said(result, "wanted are 99.0 %", "wanted are 10.0 %, so it holds")


def test_changed_images_and_a_changed_suite_are_errors_that_say_so(repository: pytest.Pytester) -> None:
    model_test(repository)
    run(repository, "--robustness-update")
    suite = repository.path / "suite.yaml"
    suite.write_text(suite.read_text().replace("steps: 8", "steps: 7"))
    changed = run(repository)
    changed.assert_outcomes(failed=1)
    said(changed, "the suite has changed", "only then: pgd(steps=8", "only now: pgd(steps=7")
    suite.write_text(suite.read_text().replace("steps: 7", "steps: 8"))
    model_test(repository, "test_model", asking(n=40))
    fewer = run(repository)
    fewer.assert_outcomes(failed=1)
    said(fewer, "the images have changed", "then 60 images", "now 40")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "is no JSON"),
        (lambda text: "<<<<<<< HEAD\n" + text, "merge conflict"),
        (lambda text: text.replace('"attacks": 1', '"attacks": 2'), "checksum"),
        (lambda text: text.replace('"schema": 1', '"schema": 9'), "schema 9"),
        (lambda text: "[]", "no lock file"),
    ],
)
def test_a_lock_that_cannot_be_used_says_what_to_do(repository: pytest.Pytester, damage: Any, words: str) -> None:
    model_test(repository)
    run(repository, "--robustness-update")
    lock = repository.path / LOCK
    damaged = damage(lock.read_text())
    assert damaged != lock.read_text()
    lock.write_text(damaged)
    result = run(repository)
    result.assert_outcomes(failed=1)
    said(result, words, "--robustness-update")
    update = run(repository, "--robustness-update")
    assert update.ret != 0 and lock.read_text() == damaged  # nothing is overwritten
    assert "Traceback" not in result.stdout.str() + update.stdout.str() + update.stderr.str()


def test_two_modules_share_a_lock_and_a_selection_leaves_the_rest(repository: pytest.Pytester) -> None:
    model_test(repository, "test_one", asking(name="one"))
    model_test(repository, "test_two", asking(name="two", threat="linf:0.03"))
    run(repository, "--robustness-update").assert_outcomes(passed=2)
    before = json.loads((repository.path / LOCK).read_text())
    assert sorted(before["checks"]) == ["one", "two"]
    model_test(repository, "test_two", asking("worse", name="two", threat="linf:0.03"))
    run(repository, "-k", "test_two", "--robustness-update")
    after = json.loads((repository.path / LOCK).read_text())
    assert after["checks"]["one"] == before["checks"]["one"] and after["checks"]["two"] != before["checks"]["two"]
    unasked = "the lock has an entry that no test asked for: one"
    assert unasked not in run(repository, "-k", "test_two").stdout.str()
    (repository.path / "test_one.py").unlink()
    model_test(repository, "test_two", asking(name="two", threat="linf:0.03"))
    said(run(repository), unasked)


def test_an_interrupted_update_leaves_the_lock_as_it_was(repository: pytest.Pytester) -> None:
    model_test(repository)
    run(repository, "--robustness-update")
    before = (repository.path / LOCK).read_bytes()
    model_test(repository, "test_model", asking("worse"))
    repository.makepyfile(test_stop="def test_stop():\n    raise KeyboardInterrupt\n")
    result = repository.runpytest_inprocess("--robustness-update", no_reraise_ctrlc=True)
    said(result, "was not written: the run was cut short")
    assert (repository.path / LOCK).read_bytes() == before


def test_a_disk_that_fails_leaves_the_lock_as_it_was(
    repository: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_test(repository)
    run(repository, "--robustness-update")
    before = (repository.path / LOCK).read_bytes()
    model_test(repository, "test_model", asking("worse"))

    def refuse(source: Any, target: Any) -> None:
        if Path(target).name == LOCK:
            raise OSError(28, "No space left on device")
        replace(source, target)

    import os

    replace = os.replace
    monkeypatch.setattr(os, "replace", refuse)
    failed = run(repository, "--robustness-update")
    said(failed, "the disk is full")
    assert failed.ret != 0 and (repository.path / LOCK).read_bytes() == before


def test_old_images_are_kept_where_asked_and_must_be_those_of_the_lock(repository: pytest.Pytester) -> None:
    model_test(repository)
    run(repository, "--robustness-update")
    assert not (repository.path / IMAGES).exists()
    run(repository, "--robustness-update", "--robustness-images").assert_outcomes(passed=1)
    run(repository).assert_outcomes(passed=1)
    content = (repository.path / IMAGES).read_bytes()
    (repository.path / IMAGES).unlink()
    gone = run(repository)
    gone.assert_outcomes(failed=1)
    said(gone, "has none of the images that broke the last model")
    (repository.path / IMAGES).write_bytes(content)
    run(repository, "--robustness-update").assert_outcomes(passed=1)
    assert not (repository.path / IMAGES).exists()  # nobody asked for them, and old ones would be another model's


def test_two_checks_of_one_name_that_differ_are_refused(repository: pytest.Pytester) -> None:
    model_test(repository, "test_model", asking(at_least=0.1), asking(at_least=0.1, n=30))
    result = run(repository)
    result.assert_outcomes(failed=1)
    said(result, 'two checks are called "net" and differ in n')


def test_what_a_mistake_in_a_check_says(repository: pytest.Pytester) -> None:
    for wrong, words in (
        ({"at_leats": 0.4}, "did you mean"),
        ({"suite": "cii"}, 'unknown suite "cii"'),
        ({"model": "nets.py:net"}, "nets.py"),
        ({"at_least": 45}, "[0, 1]"),
        ({"at_least": 0.4, "confidence": 0.3}, "(0.5, 1)"),
        ({"suite": "ci", "threat": None}, "say which"),
    ):
        model_test(repository, "test_model", {**asking(), **wrong})
        result = run(repository)
        result.assert_outcomes(failed=1)
        said(result, words)


def test_the_device_is_that_of_the_option(repository: pytest.Pytester) -> None:
    model_test(repository, "test_model", asking(at_least=0.1))
    run(repository, "--robustness-device=cpu").assert_outcomes(passed=1)
    absent = run(repository, "--robustness-device=tpu")
    absent.assert_outcomes(failed=1)
    said(absent, "tpu")


def test_slow_checks_can_be_left_out_and_the_last_failed_run_alone(repository: pytest.Pytester) -> None:
    mark = "import pytest\n\n@pytest.mark.robustness_slow\ndef test_release(robustness):\n    assert False\n"
    repository.makepyfile(test_slow=mark)
    model_test(repository, "test_quick", asking(at_least=0.1))
    run(repository, "--strict-markers", "-m", "not robustness_slow").assert_outcomes(passed=1, deselected=1)
    repository.runpytest_inprocess("-p", "no:hypothesispytest").assert_outcomes(passed=1, failed=1)
    repository.runpytest_inprocess("--lf", "-p", "no:hypothesispytest").assert_outcomes(failed=1)


def test_reports_name_each_failed_check(repository: pytest.Pytester) -> None:
    model_test(repository, "test_model", asking(name="before"))
    model_test(repository, "test_other", asking(name="other", at_least=0.01))
    run(repository, "--robustness-update")
    model_test(repository, "test_model", asking("worse", name="before"))
    options = ("--robustness-report=build/robust", "--robustness-sarif=build/r.sarif", "--junitxml=build/junit.xml")
    run(repository, *options).assert_outcomes(passed=1, failed=1)
    build = repository.path / "build"
    results = json.loads((build / "r.sarif").read_text())["runs"][0]["results"]
    assert [each["ruleId"] for each in results] == ["robustness-worse"]
    assert "significantly less robust" in results[0]["message"]["text"]
    page = (build / "robust/robustness.html").read_text()
    assert "before</bdi>: worse" in page and "other</bdi>: holds" in page and page.count("data:image/png") > 3
    junit = (build / "junit.xml").read_text()
    assert 'name="robustness: before"' in junit and 'name="robustness: other"' in junit


def test_nothing_is_asked_of_a_network(repository: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    model_test(repository)
    run(repository, "--robustness-update").assert_outcomes(passed=1)
    run(repository, "--robustness-report=report").assert_outcomes(passed=1)


def test_a_run_without_such_tests_loads_no_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\n\ndef test_nothing():\n    assert 'torch' not in sys.modules\n")
    pytester.runpytest_subprocess("-p", "no:hypothesispytest").assert_outcomes(passed=1)


@pytest.mark.slow
def test_workers_send_what_they_find_and_one_writes(repository: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    spare = "from robustbench_local.regression import measured\nmeasured._audit = lambda *_: ()\n"
    repository.makeconftest(spare)
    for name in ("one", "two", "three"):
        model_test(repository, f"test_{name}", asking(name=name))
    update = ("-n", "2", "--robustness-update", "--robustness-images")
    repository.runpytest_subprocess(*update).assert_outcomes(passed=3)
    lock = json.loads((repository.path / LOCK).read_text())
    assert sorted(lock["checks"]) == ["one", "three", "two"]
    repository.runpytest_subprocess("-n", "2").assert_outcomes(passed=3)
    model_test(repository, "test_two", asking("worse", name="two"))
    worse = repository.runpytest_subprocess("-n", "2", "--robustness-sarif=r.sarif", "--robustness-report=rep")
    worse.assert_outcomes(passed=2, failed=1)
    said(worse, "worse: two", "holds: one", "holds: three")
    assert len(json.loads((repository.path / "r.sarif").read_text())["runs"][0]["results"]) == 1
    assert "two</bdi>: worse" in (repository.path / "rep/robustness.html").read_text()
