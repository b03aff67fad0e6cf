"""What a worker may take: time per cell, and memory."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_local.config.quantities import seconds, size
from robustbench_local.config.schema import GridConfig
from robustbench_local.core.memory import free_and_total, held_by

_RESERVE = 0.04  # of the machine's memory: below it the kernel would soon end a process of its own choice


@dataclass(frozen=True)
class Limits:
    """seconds: per cell. memory: bytes per worker. None: as much as there is."""

    seconds: float | None = None
    memory: int | None = None

    @classmethod
    def of(cls, config: GridConfig) -> Limits:
        return cls(
            None if config.timeout is None else seconds(config.timeout, "timeout"),
            None if config.memory is None else size(config.memory, "memory"),
        )

    def greedy(self, workers: list[int]) -> tuple[int, str] | None:
        """Of the processes the one that holds too much memory, and in which words; None where none does.

        If the machine has next to none left, the largest of them ends: the others' cells are saved.
        """
        held = {process: found for process in workers if (found := held_by(process)) is not None}
        if not held:
            return None
        most = max(held, key=lambda process: held[process])
        if self.memory is not None and held[most] > self.memory:
            return most, f"its memory: {_gib(held[most])}, where a worker may hold {_gib(self.memory)}"
        machine = free_and_total()
        if machine is not None and machine[0] < _RESERVE * machine[1] and held[most] > machine[0]:
            return most, f"its memory: {_gib(held[most])}, of {_gib(machine[1])} in all, of which hardly any is left"
        return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
