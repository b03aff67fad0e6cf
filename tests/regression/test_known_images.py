"""Adversarial images that are kept for later models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_local.core.errors import StoreError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.regression.known_images import KnownImages, every, read, write

THREAT = ThreatModel.parse("linf:0.03")


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(20, 3, 8, 8, generator=generator)
    x_adv = (x + 0.03 * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    return x, x_adv


def test_images_come_back_as_they_were_in_any_order_and_company() -> None:
    x, x_adv = images()
    known = KnownImages.of(x[:10], x_adv[:10])
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)).eval()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    verdict = evaluate(net, x[order], net(x)[order].argmax(1), known.attack(), THREAT, allow_chance=True)
    expected = torch.where((order < 10)[:, None, None, None], x_adv[order], x[order])
    assert float((verdict.x_adv - expected).abs().max()) <= 0.03 / 32767
    assert verdict.forwards.sum() == 0 and not verdict.flags


def test_a_file_holds_the_images_of_several_checks(tmp_path: Path) -> None:
    x, x_adv = images()
    one, two = KnownImages.of(x[:3], x_adv[:3]), KnownImages.of(x[3:5], x_adv[3:5])
    none = KnownImages.of(x[:0], x_adv[:0])
    file = tmp_path / "lock.images.npz"
    write(file, {"two | b": two, "one": one, "none": none})
    found = every(file)
    assert {name: each.digest for name, each in found.items()} == {
        "one": one.digest,
        "two | b": two.digest,
        "none": none.digest,
    }
    assert read(file, "three") is None and read(tmp_path / "absent.npz", "one") is None and every(tmp_path / "no") == {}
    assert replace(one, scale=one.scale * np.float32(1.001)).digest != one.digest


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    x, x_adv = images()
    file = tmp_path / "lock.images.npz"
    write(file, {"one": KnownImages.of(x, x_adv)})
    content = file.read_bytes()
    for damaged in (content[:-40], b"", b"no zip at all", content[:200] + b"\0" * 50 + content[250:]):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match="version control, or write it anew"):
            read(file, "one")
