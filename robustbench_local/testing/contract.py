"""A rule that a plug-in must keep, and what is said of one that breaks some."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from robustbench_local.core.containment import contained, guarded
from robustbench_local.core.errors import ContractError, PluginError, said

S = TypeVar("S")


@dataclass(frozen=True)
class Rule(Generic[S]):
    """look(subject) yields what was seen of each violation; cause: what is the likely reason, and what to do.

    first: where this one is broken, the rules after it would only repeat it.
    """

    name: str
    look: Callable[[S], Iterator[str]]
    cause: str
    first: bool = False


def hold(name: str, rules: Sequence[Rule[S]], subject: S) -> None:
    """ContractError that lists every rule the subject breaks; an exception on the way is a violation as well."""
    found: list[str] = []
    left = len(rules)
    for rule in rules:
        seen = _seen(rule, subject)
        left -= 1
        if seen:
            found.append(f"\n- {rule.name}: {'; '.join(seen)}\n  Likely cause: {rule.cause}")
        if seen and rule.first:
            break
    if found:
        rest = f"\n({left} more rules are looked at once this is mended)" if left else ""
        raise ContractError(f"{name} breaks its contract:" + "".join(found) + rest)


def _seen(rule: Rule[S], subject: S) -> list[str]:
    seen: list[str] = []
    try:
        with guarded(), contained(PluginError, "it"):
            seen.extend(rule.look(subject))
    except Exception as error:  # a stranger's code may raise anything
        seen.append(f"it ended in {type(error).__name__}: {said(error)}")
    return seen
