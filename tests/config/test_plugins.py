"""Plug-ins by name: ours, a stranger's, a broken one, and those of a project with folders named like ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any, Literal

import pytest

from robustbench_local.config import plugins
from robustbench_local.config.plugins import ATTACKS, DEFENSES, find_attack, find_defense, listing
from robustbench_local.config.settings import construct
from robustbench_local.core.errors import ConfigError, PluginError, ThreatError
from tests.helpers.packages import installed

STRANGER = """
from dataclasses import dataclass
from robustbench_local.core.attack import Attack

@dataclass(frozen=True)
class Nothing(Attack):
    summary = "does nothing"
    strength: float = 1.0

    def __call__(self, oracle, x, y, threat, draws):
        return x

not_an_attack = 3
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package of somebody else's: a good attack, one whose import fails, and something else entirely."""
    (tmp_path / "strange.py").write_text(STRANGER)
    (tmp_path / "shattered.py").write_text("import no_such_library\n")
    installed(
        tmp_path,
        "stranger",
        "[robustbench_local.attacks]\nnothing = strange:Nothing\nshattered = shattered:Attack\n"
        "number = strange:not_an_attack\npgd = strange:Nothing\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("strange", "shattered"):
        sys.modules.pop(name, None)


def test_ours_are_listed_with_what_a_reader_needs() -> None:
    attacks = {row.name: row for row in listing(ATTACKS)}
    assert {"noise", "fgsm", "bim", "pgd"} <= set(attacks)
    assert attacks["pgd"].access == "gradients"
    assert attacks["pgd"].norms == ("l1", "l2", "linf")
    assert attacks["pgd"].settings["steps"] == 40
    assert "1706.06083" in attacks["pgd"].paper
    assert {"none", "adversarial_training"} <= {row.name for row in listing(DEFENSES)}


def test_settings_reach_the_plugin() -> None:
    assert find_attack("pgd", {"steps": 7, "step_size": "2/255"}).steps == 7  # type: ignore[attr-defined]
    assert find_defense("adversarial_training", {"method": "fgsm_rs"}).method == "fgsm_rs"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("pgdd", {}, ['unknown attack "pgdd"', 'did you mean "pgd"?']),
        ("pgd", {"stpes": 3}, ['no setting "stpes"', 'did you mean "steps"?', "restarts"]),
        ("pgd", {"steps": "many"}, ["steps", "'many'", "a whole number"]),
        ("pgd", {"steps": True}, ["steps", "True"]),
        ("pgd", {"steps": 0}, ["pgd", "at least 1"]),
        ("pgd", {"random_start": 1}, ["random_start", "true or false"]),
    ],
)
def test_a_mistake_is_named_with_a_suggestion(name: str, settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises((ConfigError, PluginError)) as caught:
        find_attack(name, settings)
    for word in words:
        assert word in str(caught.value)


def test_a_choice_is_checked() -> None:
    with pytest.raises(ConfigError, match="pgd or fgsm_rs"):
        find_defense("adversarial_training", {"method": "fgsm"})


@pytest.mark.usefixtures("stranger")
def test_a_strangers_attack_is_found_as_ours_are() -> None:
    assert find_attack("nothing", {"strength": 2}).strength == 2.0  # type: ignore[attr-defined]
    assert "does nothing" in {row.summary for row in listing(ATTACKS)}


@pytest.mark.usefixtures("stranger")
def test_a_stranger_cannot_take_our_name() -> None:
    assert type(find_attack("pgd")).__module__ == "robustbench_local.attacks.pgd"


@pytest.mark.usefixtures("stranger")
def test_a_broken_plugin_is_named_and_the_others_work() -> None:
    with pytest.raises(PluginError, match=r"shattered.*stranger.*no_such_library"):
        find_attack("shattered")
    rows = {row.name: row for row in listing(ATTACKS)}
    assert "no_such_library" in rows["shattered"].error
    assert not rows["pgd"].error and not rows["nothing"].error


@pytest.mark.usefixtures("stranger")
def test_what_is_no_attack_is_refused() -> None:
    with pytest.raises(PluginError, match=r"must be a subclass of robustbench_local\.core\.attack\.Attack"):
        find_attack("number")


OWN = """
from dataclasses import dataclass
from robustbench_local import Attack, Defense

@dataclass(frozen=True)
class Mine(Attack):
    def __call__(self, oracle, x, y, threat, draws):
        return x

@dataclass(frozen=True)
class Plain(Defense):
    def build(self, base, trainer, draws):
        return base
"""


def test_a_project_with_attacks_and_defenses_of_its_own(stranger: Path, tmp_path: Path) -> None:
    """Research repositories have folders of these names: ours, theirs and a third package's plug-ins all work there."""
    project = tmp_path / "project"
    for folder in ("attacks", "defenses"):
        (project / folder).mkdir(parents=True)
        (project / folder / "__init__.py").write_text("")
        (project / folder / "mine.py").write_text(OWN)
        (project / folder / "pgd.py").write_text("raise ImportError('not ours')")
    installed(
        project,
        "project",
        "[robustbench_local.attacks]\nmine = attacks.mine:Mine\n"
        "[robustbench_local.defenses]\nplain = defenses.mine:Plain\n",
    )
    code = (
        "import attacks.mine, defenses.mine\n"
        "from robustbench_local.config.plugins import find_attack, find_defense\n"
        "names = 'pgd', 'autoattack', 'fog', 'mine', 'nothing'\n"
        "kinds = [type(find_attack(name)) for name in names]\n"
        "kinds += [type(find_defense(name)) for name in ('jpeg', 'plain')]\n"
        "print(*[kind.__module__ for kind in kinds])\n"
    )
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(project), root, str(stranger)])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    own = "robustbench_local.attacks"
    assert done.stdout.split() == [
        f"{own}.pgd",
        f"{own}.autoattack",
        f"{own}.corruptions.weather",
        "attacks.mine",
        "strange",
        "robustbench_local.defenses.jpeg",
        "defenses.mine",
    ]


@dataclass(frozen=True)
class Settings:
    eps: float
    size: str | float | None = None
    widths: tuple[int, ...] = (1,)
    mode: Literal["a", 1] = "a"
    names: dict[str, int] | None = None


def test_values_are_fitted_to_their_annotations() -> None:
    made = construct(Settings, {"eps": "8/255", "size": "8/255", "widths": [3, 4], "names": {"x": 1}}, "it")
    assert made == Settings(8 / 255, "8/255", (3, 4), "a", {"x": 1})
    assert type(construct(Settings, {"eps": 1}, "it").eps) is float


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "needs a value for eps"),
        ({"eps": "eight"}, "eps of it is 'eight': it must be a number"),
        ({"eps": None}, "eps of it is None"),
        ({"eps": 1, "widths": [1.5]}, "a list of: a whole number"),
        ({"eps": 1, "mode": True}, "a or 1"),
        ({"eps": 1, "names": {"x": "y"}}, "a mapping to: a whole number or null"),
    ],
)
def test_values_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        construct(Settings, settings, "it")


def test_an_error_of_ours_keeps_its_kind() -> None:
    @dataclass(frozen=True)
    class Picky:
        eps: float = 0.0

        def __post_init__(self) -> None:
            raise ThreatError("not today")

    with pytest.raises(ThreatError, match="it: not today"):
        construct(Picky, {}, "it")


def test_packages_are_asked_once_and_again_when_one_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(*, group: str) -> EntryPoints:
        asked.append(group)
        return entry_points(group=group)

    monkeypatch.setattr(plugins, "entry_points", counted)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(3):
        assert "late" not in {row.name for row in listing(ATTACKS)}
    assert len(asked) == 1
    installed(tmp_path, "late", "[robustbench_local.attacks]\nlate = nowhere:Late\n")
    assert "late" in {row.name for row in listing(ATTACKS)}
    assert len(asked) == 2
