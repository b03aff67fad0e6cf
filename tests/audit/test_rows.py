"""The audit of a grid's rows: liars among them are named, honest ones are not, and tables take the lower number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from robustbench_local import load_data, run_grid
from robustbench_local.audit import escalation
from robustbench_local.audit.checklist import CHECKS, audit_rows
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import Audit, Audits, Retry, RowFinding, audits, lowered
from robustbench_local.audit.retrying import Retrying
from robustbench_local.audit.stronger import EFFORT, LOOK
from robustbench_local.report.table import robust_tables, shares_in
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from tests.helpers.audit_cases import named, rows

N = 24


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return load_data("mnist", n=N, source="bundled")


def found(made: list[tuple[Any, Any]]) -> list[RowFinding]:
    arrays = {row["key"]: own for row, own in made}
    groups = audit_rows([row for row, _ in made], lambda row: arrays[row["key"]])
    return [each for group in groups.values() for each in group]


@pytest.mark.filterwarnings("ignore:the model returns probabilities")
@pytest.mark.parametrize("name", rows.LIARS)
def test_rows_that_lie_are_named(name: str, images: tuple[Tensor, Tensor]) -> None:
    make, cause = rows.LIARS[name]
    named = {each.finding.check for each in found(make(*images)) if each.finding.status > Status.SOUND}
    assert cause in named


@pytest.mark.parametrize("name", rows.HONEST)
def test_honest_rows_are_sound(name: str, images: tuple[Tensor, Tensor]) -> None:
    findings = [each.finding for each in found(rows.HONEST[name](*images))]
    assert findings and all(finding.status is Status.SOUND for finding in findings), findings
    assert all(finding.source and finding.advice for finding in findings)


Attacked = tuple[str, dict[str, Any], list[int], dict[str, Any]]


def made_up(*cells: Attacked, n: int = 100) -> list[tuple[Any, Any]]:
    """Rows of attacks (name, settings, which images it broke, more of the definition); all 100 images are right."""
    rows = []
    for place, (attack, settings, broken, more) in enumerate(cells):
        robust = np.ones(n, bool)
        robust[broken] = False
        definition = {
            "data": "d",
            "model": "m",
            "attack": attack,
            "attack_settings": settings,
            "access": "gradients",
            "threat": "linf:0.1",
            "eps": 0.1,
            "count": "all",
            "draws": 20,
            "eot": 20,
            **more,
        }
        results = {"flags": more.get("flags", []), "stochastic": False}
        row = Row(key=str(place), status="ok", definition=definition, results=results, environment={})
        rows.append((row, {"robust": robust, "clean": np.ones(n, bool), "distance": np.full(n, 0.1)}))
    return rows


def statuses(made: list[tuple[Any, Any]]) -> dict[str, Status]:
    return {each.finding.check: each.finding.status for each in found(made)}


def test_one_draw_judges_a_corruption_as_fairly_as_many_and_no_attack() -> None:
    name = "single draws are not counted"
    natural = {"access": "none", "threat": "none", "eps": 0.0, "draws": 1, "eot": 1}
    for more, word in (({"corruption": "CIFAR-10-C"}, None), ({}, Status.BROKEN)):
        ((row, arrays),) = made_up(("fog", {}, [1], {**natural, **more}))
        row["results"]["stochastic"] = True
        assert statuses([(row, arrays)]).get(name) is word


def test_fgsm_high_and_pgd_low_is_catastrophic_overfitting() -> None:
    overfitted = made_up(("fgsm", {}, [*range(10)], {}), ("pgd", {"steps": 10}, [*range(99)], {}))
    assert statuses(overfitted)["no catastrophic overfitting"] is Status.BROKEN
    undefended = made_up(("fgsm", {}, [*range(70)], {}), ("pgd", {"steps": 10}, [*range(99)], {}))
    assert statuses(undefended)["no catastrophic overfitting"] is Status.SOUND
    overfitted[0][1]["distance"][:] = 0.0  # FGSM met a flat loss, and moved nothing
    assert "no catastrophic overfitting" not in statuses(overfitted)
    assert statuses(overfitted)["the budget is used"] is Status.BROKEN


def test_white_box_is_all_gradient_attacks_together() -> None:
    square = ("square", {"steps": 100}, [*range(40)], {"access": "scores"})
    ce: Attacked = ("pgd", {"steps": 10, "loss": "ce"}, [*range(20)], {})
    dlr: Attacked = ("pgd", {"steps": 10, "loss": "dlr"}, [*range(20, 40)], {})
    assert statuses(made_up(ce, dlr, square))["gradients beat what sees less"] is Status.SOUND
    assert statuses(made_up(ce, square))["gradients beat what sees less"] is Status.SUSPICIOUS


def test_a_flag_with_a_number_counts_images() -> None:
    assert statuses(made_up(("pgd", {}, [], {"flags": ["near_tie:1"]})))["set-up"] is Status.SOUND
    assert statuses(made_up(("pgd", {}, [], {"flags": ["outside_ball:5"]})))["set-up"] is Status.SUSPICIOUS
    assert statuses(made_up(("pgd", {}, [], {"flags": ["undeclared_randomness"]})))["set-up"] is Status.BROKEN


def test_models_and_images_are_not_mixed() -> None:
    """Square is far stronger, but on another model, or on other images."""
    pgd: Attacked = ("pgd", {"steps": 10}, [], {})
    for other in ({"model": "another"}, {"data_digest": "others"}, {"threat": "linf:0.2", "eps": 0.2}):
        square: Attacked = ("square", {}, [*range(90)], {"access": "scores", **other})
        assert "gradients beat what sees less" not in {
            check for check, status in statuses(made_up(pgd, square)).items() if status > Status.SOUND
        }


def test_errors_are_no_evidence() -> None:
    assert audit_rows([Row(status="error", key="0", definition={})], lambda row: {}) == {}


def test_every_check_of_rows_names_itself() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.source and check.advice for check in CHECKS)


# beside the rows of a grid

GRID = """
data: mnist
n: {n}
source: bundled
models: ["named:quantised"]
attacks: [{{pgd: {{steps: 5}}}}, {{square: {{steps: 15}}}}]
threats: ["linf:0.3"]
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A model without gradients, under PGD and a short Square."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "lie.yaml").write_text(GRID.format(n=N))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(named.__file__).parent)
        rows = run_grid(str(folder / "lie.yaml"), results=str(folder / "results"))
    return folder / "results" / "lie", rows


def test_a_stronger_attack_is_run_where_one_is_suspected(grid: tuple[Path, list[Any]]) -> None:
    folder, rows = grid
    (audit,) = audits(Store(folder))
    assert audit.rows == tuple(sorted(row["key"] for row in rows))
    named = [fault.check for fault in audit.faults("linf:0.3")]
    assert "gradients beat what sees less" in named and "a stronger attack" in named
    (retry,) = audit.retries
    assert retry.attack == "best" and 0 < len(retry.broken) <= retry.asked
    assert retry.lowers == tuple(row["key"] for row in rows if row["definition"]["attack"] == "pgd")


def test_the_table_takes_the_lower_number_and_says_why(grid: tuple[Path, list[Any]]) -> None:
    folder, rows = grid
    store = Store(folder)
    robust = np.logical_and.reduce([store.arrays(row["key"], "robust")["robust"] for row in rows])
    (retry,) = audits(store)[0].retries
    worst = f"{100 * (robust.sum() - len(retry.broken)) / N:.1f} ("
    text = (folder / "table.md").read_text()
    line = next(line for line in text.splitlines() if "named:quantised" in line)
    assert line.rstrip(" |").split("| ")[-1].startswith(worst)
    assert "audit, broken: gradients beat what sees less" in text
    assert "audit: gradients beat what sees less" in (folder / "table.csv").read_text()


def test_an_audit_of_the_same_rows_is_read_and_not_made_again(
    grid: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = grid
    store = Store(folder)
    before = audits(store)
    monkeypatch.setattr(escalation, "_retried", None)  # a retry would die of it
    assert escalation.audit_and_keep(rows, store, nn.Identity(), None) == [*before]  # type: ignore[arg-type]
    fewer = {group: found[:-1] for group, found in audit_rows(rows, escalation.arrays_of(store)).items()}
    monkeypatch.setattr(escalation, "audit_rows", lambda *given: fewer)  # as if a check had changed since
    with pytest.raises(TypeError, match="not callable"):
        escalation.audit_and_keep(rows, store, nn.Identity(), None)  # type: ignore[arg-type]


def test_a_short_look_finds_what_no_check_suspects(tmp_path: Path) -> None:
    about = {"data": "mnist", "n": 22, "source": "bundled", "models": "mnist_small", "defenses": "adversarial_training"}
    about |= {"attacks": [{"pgd": {"steps": 10}}], "threats": ["linf:0.2", "l1:10"]}
    (tmp_path / "look.yaml").write_text(json.dumps(about))
    rows, store = run_grid(str(tmp_path / "look.yaml"), results=str(tmp_path)), Store(tmp_path / "look")
    (audit,) = audits(store)
    assert not any(each.attack and each.finding.status > Status.SOUND for each in audit.of_rows)
    within = {retry.threat: retry for retry in audit.retries}
    robust, masked = within["linf:0.2"], within["l1:10"]  # trained within linf, which masks gradients within L1
    assert robust.asked == LOOK[False] and not robust.broken and not audit.faults("linf:0.2")
    assert len(masked.broken) > masked.asked / 2
    assert [fault.check for fault in audit.faults("l1:10")] == ["a stronger attack"]
    (findings,) = audit_rows(rows, escalation.arrays_of(store)).values()
    unlooked = replace(audit, findings=audit.of_rows, retries=())
    assert escalation._still_holds(audit, audit.rows, findings, rows, store)
    assert not escalation._still_holds(unlooked, audit.rows, findings, rows, store)


def test_the_stronger_attack_is_not_tried_where_it_was_but_for_less_of_it() -> None:
    pgd, little, much = made_up(("pgd", {}, [], {}), ("best", {"effort": 0.2}, [], {}), ("best", {}, [], {}))
    assert list(escalation._untried([pgd[0]])) == list(escalation._untried([pgd[0], little[0]])) == ["linf:0.1"]
    assert not escalation._untried([pgd[0], much[0]])
    ((sparse, _),) = made_up(("pgd", {}, [], {"threat": "l0:3"}))
    assert not escalation._untried([sparse])
    fewer = made_up(("best", {"steps": 100, "effort": 1.0}, [], {}), ("best", {}, [], {"budget": 50}))
    for weaker, _ in [*fewer, *made_up(("best", {"effort": 1.0}, [], {"adaptive": False}))]:
        assert list(escalation._untried([pgd[0], weaker])) == ["linf:0.1"]


@pytest.mark.parametrize(
    ("broken", "asked", "robust", "total", "status"),
    [
        (5, 5, 5, 300, Status.SUSPICIOUS),  # all that were robust, and yet 1.7 points
        (8, 8, 8, 24, Status.SUSPICIOUS),  # 33 points, which chance could give
        (9, 9, 9, 24, Status.BROKEN),
        (15, 20, 20, 1000, Status.SUSPICIOUS),
        (17, 100, 208, 300, Status.SUSPICIOUS),  # a sixth of what was robust
        (60, 100, 208, 300, Status.BROKEN),
        (60, 100, 3000, 10_000, Status.BROKEN),  # 0.6 points off the table, about 18 off what it says
        (1, 100, 208, 300, Status.SOUND),
    ],
)
def test_the_word_is_as_strong_as_the_gap(broken: int, asked: int, robust: int, total: int, status: Status) -> None:
    retry = Retry("linf:0.1", "best", asked, tuple(range(broken)), ("a",))
    left = escalation._Left(np.arange(robust), np.arange(robust), total)
    finding = escalation._finding(retry, np.arange(asked), left, "best", (), (), 40.0)
    assert finding.status is status and finding.figures["passes"] == 40
    off = f"{100 * broken / total:.1f} points off the worst case"
    assert f"{broken} of the {robust} robust images: {off}" in finding.evidence
    assert ("on all it would be about" in finding.evidence) is (asked < robust)
    limited = escalation._finding(retry, np.arange(asked), left, "best", (), ["tried on 3, the nearest first"], 40.0)
    assert limited.status is status and "images, tried on 3, the nearest first: " in limited.evidence
    assert limited.evidence.endswith(" or more") is (asked < robust)


def test_the_nearest_stand_for_themselves_alone() -> None:
    """What breaks most of the nearest is no proof that most images would break."""
    left = escalation._Left(np.arange(195), np.arange(195)[::-1], 500)
    near = Retry("linf:0.1", "best", 20, tuple(range(180, 195)), ("a",), tuple(range(175, 195)))
    finding = escalation._finding(near, np.arange(20), left, "best", (), (), 40.0)
    assert finding.status is Status.SUSPICIOUS and finding.figures["lower"] == 15 / 500
    few = Retry("linf:0.1", "best", 20, (194, 193), ("a",), tuple(range(175, 195)))
    assert escalation._finding(few, np.arange(20), left, "best", (), (), 40.0).status is Status.SOUND


def test_a_small_budget_on_few_images_is_not_called_broken() -> None:
    for broken, status in ((98, Status.SUSPICIOUS), (97, Status.BROKEN)):
        made = made_up(("pgd", {"steps": 10}, [*range(broken)], {}))
        for _, arrays in made:
            arrays["distance"][:] = 0.01
        assert statuses(made)["the budget is used"] is status


def test_of_an_attack_that_minimises_nobody_asks_whether_it_used_the_budget() -> None:
    made = made_up(("cw", {"steps": 10}, [*range(40)], {}))
    for _, arrays in made:
        arrays["distance"][40:] = 0.0  # what it cannot break comes back as it was
    assert statuses(made)["the budget is used"] is Status.BROKEN
    for _, arrays in made:
        arrays["success"] = (np.arange(100) < 40).astype(np.float32)
    assert "the budget is used" not in statuses(made)


def test_what_is_damaged_counts_as_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "audits").mkdir()
    (tmp_path / "audits" / "a.json").write_text("{")
    (tmp_path / "audits" / "b.json").write_text(json.dumps({"schema": 99}))
    assert audits(store) == ()


def test_lowering_touches_the_named_rows_and_images_only() -> None:
    finding = Finding("a check", Status.SUSPICIOUS, "evidence")
    audit = Audit(("a", "b"), (RowFinding(finding, "linf:0.1", True),), (Retry("linf:0.1", "best", 3, (7,), ("a",)),))
    robust, ids = np.array([1.0, 0.5, 1.0]), np.array([5, 7, 9])
    assert lowered(robust, ids, "a", Audits([audit])).tolist() == [1.0, 0.0, 1.0]
    assert lowered(robust, ids, "b", Audits([audit])).tolist() == [1.0, 0.5, 1.0]
    assert audit.faults("linf:0.1") == [finding] and audit.faults("linf:0.2") == []


# gradients that are not there

UNLED: dict[str, Any] = {"flags": ["no_gradient:70"]}
LED: dict[str, Any] = {"flags": []}


def searched(made: list[tuple[Any, Any]], forwards: int, backwards: int, which: int = -1) -> list[tuple[Any, Any]]:
    arrays = made[which][1]
    arrays["forwards"], arrays["backwards"] = (np.full(100, count) for count in (forwards, backwards))
    return made


def test_where_no_gradient_led_an_attack_its_number_is_not_believed() -> None:
    broken, check = [*range(30)], "gradients are there"
    pgd = ("pgd", {"steps": 10}, broken, UNLED)
    assert statuses(made_up(pgd))[check] is Status.BROKEN
    assert statuses(made_up(pgd))["set-up"] is Status.SOUND
    assert statuses(made_up(("pgd", {"steps": 10}, broken, {"flags": ["no_gradient:20"]})))[check] is Status.SUSPICIOUS
    one = ("pgd", {"steps": 10}, [*range(99)], {"flags": ["no_gradient:1"]})
    assert statuses(made_up(one))[check] is Status.SUSPICIOUS
    assert check not in statuses(made_up(("pgd", {"steps": 10}, broken, LED)))


@pytest.mark.parametrize(
    ("carrier", "forwards", "backwards", "status"),
    [
        (("square", {}, [*range(40)], {"access": "scores"}), 5001, 0, Status.SUSPICIOUS),
        (("square", {}, [*range(40)], {"access": "scores"}), 500, 0, Status.BROKEN),
        (("transfer", {}, [*range(40)], {"access": "none"}), 0, 0, Status.BROKEN),
        (("cw", {}, [*range(40)], {}), 900, 900, Status.SUSPICIOUS),  # led by its own loss
        (("ead", {}, [*range(40)], UNLED), 18_000, 9000, Status.BROKEN),
        (("best", {}, [*range(40)], UNLED), 1601, 150, Status.SUSPICIOUS),
        (("pgd", {}, [*range(40)], {"adaptive": False}), 10, 10, Status.BROKEN),  # it saw another model
    ],
)
def test_but_a_long_search_without_gradients_is(carrier: Any, forwards: int, backwards: int, status: Status) -> None:
    made = made_up(("pgd", {"steps": 10}, [*range(30)], UNLED), carrier)
    assert statuses(searched(made, forwards, backwards))["gradients are there"] is status


UNLED_GRID = """
data: mnist
n: 8
source: bundled
models: ["named:quantised", "zoo:mnist/none"]
attacks: [{{pgd: {{steps: 3}}}}{more}]
threats: ["linf:0.1"]
"""


@pytest.mark.parametrize("more", ["", ", {square: {steps: 1010}}"])
def test_absent_gradients_have_no_rank_unless_scores_carry_it(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retried: dict[str, float] = {}

    def noted(self: Retrying, *given: Any) -> None:
        retried[self.row.model] = vars(self.attack)["effort"]

    (tmp_path / "grid.yaml").write_text(UNLED_GRID.format(more=more))
    monkeypatch.chdir(Path(named.__file__).parent)
    monkeypatch.setattr(Retrying, "_try", noted)
    rows, store = run_grid(str(tmp_path / "grid.yaml"), results=str(tmp_path)), Store(tmp_path / "grid")
    (table,) = robust_tables(rows, shares_in(store, audits(store)), audits(store))
    lines = {line.model: line for line in table.lines}
    masked, honest = lines["named:quantised"], lines["zoo:mnist/none"]
    assert (masked.rank is None) is masked.broken is (not more)
    assert honest.rank is not None and not honest.faults
    assert "gradients are there" in {fault.check for fault in masked.faults}
    assert any("named:quantised" in note and "no_gradient:" in note for note in table.notes)
    assert retried == {"named:quantised": 1.0, "zoo:mnist/none": EFFORT}
