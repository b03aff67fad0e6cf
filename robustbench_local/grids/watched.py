"""Progress that other processes see as well."""

from __future__ import annotations

from robustbench_local.core.progress import Progress
from robustbench_local.storage.claims import Claims


class Watched(Progress):
    """Of a job: shown here, and told by this process's pulse. doing: the name of its claim, what: it in words."""

    def __init__(self, shown: Progress, claims: Claims, doing: str, what: str) -> None:
        self._shown, self._claims, self._doing, self._what = shown, claims, doing, what

    def line(self, text: str) -> None:
        self._shown.line(text)

    def advance(self, what: str, share: float) -> None:
        self._claims.says(self._doing, self._what, share)
        self._shown.advance(what, share)
