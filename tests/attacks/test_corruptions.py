"""What holds for every corruption: the same noise in any company, 256 levels, five severities; and its verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from benchmarks._published import RENDERINGS
from robustbench_local.config.plugins import ATTACKS, find_attack, listing
from robustbench_local.core.access import Access
from robustbench_local.core.corruption import SEVERITIES, Corruption
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, PluginError, ThreatError
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.corrupted_images import CorruptedImages, CorruptionSpec
from robustbench_local.evaluation.evaluate import Tensors, evaluate, named_by_content
from robustbench_local.evaluation.judge import Judge
from robustbench_local.metrics.summary import summarise
from robustbench_local.models.load import load_model
from tests.helpers.wrapping import digits, photos

NONE = ThreatModel.parse("none")
CORRUPTIONS = {
    row.name: attack
    for row in listing(ATTACKS)
    if "severity" in row.settings and isinstance(attack := find_attack(row.name), Corruption)
}
# their published constants do not all rise, or the formula changes on the way, or the image is soon lost from sight
UNEVEN = {
    "glass_blur",
    "elastic_transform",
    "frost",
    "saturate",
    "spatter",
    "mnist_spatter",
    "mnist_fog",
    "mnist_glass_blur",
    "canny_edges",
}


def each(x: Tensor, seed: int = 0) -> Draws:
    return Draws(seed, torch.arange(len(x)), dtype=x.dtype)


def test_the_published_sets_are_whole() -> None:
    sets: dict[str, set[str]] = {}
    for name, attack in CORRUPTIONS.items():
        sets.setdefault(attack.benchmark, set()).add(name)
    assert sets["CIFAR-10-C"] == {
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
        "frost",
        "fog",
        "brightness",
        "contrast",
        "elastic_transform",
        "pixelate",
        "jpeg_compression",
    }
    assert sets["CIFAR-10-C extra"] == {"speckle_noise", "gaussian_blur", "saturate", "spatter"}
    assert len(sets["MNIST-C"]) == 15 and len(sets[""]) >= 12
    assert RENDERINGS.keys() == CORRUPTIONS.keys() - sets[""]  # each is compared with its published formula
    for attack in CORRUPTIONS.values():
        assert attack.access is Access.NONE and attack.norms == {Norm.NONE} and len(attack.levels) == len(SEVERITIES)
        assert attack.summary and (attack.paper or not attack.benchmark)
    assert all("generated" in CORRUPTIONS[name].summary for name in ("frost", "snow"))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_company_order_and_repetition_change_no_pixel(name: str) -> None:
    x = photos(8).double()
    corruption = replace(CORRUPTIONS[name], severity=4)
    kept = x.clone()
    whole = corruption.apply(x, each(x))
    assert torch.equal(x, kept) and torch.equal(corruption.apply(x, each(x)), whole)
    rows = torch.tensor([3, 0, 4])
    assert torch.equal(corruption.apply(x[rows], each(x)[rows]), whole[rows])
    same = corruption.apply(x[:1].repeat(8, 1, 1, 1), each(x))
    drawn = any(not torch.equal(same[0], image) for image in same[1:])
    other = corruption.apply(x, each(x, seed=1))
    assert drawn is not torch.equal(other, whole)  # each image its own draws, or none at all


class ByBatch(type(CORRUPTIONS["gaussian_noise"])):  # type: ignore[misc]
    """A broken twin: its noise belongs to the place in the batch."""

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return super().corrupt(x, Draws(0, torch.arange(len(x)), dtype=x.dtype))  # type: ignore[no-any-return]


def test_noise_of_the_batch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORRUPTIONS, "gaussian_noise", ByBatch())
    with pytest.raises(AssertionError):
        test_company_order_and_repetition_change_no_pixel("gaussian_noise")


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (2, 3, 40, 56), (2, 1, 64, 64)])
def test_images_of_any_size_stay_images_of_256_levels(name: str, shape: tuple[int, ...]) -> None:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(1))
    x[0] = 0  # black all over
    x = x.contiguous(memory_format=torch.channels_last)
    for severity in (1, 5):
        found = replace(CORRUPTIONS[name], severity=severity).apply(x, each(x))
        assert found.shape == x.shape and found.dtype == x.dtype and not found.isnan().any()
        assert found.min() >= 0 and found.max() <= 1
        assert torch.allclose(found * 255, (found * 255).round(), atol=1e-4)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_goes_further(name: str) -> None:
    x = photos(30)
    corruption = CORRUPTIONS[name]
    far = []
    for severity in SEVERITIES:
        found = replace(corruption, severity=severity).apply(x, each(x))
        far.append(float((found - x).flatten(1).norm(dim=1).mean()))
    rises = all(b > a - 0.002 for a, b in pairwise(far))
    assert far[0] > 0.05 and rises is (name not in UNEVEN), far


def test_what_nobody_can_mean_is_refused() -> None:
    for severity in (0, 6):
        with pytest.raises(ConfigError, match=f"severity is {severity}.*1 .. 5"):
            find_attack("fog", {"severity": severity})
    with pytest.raises(ConfigError, match="1 or 3 channels, these have 2"):
        find_attack("fog").apply(torch.rand(1, 2, 8, 8), each(torch.rand(1)))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="amplitude is -1"):
        find_attack("plain_noise", {"amplitude": -1})
    model, x = load_model("zoo:mnist/none"), digits(4)
    y = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ThreatError, match="knows none"):
        evaluate(model, x, y, "fog", "linf:0.1")
    with pytest.raises(ConfigError, match="aims at no class"):
        evaluate(model, x, y, "fog", "none", targets="random")
    for text, error, words in (
        ("fgo:3", PluginError, 'did you mean "fog"'),
        ("fog:x", ConfigError, "fog:3"),
        ("fog:9", ConfigError, "severity is 9"),
        ("pgd", (ConfigError, PluginError), "pgd"),
    ):
        with pytest.raises(error, match=words):
            evaluate(model, x, y, "fgsm", "linf:0.1", attack_under=text)


class Dark(nn.Module):
    """Class 1 where the image is darker on average than `limit`, else class 0."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        light = x.flatten(1).mean(1) - self.limit
        return torch.stack([light, -light], 1)


@dataclass(frozen=True)
class Brighter(Corruption):
    levels: ClassVar[tuple[Any, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        brighter: Tensor = x + self.level
        return brighter


def grey(*levels: float) -> Tensors:
    x = torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return Tensors(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x)))


def test_corruption_accuracy_counts_what_the_clean_image_was_not() -> None:
    """Of class 0 is what is brighter than 0.5: one is right before and after, one only after, one never."""
    data = grey(0.7, 0.4, 0.1)
    verdict = Judge()(Dark(0.5), data, Brighter(severity=2), NONE)
    assert verdict.clean.tolist() == [True, False, False] and verdict.robust.tolist() == [True, False, False]
    assert verdict.corrupted is not None and verdict.corrupted.tolist() == [True, True, False]
    assert verdict.corruption_accuracy == pytest.approx(2 / 3) and not verdict.flags
    results = summarise(verdict, ["bright", "dark"])
    assert results["corruption_accuracy"] == pytest.approx(2 / 3) and results["corruption_interval"][0] < 2 / 3
    attacked = Judge()(Dark(0.5), data, find_attack("noise"), ThreatModel.parse("linf:0.01"))
    assert attacked.corruption_accuracy is None and "corruption_accuracy" not in summarise(attacked, ["b", "d"])


def test_an_attack_under_a_corruption_starts_from_the_corrupted_images() -> None:
    x, y = photos(12), torch.zeros(12, dtype=torch.int64)
    data = named_by_content(x, y)
    seen = CorruptedImages(data, CorruptionSpec.parse("gaussian_noise:5"))
    threat = ThreatModel.parse("linf:2/255")
    verdict = Judge(seed=3, attack_under="gaussian_noise:5")(Dark(0.5), data, find_attack("fgsm"), threat)
    assert torch.equal(verdict.clean, Dark(0.5)(seen[:]).argmax(1) == 0)
    assert threat.contains(verdict.x_adv, seen[:]).all() and not threat.contains(verdict.x_adv, x).any()
    rows = torch.tensor([7, 2])
    assert torch.equal(seen[rows], seen[:][rows])  # in any company
    again = evaluate(Dark(0.5), x, y, "fgsm", "linf:2/255", seed=3, attack_under="gaussian_noise:5", batch_size=5)
    assert torch.equal(again.robust, verdict.robust) and torch.equal(again.x_adv, verdict.x_adv)
    assert str(CorruptionSpec.parse("fog")) == "fog:3"
