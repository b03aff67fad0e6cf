"""One exchange over HTTP: verified, bounded in time and size, followed nowhere, and no key of it shown to anybody."""

from __future__ import annotations

import ssl
import time
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_local.core.errors import ModelError
from robustbench_local.models.http.patience import RETRIED, LostError, retry_after

if TYPE_CHECKING:
    import httpx2

MOST_BYTES = 64 * 2**20  # of an answer
_SHOWN = 300  # characters of what a server says of an error


@dataclass(frozen=True)
class Reply:
    """headers: by their names in small letters."""

    headers: Mapping[str, str]
    body: bytes


class Client:
    """Connections to one server, which are kept. secrets: headers that are sent, and whose values nobody is shown."""

    def __init__(self, secrets: Mapping[str, str], *, timeout: float, concurrent: int) -> None:
        try:
            import httpx2
        except ImportError:
            raise ModelError("a model behind HTTP needs httpx2: pip install 'robustbench_local[models]'") from None
        self._errors = httpx2
        self._timeout = timeout
        self._hidden = sorted({part for value in secrets.values() for part in (value, *value.split())}, key=len)[::-1]
        self._http = httpx2.Client(
            headers={"accept-encoding": "identity", **secrets},  # what is counted is then what is kept
            timeout=timeout,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=concurrent, max_keepalive_connections=concurrent),
        )
        weakref.finalize(self, self._http.close)

    def get(self, url: str) -> Reply:
        return self._exchange("GET", url)

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        return self._exchange("POST", url, body, headers)

    def shown(self, text: str) -> str:
        """A text of the server's, or about it, without our keys."""
        for secret in self._hidden:
            text = text.replace(secret, "***")
        return text

    def _exchange(self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> Reply:
        """LostError where it may be tried again; ModelError where that helps nothing."""
        httpx2 = self._errors
        try:
            with self._http.stream(method, url, content=body, headers=dict(headers)) as response:
                answer = self._body(response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            if _untrusted(error):
                raise ModelError(
                    f"{url}: its certificate is not trusted ({self.shown(str(error))}). Give the authority that signed"
                    " it by the environment variable SSL_CERT_FILE"
                ) from None
            raise LostError(f"it cannot be reached ({self._named(error)})", refused=True) from None
        except httpx2.TimeoutException:
            raise LostError(f"it took longer than {self._timeout:g} s") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise LostError(f"the connection broke ({self._named(error)})") from None
        self._check(response, answer, url)
        return Reply({name.lower(): value for name, value in response.headers.items()}, answer)

    def _body(self, response: httpx2.Response) -> bytes:
        until = time.monotonic() + self._timeout
        parts, size = [], 0
        for part in response.iter_raw():
            size += len(part)
            if size > MOST_BYTES:
                raise ModelError(f"{response.url} answered more than {MOST_BYTES} bytes, and was not read to its end")
            if time.monotonic() > until:  # one that sends a little now and then is never late by its own measure
                raise LostError(f"its answer took longer than {self._timeout:g} s")
            parts.append(part)
        return b"".join(parts)

    def _check(self, response: httpx2.Response, body: bytes, url: str) -> None:
        status = response.status_code
        if status == 200:
            if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
                raise ModelError(f"{url} answered in the encoding {encoding!r:.40}, which it was asked not to use")
            return
        if 300 <= status < 400:
            where = self.shown(repr(response.headers.get("location", "nowhere")))
            raise ModelError(
                f"{url} answered {status}, a redirect to {where:.200}, and none is followed: images and keys go to no"
                " other address than the one you named. Name that one, if you trust it"
            )
        said = self.shown(body.decode("utf-8", "replace").strip())[:_SHOWN]
        text = f"it answered {status} {self.shown(response.reason_phrase)}" + (f": {said}" if said else "")
        if status in RETRIED:
            raise LostError(text, wait=retry_after(response.headers.get("retry-after")), refused=status in (429, 503))
        advice = {401: " (is the right key in the headers?)", 403: " (is the right key in the headers?)"}
        raise ModelError(f"{url}: {text}{advice.get(status, '')}")

    def _named(self, error: Exception) -> str:
        return self.shown(f"{type(error).__name__}: {error}".removesuffix(": "))


def warn_if_readable(url: str) -> None:
    """Where keys are sent so that others on the network may read them."""
    warnings.warn(f"keys are sent to {url} unencrypted: others on the way can read them. Use https", stacklevel=3)


def _untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
