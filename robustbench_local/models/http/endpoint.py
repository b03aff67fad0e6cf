"""A model on a server: what is asked of it is journalled, paid from a budget, and asked at the rate it bears."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.access import Access
from robustbench_local.core.errors import ModelError, did_you_mean
from robustbench_local.models.black_box import BlackBox
from robustbench_local.models.http.client import Client
from robustbench_local.models.http.datatypes import Array, as_sent
from robustbench_local.models.http.journal import Floats, Journal, image_key
from robustbench_local.models.http.patience import LostError, Pace, Patience
from robustbench_local.models.http.protocol import Protocol
from robustbench_local.models.http.settings import EndpointSettings

_ALL = 2**31  # images that one forward may hold: requests are cut here, not in BlackBox


class Endpoint(BlackBox):
    """Pixels (N, C, H, W) as the server expects them in, logits (N, K) out.

    url: of its infer. names: of the classes, where it answers with these. width: of its input, where that is flat.
    exactly: how many images a request must hold, where the model is made for so many; the last one is repeated.

    ModelError where an answer is wrong or does not come, or where the budget is spent. However a forward ends, every
    answer that came is in the journal.
    """

    def __init__(
        self,
        url: str,
        protocol: Protocol,
        client: Client,
        journal: Journal,
        settings: EndpointSettings,
        *,
        what: str,
        classes: int,
        access: Access = Access.SCORES,
        names: Sequence[str] = (),
        width: int | None = None,
        exactly: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(self._answers, what=what, access=access, classes=classes, batch=_ALL)
        self.url, self.protocol, self.journal, self.settings = url, protocol, journal, settings
        self.names, self.width, self.exactly = tuple(names), width, exactly
        self.queries_per_image = settings.queries_per_image
        self.seconds = 1 / (settings.per_second * self._most) if settings.per_second else 0.0
        self._client = client
        self._pace = Pace(settings.per_second, sleep=sleep)
        self._patience = Patience(settings.retries, settings.longest_wait, sleep)
        self._asked: Counter[str] = Counter()  # how often this process was told of each image

    @property
    def _most(self) -> int:
        """Images in a request."""
        return self.exactly or (self.settings.batch if self.protocol.batched else 1)

    def price_of(self, queries: int) -> str:
        """What so many images cost, in words, and what is left of the budget."""
        text = f"{queries:,} queries"
        if self.settings.price is not None:
            text += f", {queries * self.settings.price:,.2f} {self.settings.currency}".rstrip()
        if self.journal.most is not None:
            text += f"; {max(0, self.journal.most - self.journal.spent):,} of {self.journal.most:,} are left"
        return text

    def _answers(self, images: npt.NDArray[np.float32]) -> Floats:
        """(n, K) scores, or (n, 1) labels: of the journal where it has them, of the server where not."""
        sent = as_sent(images if self.width is None else self._flat(images, self.width), self.protocol.datatype)
        keys = [image_key(image) for image in sent]
        self.journal.refresh()
        seen: Counter[str] = Counter()
        found: list[Floats | None] = []
        for key in keys:
            found.append(self.journal.answer(key, self._asked[key] + seen[key]))
            seen[key] += 1
        missing = [place for place, answer in enumerate(found) if answer is None]
        parts = [missing[first : first + self._most] for first in range(0, len(missing), self._most)]
        for part, answers in zip(parts, self._ask_all(sent, keys, parts), strict=True):
            for place, answer in zip(part, answers, strict=True):
                found[place] = answer
        self._asked += seen  # only now: what a failed forward got was told to nobody
        return np.stack([answer for answer in found if answer is not None])

    def _flat(self, images: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
        flat = images.reshape(len(images), -1)
        if flat.shape[1] != width:
            raise ModelError(f"{self.what} takes {width} numbers, and these images have {flat.shape[1]} pixels")
        return flat

    def _ask_all(self, sent: Array, keys: Sequence[str], parts: Sequence[list[int]]) -> list[Floats]:
        """The answers to each part; after the first that fails nothing more is sent."""

        def ask(part: list[int]) -> Floats:
            return self._ask(sent[part], [keys[place] for place in part])

        if self.settings.concurrent == 1 or len(parts) < 2:
            return [ask(part) for part in parts]
        with ThreadPoolExecutor(self.settings.concurrent) as pool:
            waiting = [pool.submit(ask, part) for part in parts]
            wait(waiting, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        failed = [each for each in waiting if not each.cancelled() and each.exception() is not None]
        return [each.result() for each in failed or waiting]

    def _ask(self, sent: Array, keys: Sequence[str]) -> Floats:
        """One request, as often as it takes. Its answer is in the journal before it is returned."""
        count = len(sent)
        if self.exactly is not None:
            sent = np.concatenate([sent, np.repeat(sent[-1:], self.exactly - count, 0)])
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        body, headers = self.protocol.request(sent, name)

        def once() -> Floats:
            self._pace.wait()
            self.journal.reserve(len(sent))
            try:
                reply = self._client.post(self.url, body, headers)
                return self._checked(self.protocol.answer(reply, len(sent), name))[:count]
            except LostError as lost:
                if lost.refused:
                    self.journal.release(len(sent))
                raise

        try:
            answers = self._patience.until_answered(once, "the endpoint")
        except ModelError as error:
            raise ModelError(f"{self.what}: {self._client.shown(str(error))}") from None
        self.journal.keep(keys, answers)
        return answers

    def _checked(self, answer: Array | list[str]) -> Floats:
        """An answer (n, K) or (n, 1) that `read` takes; what it refuses is worth nothing and is not journalled."""
        found: Any = [self._label(text) for text in answer] if isinstance(answer, list) else answer
        values = np.asarray(found)
        self.read(values, len(values))
        return values.astype(np.float32).reshape(len(values), -1)

    def _label(self, text: str) -> int:
        if text not in self.names:
            raise ModelError(
                f'it answered the class "{text:.60}"{did_you_mean(text, self.names)}: say the names of the classes, in'
                " order, by classes: [...]"
            )
        return self.names.index(text)
