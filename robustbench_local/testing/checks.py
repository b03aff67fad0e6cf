"""The two calls an author of a plug-in makes."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_local.config.arguments import Threat
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defense
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.testing import attack_rules, defense_rules
from robustbench_local.testing.contract import hold
from robustbench_local.testing.specimens import THREATS


def check_attack(attack: type[Attack] | Attack, threats: Sequence[Threat] = ()) -> None:
    """Hold an attack to the rules that every verdict relies on, and to a planted weakness that it must find.

    attack: the class, with its default settings, or one that is built, such as `MyAttack(steps=5)` to be quick.
    threats: the balls in which it is tried, on images of 3x8x8; by default one for each norm that it declares.
    Takes seconds and needs neither data nor a GPU. Raises ContractError, which lists all rules that are broken, each
    with what was seen and the likely cause.
    """
    built = attack() if isinstance(attack, type) else attack
    if not isinstance(built, Attack):
        raise ConfigError(f"{built!r} is no attack: derive from robustbench_local.Attack or IterativeAttack")
    chosen = [ThreatModel.parse(threat) for threat in threats] or [THREATS[norm] for norm in sorted(built.norms)]
    for threat in chosen:
        name = f"{type(built).__name__} in {threat}"
        hold(name, attack_rules.RULES, attack_rules.Subject(built, threat))


def check_defense(defense: type[Defense] | Defense) -> None:
    """Hold a defense to the rules that every verdict relies on: what is attacked is what is deployed.

    defense: the class, with its default settings, or one that is built. It is built around a small random network for
    images of 3x8x8, and nothing is trained. Raises ContractError, which lists all rules that are broken, each with what
    was seen and the likely cause.
    """
    built = defense() if isinstance(defense, type) else defense
    if not isinstance(built, Defense):
        raise ConfigError(f"{built!r} is no defense: derive from robustbench_local.Defense")
    hold(type(built).__name__, defense_rules.RULES, defense_rules.Subject(built))
