"""Every setting of every attack and defense is said in words: `list attacks pgd` shows them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from robustbench_local.config.plugins import ATTACKS, DEFENSES, Group, listing, settings_of
from robustbench_local.config.sentences import sentence


@pytest.mark.parametrize("group", [ATTACKS, DEFENSES], ids=lambda group: group.word)
def test_each_setting_has_a_sentence(group: Group) -> None:
    each = [(row.name, setting) for row in listing(group) for setting in settings_of(group, row.name)]
    assert len(each) > 40
    silent = [f"{name}: {setting.name}" for name, setting in each if len(setting.about.split()) < 3]
    assert silent == []
    assert all(setting.must_be and "ClassVar" not in setting.must_be for _, setting in each)


@dataclass(frozen=True)
class Parent:
    """One thing (Nobody et al. 2020).

    steps: how many each restart takes, at least 1. loss: ce or margin (Else et al. 2019, section 2.1). Cost: steps
    forwards.
    """

    steps: int = 1
    loss: str = "ce"


@dataclass(frozen=True)
class Child(Parent):
    """Another.

    size, share: of the square;
    silent=False is no sentence: nor is a word such as silently: this. steps: fewer.
    """

    size: int = 3
    share: float = 0.5
    silent: bool = False
    unsaid: bool = False


@pytest.mark.parametrize(
    ("kind", "setting", "said"),
    [
        (Parent, "steps", "how many each restart takes, at least 1"),
        (Parent, "loss", "ce or margin (Else et al. 2019, section 2.1)"),
        (Child, "loss", "ce or margin (Else et al. 2019, section 2.1)"),
        (Child, "steps", "fewer"),
        (Child, "size", "of the square; silent=False is no sentence: nor is a word such as silently: this"),
        (Child, "share", "of the square; silent=False is no sentence: nor is a word such as silently: this"),
        (Child, "silent", ""),
        (Child, "unsaid", ""),
    ],
)
def test_what_a_docstring_says(kind: type[object], setting: str, said: str) -> None:
    assert sentence(kind, setting) == said
