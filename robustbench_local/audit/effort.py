"""What an audit spends."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from robustbench_local.audit.stronger import EFFORT, LOOK, WHOLE


@dataclass(frozen=True)
class Effort:
    """What an audit spends.

    steps: of a gradient attack; queries: of a score attack; draws: random points tried on each of `probed` images;
    walked: images of a label attack; look: images on which a stronger attack takes a look, goes on to whole; best: the
    effort of that attack; few: images asked about the set-up; random, eot: images of a random model that are attacked,
    and draws per query; process: whether a fresh process is asked as well.
    """

    steps: int = 20
    queries: int = 300
    draws: int = 300
    probed: int = 20
    walked: int = 16
    look: int = LOOK[False]
    whole: int = WHOLE[False]
    best: float = EFFORT
    few: int = 32
    random: int = 40
    eot: int = 5
    process: bool = True

    def scaled(self, times: float) -> Effort:
        """So many times as much of everything that is counted, but for the images of the set-up."""
        counted = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("few", "process")}
        more = {name: max(1, round(times * value)) for name, value in counted.items() if name != "best"}
        return replace(self, **more, best=times * self.best)
