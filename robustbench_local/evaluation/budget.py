"""How often a model may be asked about one image: by the user's budget, and by its own where it has one."""

from __future__ import annotations

from torch import nn

from robustbench_local.core.errors import ConfigError

JUDGED = 3  # questions of the judge's own per image, at most: clean, attacked, and attacked in 8 bits


def queries_per_image(model: nn.Module) -> int | None:
    """The least that any part of a model says by `queries_per_image`, the judge's own questions included."""
    said = [getattr(part, "queries_per_image", None) for part in model.modules()]
    return min((count for count in said if isinstance(count, int)), default=None)


def budget_within(budget: int | None, most: int | None) -> int | None:
    """The budget of a verdict on a model that may be asked about one image so often, at most."""
    if most is None:
        return budget
    if most <= JUDGED:
        raise ConfigError(f"queries_per_image is {most}: the judge alone asks {JUDGED} times, so give it more")
    return most - JUDGED if budget is None else min(budget, most - JUDGED)
