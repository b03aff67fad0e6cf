"""What is asked, at what rate and how often: budgets, journal and identity; and keys, which nobody is shown."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from robustbench_local.core.errors import ModelError
from tests.helpers.endpoints import endpoint, images, opened
from tests.helpers.model_server import Fault, Served, digests, small_net

KEY = "s3cr3t-k3y"


def test_the_rate_is_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    model = endpoint(opened(served, per_second=0.5))
    waits: list[float] = []
    model._pace._sleep = waits.append
    model(images())  # 3 requests, the first of them at once
    assert len(waits) == 2 and 1.5 < waits[0] <= 2 and 3.5 < waits[1] <= 4 and model.seconds == 0.5


def test_the_budget_is_a_hard_stop_for_every_run_together(served: Served) -> None:
    model, x = opened(served, queries=10), images(12)
    with pytest.raises(ModelError, match=r"budget of 10 queries.*8 images were asked about, and 4 more"):
        model(x)
    assert served.images == 8
    again = opened(served, queries=10)
    assert torch.equal(again(x[:8]), served.net(x[:8])) and served.images == 8  # what was paid for is there
    with pytest.raises(ModelError, match="is spent"):
        again(x[8:])
    assert torch.equal(opened(served, queries=12)(x), served.net(x)) and served.images == 12
    assert "0 of 12 are left" in endpoint(opened(served, queries=12)).price_of(5)


def test_repeats_reach_the_server_and_a_resumed_run_replays_them(served: Served) -> None:
    """A journal that answered by image alone would hide that a server answers at random."""
    noise = iter(torch.arange(100.0))
    served.net = lambda x: small_net()(x) + next(noise)  # type: ignore[assignment]
    model, x = opened(served), images(4)
    first = [model(x) for _ in range(3)]
    assert not torch.equal(first[0], first[1]) and served.requests == 3
    later = opened(served)
    assert all(torch.equal(later(x), answer) for answer in first) and served.requests == 3
    assert not torch.equal(later(x), first[2]) and served.requests == 4


def test_an_image_twice_in_a_batch_is_asked_twice_and_a_failed_forward_counts_for_nothing(served: Served) -> None:
    model, x = opened(served), images(8)
    model(x[[0, 0, 1]])
    assert sorted(served.answered.values()) == [1, 2]
    served.faults = lambda number: Fault(status=400) if number == 2 else None
    with pytest.raises(ModelError):
        model(x)  # the first 4 are answered, the others not
    model(x)
    assert [served.answered[each] for each in digests(x.numpy())] == [3, 2, 1, 1, 1, 1, 1, 1]


def test_json_and_binary_share_a_name_and_a_journal(served: Served) -> None:
    one, other = opened(served, protocol="json"), opened(served, protocol="binary")
    assert one.rbl_identity == other.rbl_identity
    x = images(4)
    one(x)
    assert torch.equal(other(x), served.net(x)) and served.images == 4


def test_another_version_or_server_is_another_model(served: Served) -> None:
    names = [opened(served).rbl_identity, opened(served, about={"version": "b"}).rbl_identity]
    served.versions = ["2"]
    names.append(opened(served).rbl_identity)
    served.versions = ["1", "10", "9"]
    newest = opened(served)
    names.append(newest.rbl_identity)
    assert len({*names}) == 4 and endpoint(newest).url.endswith("/versions/10/infer")
    served.faults = lambda number: Fault(change=lambda reply: reply.update(model_version="10"))
    newest(images(1))


def test_without_a_version_nothing_is_read_back_and_that_is_said(served: Served) -> None:
    served.versions = []
    x = images(4)
    for count in (4, 8):
        with pytest.warns(UserWarning, match="computed anew: give a version"):
            model = opened(served)
        model(x)
        assert served.images == count
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            opened(served, about={"version": "mine 1"})(x)
    assert served.images == 12


def test_keys_are_sent_and_shown_nowhere(served: Served, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NET_KEY", f"Bearer {KEY}")
    model = opened(served, headers={"Authorization": "NET_KEY"})
    model(images(2))
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in served.seen_headers)
    texts = [str(model.rbl_identity), repr(model), endpoint(model).price_of(3)]
    for fault in (
        Fault(status=400, body=f"bad key {KEY}".encode()),
        Fault(status=503, body=f"bad key Bearer {KEY}".encode()),
        Fault(status=302, headers={"Location": f"http://x/?key={KEY}"}),
        Fault(change=lambda reply: reply.update(error=KEY)),
        Fault(change=lambda reply: reply["outputs"][0].update(name=KEY)),
    ):
        served.faults = lambda number, fault=fault: fault  # type: ignore[misc]
        with pytest.raises(ModelError, match=r"\*\*\*") as error:
            model(images(1, seed=1))
        texts.append(str(error.value))
    texts += [file.read_text(errors="replace") for file in cache.rglob("*") if file.is_file()]
    assert len(texts) > 8 and not any(KEY in text for text in texts)
    monkeypatch.delenv("NET_KEY")
    with pytest.raises(ModelError, match="variable NET_KEY"):
        opened(served, headers={"Authorization": "NET_KEY"})
