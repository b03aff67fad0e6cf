"""Requests and answers of the v2 protocol, as JSON and as bytes, in every datatype; and answers that are mutated."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from robustbench_local.core.errors import ModelError
from robustbench_local.models.http.client import Reply
from robustbench_local.models.http.datatypes import NUMBERS, as_sent
from robustbench_local.models.http.patience import LostError
from robustbench_local.models.http.protocol import LENGTH, Protocol

JSON, BINARY = (Protocol("in", "FP32", "out", binary, version="1") for binary in (False, True))


def reply(body: dict[str, Any] | bytes, raw: bytes = b"") -> Reply:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply({LENGTH.lower(): str(len(text))} if raw else {}, text + raw)


def answered(
    datatype: str = "FP32", shape: Any = (2, 3), data: Any = (0, 1, 2, 3, 4, 5), **more: Any
) -> dict[str, Any]:
    out = {"name": "out", "datatype": datatype, "shape": shape, "data": data}
    return {"model_name": "net", "model_version": "1", "id": "q", "outputs": [out]} | more


def in_bytes(values: np.ndarray[Any, Any], datatype: str, before: bytes = b"") -> Reply:
    """The output in bytes, after another one of `before`."""
    raw = values.astype(NUMBERS[datatype]).tobytes()
    first = {"name": "other", "datatype": "UINT8", "shape": [len(before)]}
    out = {"name": "out", "datatype": datatype, "shape": list(values.shape)}
    outputs = [
        tensor | {"parameters": {"binary_data_size": len(part)}} for tensor, part in ((first, before), (out, raw))
    ]
    return reply({"outputs": outputs}, before + raw)


def test_a_request_says_what_it_holds() -> None:
    images = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2) / 7
    body, headers = JSON.request(images, "q")
    (tensor,) = json.loads(body)["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("in", "FP32", [2, 1, 2, 2])
    assert np.array_equal(np.float32(tensor["data"]), images.reshape(-1)) and LENGTH not in headers
    body, headers = BINARY.request(images, "q")
    head, raw = body[: int(headers[LENGTH])], body[int(headers[LENGTH]) :]
    (tensor,) = json.loads(head)["inputs"]
    assert tensor["parameters"]["binary_data_size"] == len(raw) == 32 and "data" not in tensor
    assert np.array_equal(np.frombuffer(raw, "<f4"), images.reshape(-1))
    one = Protocol("in", "FP32", "out", False, batched=False).request(images[:1], "q")[0]
    assert json.loads(one)["inputs"][0]["shape"] == [1, 2, 2]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_an_answer_is_read_in_every_datatype(datatype: str) -> None:
    values = np.arange(6).reshape(2, 3)
    for got in (
        JSON.answer(reply(answered(datatype)), 2, "q"),
        JSON.answer(reply(answered(datatype, data=values.tolist())), 2, "q"),  # lists of lists
        BINARY.answer(in_bytes(values, datatype), 2, "q"),
        BINARY.answer(in_bytes(values, datatype, before=b"12345"), 2, "q"),
        BINARY.answer(reply(answered(datatype)), 2, "q"),  # JSON, though bytes were asked for
    ):
        assert isinstance(got, np.ndarray) and np.array_equal(got, values) and got.dtype == NUMBERS[datatype]
    one = Protocol("in", "FP32", "out", False, batched=False).answer(reply(answered(datatype, [6])), 1, "q")
    assert isinstance(one, np.ndarray) and one.shape == (1, 6)


def test_names_of_classes_are_read_from_json_and_bytes() -> None:
    assert JSON.answer(reply(answered("BYTES", [2], ["cat", "né"])), 2, "q") == ["cat", "né"]
    raw = b"\3\0\0\0cat\3\0\0\0n\xc3\xa9"
    out = {"name": "out", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    assert JSON.answer(reply({"outputs": [out]}, raw), 2, "q") == ["cat", "né"]


LOST = [
    (b"", "no JSON"),
    (b"<html>gateway</html>", "no JSON"),
    (json.dumps(answered()).encode()[:-9], "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b"[1]", "no object"),
    (answered(id="r"), "another request"),
    (answered(data=[1, 2]), "2 values for the shape"),
]
WRONG = [
    (answered(shape=[3, 2]), "3, 2. for 2 images"),
    (answered(shape=[]), "for 2 images"),
    (answered(shape=[2, -3]), "whole numbers"),
    (answered(shape=[2, True]), "whole numbers"),
    (answered(shape="2,3"), "whole numbers"),
    (answered("FP8"), "datatype 'FP8'"),
    (answered(7), "datatype 7"),  # type: ignore[arg-type]
    (answered(data="zeros"), "must be a list"),
    (answered(data=[[1, 2], [3]]), "different lengths"),
    (answered(data=["a"] * 6), "no numbers"),
    (answered(data=[None] * 6), "no numbers"),
    (answered(data=[True] * 6), "no numbers"),
    (answered("BYTES", [2], [1, 2]), "not the texts"),
    (answered(outputs=[]), 'no output "out", but none'),
    (answered(outputs={"out": 1}), "list of tensors"),
    (answered(outputs=[{"name": "scores"}]), "but 'scores'"),
    (answered(model_version="2"), "version '2' of the model answered"),
    (answered(error="CUDA out of memory"), "CUDA out of memory"),
]


@pytest.mark.parametrize(("body", "match"), LOST)
def test_what_is_not_whole_may_be_asked_again(body: Any, match: str) -> None:
    with pytest.raises(LostError, match=match):
        JSON.answer(reply(body), 2, "q")


@pytest.mark.parametrize(("body", "match"), WRONG)
def test_what_is_whole_and_wrong_is_an_error(body: Any, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        JSON.answer(reply(body), 2, "q")


def test_bytes_that_are_missing_may_be_asked_again() -> None:
    whole = in_bytes(np.zeros((2, 3)), "FP32")
    for cut in range(1, 24):
        with pytest.raises(LostError):
            BINARY.answer(Reply(whole.headers, whole.body[:-cut]), 2, "q")
    for length in ("-1", "9999", "x", "٣", "1" * 30):
        with pytest.raises(LostError):
            BINARY.answer(Reply({LENGTH.lower(): length}, whole.body), 2, "q")


def test_pixels_are_sent_as_numbers_of_the_input() -> None:
    pixels = np.array([[0.4, 254.6]], np.float32)
    assert as_sent(pixels, "UINT8").tolist() == [[0, 255]] and as_sent(pixels, "FP16").dtype == np.float16
    for outside in ([[-1.0]], [[256.0]]):
        with pytest.raises(ModelError, match="takes UINT8, and these pixels are"):
            as_sent(np.array(outside, np.float32), "UINT8")


STRANGE: list[Any] = [
    None,
    -1,
    0,
    2,
    7,
    1e400,
    float("nan"),
    "",
    "FP64",
    "BYTES",
    "out",
    [],
    [2],
    {},
    True,
    10**30,
    [[0], [1, 2]],
]


def replaced(value: Any, chance: random.Random) -> Any:
    """A whole value changed, somewhere inside."""
    if isinstance(value, dict | list) and value and chance.random() < 0.8:
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value[key] = replaced(value[key], chance)
        return value
    return chance.choice(STRANGE)


def mutated(body: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, taken out, doubled, or replaced by what JSON has."""
    tokens = [b"null", b"-1", b"[]", b"{}", b"1e999", b"NaN", b'"', b"[", b"true", b"9" * 30, b"\xff", b'"shape"', b"0"]
    for _ in range(chance.randint(1, 4)):
        first = chance.randrange(len(body) + 1)
        last = min(len(body), first + chance.choice([0, 1, 2, 8]))
        body = body[:first] + chance.choice([b"", bytes([chance.randrange(256)]), *tokens]) + body[last:]
    return body


def test_no_mutated_answer_is_anything_but_an_array_or_an_error() -> None:
    chance, ends = random.Random(4), Counter[str]()
    binary = in_bytes(np.array([[1, 2, 3], [4, 5, 6]]), "FP32")
    texts = reply(answered("BYTES", [2], ["cat", "dog"]))
    for _ in range(6000):
        of = chance.choice([reply(answered()), binary, texts])
        headers = dict(of.headers)
        if headers and chance.random() < 0.1:
            headers[LENGTH.lower()] = str(chance.randrange(400))
        body = mutated(of.body, chance)
        if of is not binary and chance.random() < 0.7:
            body = json.dumps(replaced(json.loads(of.body), chance)).encode()
        try:
            got = BINARY.answer(Reply(headers, body), 2, "q")
        except (LostError, ModelError) as error:
            ends[type(error).__name__] += 1
        else:
            ends["an answer"] += 1
            assert len(got) == 2 and (isinstance(got, list) or got.dtype.kind in "fiu")
    print(dict(ends))
    assert min(ends["LostError"], ends["ModelError"], ends["an answer"]) > 300 and sum(ends.values()) == 6000
