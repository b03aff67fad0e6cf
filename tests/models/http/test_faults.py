"""A server that is slow, refuses, breaks off or lies: it is asked again, or there is a clear error."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_local.core.errors import ModelError
from tests.helpers.endpoints import endpoint, images, opened
from tests.helpers.model_server import Fault, Served, serving

MENDED = {str(status): Fault(status=status) for status in (429, 500, 502, 503, 504)} | {
    "429, again at once": Fault(status=429, headers={"Retry-After": "0"}),
    "garbage": Fault(body=b"<html>busy</html>"),
    "cut in its JSON": Fault(cut=30),
    "cut in its data": Fault(cut=200),
    "cut before its first byte": Fault(cut=0),
    "closed": Fault(close=True),
    "to another request": Fault(change=lambda reply: reply.update(id="another")),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_may_be_mended_is_asked_again(served: Served, name: str) -> None:
    model, x, fault = opened(served), images(), MENDED[name]
    served.faults = lambda number: fault if number % 3 < 2 else None
    assert torch.equal(model(x), served.net(x))
    journal = endpoint(model).journal
    refused = fault.status in (429, 503)
    assert len(journal) == 10 and journal.spent == (10 if refused else 30)  # lost ones may have been paid for
    served.faults = lambda number: fault
    before = served.requests
    with pytest.raises(ModelError, match=r"/v2/models/net: the endpoint: no answer in 7 tries.*same command goes on"):
        model(images(4, seed=1))
    assert served.requests == before + 7


@pytest.mark.parametrize(
    ("fault", "match"),
    [(Fault(pause=0.6), "longer than 0.3 s"), (Fault(drip=0.05), "longer than 0.3 s")],
    ids=["slow", "drips"],
)
def test_a_slow_answer_is_given_up_in_time(served: Served, fault: Fault, match: str) -> None:
    model = opened(served, timeout=0.3, retries=0, protocol="json")
    served.faults = lambda number: fault
    with pytest.raises(ModelError, match=match):
        model(images(1))


def values(reply: dict[str, Any], *new: float) -> None:
    (out,) = reply["outputs"]
    out["data"] = [*new, *out["data"][len(new) :]]


def shaped(reply: dict[str, Any], classes: int) -> None:
    (out,) = reply["outputs"]
    out.update(shape=[4, classes], data=[0.5] * (4 * classes))


WRONG: list[tuple[Fault, str]] = [
    (Fault(change=lambda reply: values(reply, float("nan"))), "1 scores that are NaN or infinite"),
    (Fault(change=lambda reply: values(reply, 1e39)), "1 scores that are NaN or infinite"),
    (Fault(change=lambda reply: shaped(reply, 9)), "answered 9 classes, and it has 10"),
    (Fault(change=lambda reply: reply.update(model_version="2")), "version '2' of the model answered"),
    (Fault(change=lambda reply: reply.update(outputs=[])), 'no output "scores"'),
    (Fault(change=lambda reply: reply.update(error="no memory")), "no memory"),
    (Fault(status=400), "answered 400.*not now"),
    (Fault(status=401), "answered 401.*right key"),
    (Fault(status=404), "answered 404"),
    (Fault(status=302, headers={"Location": "https://elsewhere.example/v2"}), "redirect to 'https://elsewhere"),
    (Fault(status=307, headers={"Location": "/v2/models/other"}), "none is followed"),
    (Fault(headers={"Content-Encoding": "gzip"}), "in the encoding 'gzip'"),
]


@pytest.mark.parametrize(("fault", "match"), WRONG, ids=[match for _, match in WRONG])
def test_what_is_wrong_is_an_error_at_once_and_kept_nowhere(served: Served, fault: Fault, match: str) -> None:
    model, x = opened(served, protocol="json"), images(4)
    served.faults = lambda number: fault if number == 0 else None
    with pytest.raises(ModelError, match=match):
        model(x)
    assert served.requests == 1 and len(endpoint(model).journal) == 0
    assert torch.equal(model(x), served.net(x))  # another time it is right


def test_a_body_without_end_is_not_read(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustbench_local.models.http.client.MOST_BYTES", 10_000)
    model = opened(served)
    served.faults = lambda number: Fault(body=b"[" * 10_000_000)
    with pytest.raises(ModelError, match="more than 10000 bytes"):
        model(images(1))


def test_of_requests_at_once_what_came_is_kept_and_nothing_more_is_sent(served: Served) -> None:
    model, x = opened(served, concurrent=2, batch=1), images(20)
    served.faults = lambda number: Fault(status=400) if number == 4 else None
    with pytest.raises(ModelError, match="answered 400"):
        model(x)
    assert served.requests < 20 and len(endpoint(model).journal) == served.images == served.requests - 1
    assert torch.equal(model(x), served.net(x)) and set(served.answered.values()) == {1}


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serving(tls=tls) as served:
        with pytest.raises(ModelError, match=r"certificate is not trusted.*SSL_CERT_FILE"):
            opened(served)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert torch.equal(opened(served)(images()), served.net(images()))


def test_a_wait_that_is_too_long_and_a_server_that_is_gone_end_the_run(served: Served) -> None:
    model = opened(served)
    served.faults = lambda number: Fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(ModelError, match="asks to wait 3600 s"):
        model(images(1))
    with serving() as gone:
        late = opened(gone)
    with pytest.raises(ModelError, match="cannot be reached"):
        late(images(1))
    assert endpoint(late).journal.spent == 0
    with pytest.raises(ModelError, match="cannot be reached"):
        opened(gone)
