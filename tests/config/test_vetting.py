"""A stranger's YAML file, and overrides: values, or one error that names the file; no bomb goes off."""

from __future__ import annotations

import os
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.config import reading
from robustbench_local.core.errors import ConfigError, RobustBenchError
from robustbench_local.grids.plan import read_config

GRID = """# a grid
data: mnist
source: bundled
n: 16
models: [mnist_small, {name: "toys:net", weights: a.safetensors}]
defenses: [none, {jpeg: {quality: 50}}]
attacks: [fgsm, {pgd: {steps: 10, step_size: 2/255}}]
threats: ["linf:0.2"]
seeds: [0, 1]
"""


def laughs(levels: int, width: int = 9) -> str:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * width)}]" for k in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "billion laughs": (laughs(10), "levels deep"),
    "laughs in mappings": (
        "a: &a {k: v, l: w}\n"
        + "\n".join(
            f"{b}: &{b} {{k: *{a}, l: *{a}, m: *{a}, n: *{a}}}"
            for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
        ),
        "levels deep",
    ),
    "laughs in merges": (
        "a: &a {k: v}\n"
        + "\n".join(
            f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "levels deep",
    ),
    "laughs by reference": (
        "a: xxxxxxxxxx\n" + "\n".join(f"{b}: {f'${{{a}}}' * 10}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "looks something up",
    ),
    "itself": ("data: &a [*a]", "holds itself"),
    "itself in a mapping": ("data: &a {b: *a}", "holds itself"),
    "one alias deeper each": ("x0: &x0 [1]\n" + "\n".join(f"x{k}: &x{k} [*x{k - 1}]" for k in range(1, 60)), "deep"),
    "brackets": ("data: " + "[" * 30_000, "levels of brackets"),
    "braces": ("data: " + "{a: " * 8_000, "levels of brackets"),
    "indents": ("\n".join(" " * k + "a:" for k in range(200)), "levels deep"),
    "dashes": ("- " * 16_000, "cannot be read"),
    "large": ("n: 1\n#" + "x" * 40_000, "larger than 32768 bytes"),
    "many": ("x: &x [" + "1," * 99 + "]\nids: [" + "*x, " * 110 + "]", "11001 values"),
    "a list": ("- data\n- mnist\n", "holds a sequence"),
    "a number": ("7", "holds a scalar"),
    "a text": ("mnist", "holds a scalar"),
    "no utf-8": (b"data: \xff\xfe", "no UTF-8"),
    "utf-16": ("data: mnist".encode("utf-16"), "no UTF-8"),
    "a nul": ("data: mn\0ist", "cannot be read"),
    "a tab": ("data:\n\t- mnist", "cannot be read"),
    "a key twice": ("data: mnist\ndata: cifar10", "duplicate key"),
    "5,000 digits": ("n: " + "9" * 5000, "cannot be read"),
    "5,000 digits as a key": ("9" * 5000 + ": 1", "cannot be read"),
    "no such day": ("data: !!timestamp 2024-13-45", "cannot be read"),
    "a day": ("data: !!timestamp 2024-12-24", "cannot be read"),
    "an object": ("data: !!python/object/apply:os.system [echo]", "cannot be read"),
    "an empty number": ("n: !!int ''", "cannot be read"),
    "a key of lists": ("[a, b]: 1", "cannot be read"),
    "two documents": ("data: mnist\n---\ndata: cifar10", "cannot be read"),
    "no such alias": ("data: *a", "cannot be read"),
    "the environment": ("data: ${oc.env:HOME}", "looks something up"),
    "itself by reference": ("data: ${data}", "looks something up"),
    "half a reference": ("data: '${'", "looks something up"),
    "orders to Hydra": ("hydra: {searchpath: ['file:///etc']}\ndata: mnist", "Hydra"),
    "extends elsewhere": ("defaults: [../../secret, _self_]", "no list of names"),
    "extends the root": ("defaults: [/etc/passwd, _self_]", "no list of names"),
    "extends a group": ("defaults: [{hydra/launcher: basic}, _self_]", "no list of names"),
    "extends by reference": ("defaults: ['${oc.env:HOME}', _self_]", "looks something up"),
    "extends nothing": ("defaults: [cifar10_pgdd, _self_]", 'did you mean "cifar10_pgd"'),
    "extends itself": ("defaults: [hostile, _self_]", "extends itself"),
    "extends a bomb": ("defaults: [bomb, _self_]", "levels deep"),
    "extends twice": ("defaults: [mnist_pgd, mnist_pgd, _self_]", "twice"),
    "extends who extends it": ("defaults: [back, _self_]", "extends itself"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_error_that_names_it(tmp_path: Path, name: str) -> None:
    content, says = HOSTILE[name]
    assert isinstance(content, str | bytes)
    (tmp_path / "hostile.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "bomb.yaml").write_text(laughs(10))
    (tmp_path / "back.yaml").write_text("defaults: [hostile, _self_]\nn: 3\n")
    with pytest.raises(ConfigError, match=re.escape(says)) as raised:
        reading.read(reading.find("grid", str(tmp_path / "hostile.yaml")), {})
    assert "hostile.yaml" in str(raised.value) and len(str(raised.value)) < 2000


def test_a_file_within_the_limits_is_read_aliases_and_merges_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("attacks: &a [fgsm, {pgd: &p {steps: 3}}]\nx: {again: *a, pgd: {<<: *p, loss: dlr}}\nids: [1, 2]\n")
    attacks = ["fgsm", {"pgd": {"steps": 3}}]
    expected: dict[str, Any] = {"attacks": attacks, "ids": [1, 2]}
    expected["x"] = {"again": attacks, "pgd": {"steps": 3, "loss": "dlr"}}
    assert reading.read(path, {}) == expected
    path.write_text("")
    assert reading.read(path, {"n": 3, "a.b": [1]}) == {"n": 3, "a": {"b": [1]}}
    path.write_text("\ufeff# with a mark of its byte order\ndata: mnist\n")
    assert reading.read(path, {}) == {"data": "mnist"}


def test_files_extend_those_beside_them_and_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("defaults: [mnist_pgd, _self_]\nn: 5\n")
    (tmp_path / "mine.yaml").write_text("defaults: [base, _self_]\nseeds: [3]\n")
    values = reading.read(tmp_path / "mine.yaml", {})
    assert (values["data"], values["n"], values["seeds"]) == ("mnist", 5, [3])


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "broken"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.yaml"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        reading.read(reading.find("grid", str(path)), {})
    (tmp_path / "mine.yaml").write_text("defaults: [x, _self_]\n")
    with pytest.raises(ConfigError, match='extends "x"'):
        reading.read(tmp_path / "mine.yaml", {})


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".yaml", "y/" * 3000 + ".yaml", "~no-such-user/x.yaml", "a\0b.yaml", "", "\0"]
)
def test_names_of_no_grid(name: str) -> None:
    with pytest.raises(ConfigError):
        reading.find("grid", name)


def endless() -> list[Any]:
    held: list[Any] = []
    held.append(held)
    return held


@pytest.mark.parametrize(
    "overrides",
    [
        {"attacks": endless()},
        {"attacks": [[[[["fgsm"] * 30] * 30] * 30] * 30]},
        {"attacks": {1, 2}},
        {"n": object()},
        {"data": "${oc.env:HOME}"},
        {"data": {"${x}": 1}},
        {"attacks": [{"pgd": {"loss": "${"}}]},
        {"": 1},
        {"a..b": 1},
        {"data.x": 1},
        {"n": b"x"},
        {"n": 1j},
        {"data": "???"},
        {"n": np.arange(3)},
    ],
    ids=range(14),  # not their texts: one has an address, another is long
)
def test_overrides_from_python_that_are_no_values(tmp_path: Path, overrides: dict[str, Any]) -> None:
    (tmp_path / "mine.yaml").write_text(GRID)
    with pytest.raises(RobustBenchError):
        read_config(str(tmp_path / "mine.yaml"), overrides)


UNPARSED = {
    "digits": "n=" + "9" * 5000,
    "brackets": "a=" + "[" * 400,
    "closed brackets": "a=" + "[" * 150 + "]" * 150,
    "braces": "a=" + "{a:" * 150 + "1" + "}" * 150,
    "nul": "a=\0",
    "no utf-8": "\udcff=1",
}


@pytest.mark.parametrize("text", UNPARSED.values(), ids=UNPARSED)
def test_an_override_that_cannot_be_parsed_is_quoted_in_short(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(GRID)
    with pytest.raises(ConfigError) as raised:
        reading.read(tmp_path / "mine.yaml", reading.parse([text]))
    assert len(str(raised.value)) < 1000


PIECES = [*"[]{}:,#&*!|>'%@`-?~ \t\n\0", '"', "${", "<<: ", "&a ", "*a ", "!!int ", "- ", ": ", "1e9", ".nan", "9" * 30]
PIECES += [*string.ascii_letters, "\u2028", "\ufeff"]


@pytest.mark.parametrize("seed", range(4))
def test_a_file_with_mistakes_means_something_or_is_an_error(tmp_path: Path, seed: int) -> None:
    """40 files each: pieces of YAML's grammar and letters in random places, lines doubled and lost."""
    random = np.random.default_rng(seed)
    path = tmp_path / "fuzz.yaml"
    refused = 0
    for _ in range(40):
        text = GRID
        for _ in range(random.integers(1, 4)):
            at, length = (int(random.integers(len(text))) for _ in "ab")
            edits = text[:at] + random.choice(PIECES) + text[at:], text[:at] + text[at + length % 9 :]
            text = (*edits, text[:at] + text[at // 2 :])[random.integers(3)]
        path.write_text(text)
        try:
            values = reading.read(path, {})
            assert isinstance(values, dict) and all(isinstance(key, str) for key in values)
            read_config(str(path), {})
        except RobustBenchError:
            refused += 1
    assert refused > 10
