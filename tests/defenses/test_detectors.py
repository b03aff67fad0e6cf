"""The detectors: scores by hand, thresholds, how they are broken by who knows of them, and how a grid makes them."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.config.plugins import find_defense
from robustbench_local.core.defense import Defense, rejection
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import NoTraining, Schedule
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import open_data
from robustbench_local.defenses._detector import Detector, scores
from robustbench_local.defenses.density_detector import Dense, Distant, likeliest_bandwidth
from robustbench_local.defenses.squeeze_detector import log_odds
from robustbench_local.metrics.detection import suspicion
from robustbench_local.metrics.summary import summarise
from robustbench_local.storage.row import Row
from robustbench_local.training.trainer import TrainingLoop

QUICK: dict[str, dict[str, Any]] = {
    "squeeze_detector": {},
    "density_detector": {},
    "kernel": {"density": "kernel", "images": 500},
    "binary_detector": {"threat": "linf:0.3", "images": 200, "steps": 2, "epochs": 1, "width": 2},
}


def trainer(n: int = 1000) -> TrainingLoop:
    images = open_data("mnist", split="train", source="bundled", n=n)
    return TrainingLoop(images, Schedule(validation=10, batch=10), progress=Progress())


def detection(verdict: Verdict) -> dict[str, Any]:
    found: dict[str, Any] = summarise(verdict, "0123456789")["detector"]
    return found


def defense(name: str, **settings: Any) -> Defense:
    return find_defense("density_detector" if name == "kernel" else name, settings or QUICK[name])


def draws() -> Draws:
    return Draws(0, torch.arange(1)).stream("build")


@functools.cache
def made(name: str, **settings: Any) -> Detector:
    detector = defense(name, **settings).build(rbl.load_model("zoo:mnist/none"), trainer(), draws())
    assert isinstance(detector, Detector)
    return detector


@functools.cache
def digits(n: int = 40) -> tuple[Tensor, Tensor]:
    x, y = rbl.load_data("mnist", n=n, source="bundled")
    return x, y


def share_rejected(detector: Detector, first: int = 500, last: int = 1000) -> float:
    x = trainer().images[first:last]
    with torch.no_grad():
        return float((detector(x).argmax(1) == 10).double().mean())


@pytest.mark.parametrize("name", QUICK)
def test_at_most_5_percent_of_training_images_are_rejected(name: str) -> None:
    detector = made(name)
    assert 0.03 <= share_rejected(detector) <= 0.05
    threshold = detector.threshold.clone()
    detector.calibrate(scores(detector, trainer(), torch.arange(500, 1000), draws()), 0.2)  # the broken twin
    assert share_rejected(detector) > 0.05
    detector.calibrate(scores(detector, trainer(), torch.arange(500, 1000), draws()), 0.05)
    torch.testing.assert_close(detector.threshold, threshold)


def test_the_threshold_is_where_it_should_be() -> None:
    detector = Distant(nn.Linear(3, 2))
    for fpr, above in ((0.05, 5), (0.059, 5), (0.0, 0), (0.3, 30)):
        values = torch.randperm(100).float()
        detector.calibrate(values, fpr)
        assert int((values > detector.threshold).sum()) == above
    assert detector.spread == pytest.approx(float(detector.threshold) - 49)
    detector.calibrate(torch.ones(50), 0.05)  # all alike
    assert detector.threshold == 1 and detector.spread == 1


@pytest.mark.parametrize("name", QUICK)
def test_the_last_logit_wins_exactly_above_the_threshold_and_the_others_are_the_networks(name: str) -> None:
    detector, x = made(name), digits()[0]
    noisy = (x + 0.6 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 0.3).clamp(0, 1)
    x = torch.cat([x, noisy])
    with torch.no_grad():
        logits, score = detector(x), detector.measure(x, None)[1]
        assert torch.equal(logits[:, :10], detector.net(x))
    rejected = torch.from_numpy(suspicion(logits.numpy())) > 0
    assert torch.equal(rejected, score > detector.threshold) and rejected.any() and not rejected.all()
    assert torch.equal(logits.argmax(1) == 10, rejected)


@pytest.mark.parametrize("name", QUICK)
def test_the_reject_logit_has_a_gradient(name: str) -> None:
    x = digits(4)[0].clone().requires_grad_()
    (grad,) = torch.autograd.grad(made(name)(x)[:, 10].sum(), x)
    assert grad.isfinite().all() and (grad.flatten(1).abs().amax(1) > 0).all()


def test_squeezing_compares_probabilities_in_log_odds_of_their_distance() -> None:
    generator = torch.Generator().manual_seed(1)
    one, other = (2 * torch.randn(50, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    distance = (one.softmax(1) - other.softmax(1)).abs().sum(1)
    torch.testing.assert_close(log_odds(one, other), (distance / (2 - distance)).log(), atol=1e-4, rtol=1e-4)
    assert log_odds(one, one).isfinite().all() and (log_odds(one, one) < -13).all()
    sure = torch.tensor([[90.0, 0.0], [0.0, 90.0]]).requires_grad_()  # float32: probabilities of 1 and 0
    (grad,) = torch.autograd.grad(log_odds(sure[:1], sure[1:]).sum(), sure)
    (lost,) = torch.autograd.grad((sure[:1].softmax(1) - sure[1:].softmax(1)).abs().sum(), sure)
    assert grad.abs().max() > 0.1 and lost.abs().max() < 1e-6


def test_squeezers_are_the_papers() -> None:
    colour = ["BitDepth(bits=5)", "Median(size=2)", "NonLocalMeans(window=13, patch=3, strength=0.00784"]
    assert find_defense("squeeze_detector", {}).squeezers(3)[2].space == "lab"  # type: ignore[attr-defined]
    for channels, squeezers in ((1, ["BitDepth(bits=1)", "Median(size=2)"]), (3, colour)):
        found = find_defense("squeeze_detector", {}).squeezers(channels)  # type: ignore[attr-defined]
        assert all(str(each).startswith(what) for each, what in zip(found, squeezers, strict=True))
    only = find_defense("squeeze_detector", {"bits": 4, "median": 0, "window": 0})
    assert [str(each) for each in only.squeezers(3)] == ["BitDepth(bits=4)"]  # type: ignore[attr-defined]
    x = digits(5)[0]
    detector = made("squeeze_detector")
    with torch.no_grad():
        odds = [
            log_odds(detector.net(x), detector.net(find_defense(name, settings).apply(x, None)))  # type: ignore[attr-defined]
            for name, settings in (("bit_depth", {"bits": 1}), ("median", {"size": 2}))
        ]
        torch.testing.assert_close(detector.measure(x, None)[1], torch.stack(odds).amax(0))


def test_density_is_the_mahalanobis_distance_from_the_nearest_class() -> None:
    detector = find_defense("density_detector", {"ridge": 1e-9, "images": 500}).build(Wide(), trainer(), draws())
    assert isinstance(detector, Distant)
    images = trainer().images
    x, y = images[:500], images.labels[:500]
    features, new = (block.flatten(1)[:, 402:412].double() for block in (x, images[500:510]))
    means = torch.stack([features[y == k].mean(0) for k in range(10)])
    precision = torch.linalg.inv((features - means[y]).mT @ (features - means[y]) / 500)
    away = new[:, None] - means
    expected = torch.einsum("nkd,de,nke->nk", away, precision, away).amin(1).log()
    with torch.no_grad():
        found = detector.measure(images[500:510], None)[1]
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def kernels(net: nn.Module, images: int = 500) -> Dense:
    detector = defense("kernel", density="kernel", images=images).build(net, trainer(), draws())
    assert isinstance(detector, Dense)
    return detector


def test_kernel_density_is_scikit_learns_for_the_class_that_is_named() -> None:
    detector = kernels(Wide())
    images, width = trainer().images, float(detector.bandwidth)
    features, new = (images[part].flatten(1)[:, 402:412].double() for part in (slice(500), slice(500, 540)))
    y = images.labels[:500]
    with torch.no_grad():
        named = detector.net(images[500:540]).argmax(1)
        found = detector.measure(images[500:540], None)[1]

    def expected(of: Tensor) -> Tensor:
        """By the kernels of each new image's own class; a kernel of scikit-learn's has a peak of (2 pi)^-5 / h^10."""
        peak = -5 * math.log(2 * math.pi) - 10 * math.log(width)
        fits = [KernelDensity(bandwidth=width).fit(features[y == k].numpy()) for k in range(10)]
        logs = [fits[int(k)].score_samples(one[None].numpy())[0] for k, one in zip(of, new, strict=True)]
        return torch.tensor([peak - log for log in logs]).log()

    assert len(named.unique()) > 1
    torch.testing.assert_close(found.double(), expected(named), rtol=1e-3, atol=1e-3)
    assert (found.double() - expected((named + 1) % 10)).abs().max() > 0.1  # the broken twin: of another class


def test_the_bandwidth_makes_each_image_likeliest_by_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    features = torch.randn(120, 3, generator=generator, dtype=torch.float64) + 8 * y[:, None]

    def likelihood(width: float) -> float:
        """scikit-learn's, leaving out one at a time."""
        logs = []
        for k in range(2):
            own = features[y == k].numpy()
            logs += [
                KernelDensity(bandwidth=width).fit(np.delete(own, i, 0)).score_samples(own[i : i + 1])[0]
                for i in range(len(own))
            ]
        return float(np.mean(logs))

    found = likeliest_bandwidth(features, y)
    assert likelihood(found) > max(likelihood(found * 1.2), likelihood(found / 1.2))
    padded = torch.cat([features, features.new_full((120, 5), 3.0)], 1)  # what never varies says nothing
    assert likeliest_bandwidth(padded, y) == pytest.approx(found)


def test_a_class_without_images_has_a_finite_score() -> None:
    detector = kernels(Wide())
    detector.labels[detector.labels == 3] = 4
    x = digits()[0]
    bias = detector.net.get_parameter("last.bias")
    bias.data[3] += 100
    with torch.no_grad():
        out = detector(x)
    assert (out[:, :10].argmax(1) == 3).all() and out.isfinite().all()
    few = kernels(Wide(), images=10_000)  # more places than images: 500 stay empty
    assert int((few.labels >= 0).sum()) == 500


class Wide(nn.Module):
    """A linear network on 10 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x.flatten(1)[:, 402:412])
        return out


@pytest.mark.parametrize("name", ["density_detector", "kernel"])
def test_gradients_of_the_density_agree_with_differences(name: str) -> None:
    detector = defense(name).build(rbl.load_model("zoo:mnist/none"), trainer(), draws()).double()
    x = digits(3)[0].double() * 0.8 + 0.1
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(detector(leaf)[:, 10].sum(), leaf)
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    with torch.no_grad():
        high, low = (detector(x + sign * 1e-7 * way)[:, 10].sum() for sign in (1, -1))
    torch.testing.assert_close((grad * way).sum(), (high - low) / 2e-7, rtol=1e-4, atol=1e-4)


def attacked(name: str, adaptive: bool) -> Verdict:
    if name == "squeeze_detector":  # within l2, since at linf:0.3 no attacker changes what 1 bit makes of a digit
        how: tuple[str, str, dict[str, Any]] = ("apgd", "l2:5", {"loss": "dlr", "steps": 20})
    else:
        how = ("pgd", "linf:0.3", {"loss": "ce", "steps": 40})
    return rbl.evaluate(made(name), *digits(), how[0], how[1], adaptive=adaptive, **how[2])


@pytest.mark.parametrize(
    "name, naive, adaptive", [("squeeze_detector", 0.7, 0.25), ("density_detector", 0.2, 0.05), ("kernel", 0.2, 0.05)]
)
def test_who_knows_of_the_detector_breaks_it(name: str, naive: float, adaptive: float) -> None:
    unaware, aware = (attacked(name, knows) for knows in (False, True))
    assert unaware.clean_accuracy > 0.85
    assert unaware.robust_accuracy > naive and aware.robust_accuracy < adaptive
    seen, broken = detection(unaware), detection(aware)
    assert seen["adversarial"] > 30 and seen["roc_auc"] > 0.85
    assert broken["roc_auc"] < seen["roc_auc"] and broken["detection_rate"] < seen["detection_rate"] - 0.2


@pytest.mark.slow
def test_the_binary_detector_sees_what_it_was_trained_on_and_falls_all_the_same() -> None:
    detector = made("binary_detector", threat="linf:0.3", images=1000, epochs=4)
    unaware, aware = (
        rbl.evaluate(detector, *digits(), "pgd", "linf:0.3", steps=40, adaptive=knows) for knows in (False, True)
    )
    assert unaware.robust_accuracy > 0.8 and aware.robust_accuracy < 0.2
    assert detection(unaware)["roc_auc"] > 0.95


def test_the_network_is_left_as_it_was() -> None:
    net = rbl.load_model("zoo:mnist/none")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for name in QUICK:
        detector = defense(name).build(net, trainer(400), draws())
        detector.train()
        assert not net.training and all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", QUICK)
def test_a_checkpoint_holds_all_that_was_learnt(name: str) -> None:
    again = defense(name).build(rbl.load_model("zoo:mnist/none"), NoTraining(), draws())
    x = digits(4)[0]
    with torch.no_grad():
        assert not torch.equal(again(x), made(name)(x))
        again.load_state_dict(made(name).state_dict())
        torch.testing.assert_close(again(x), made(name)(x))


def test_it_goes_around_wrapped_and_random_networks() -> None:
    net: nn.Module = rbl.load_model("zoo:mnist/none")
    chain = find_defense("jpeg", {}).build(net, None, draws())  # type: ignore[arg-type]
    detector = find_defense("density_detector", {}).build(chain, trainer(400), draws())
    assert detector.undefended() is net and rejection(detector).value == "detection"  # type: ignore[operator]
    random = find_defense("noise_fusion", {"amplitude": 0.1, "training": False}).build(net, None, draws())  # type: ignore[arg-type]
    detector = find_defense("squeeze_detector", {}).build(random, trainer(400), draws())
    mine = Draws(0, torch.arange(3))
    assert torch.equal(detector(digits(3)[0], mine), detector(digits(3)[0], mine))
    verdict = rbl.evaluate(detector, *digits(10), "pgd", "linf:0.2", steps=3, eot=2, draws=4)
    assert verdict.bits is not None and verdict.detects and verdict.scores.shape == (10, 11)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("squeeze_detector", {"fpr": 0.9}, "fpr is 0.9"),
        ("squeeze_detector", {"bits": 9}, "bits is 9"),
        ("density_detector", {"ridge": 0.0}, "ridge is 0"),
        ("density_detector", {"density": "gaussian"}, "mahalanobis or kernel"),
        ("binary_detector", {"threat": "l0:3"}, "threat is l0:3"),
        ("binary_detector", {"steps": 0}, "steps is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_defense(name, settings)


def test_networks_that_cannot_be_watched_are_refused() -> None:
    density: Defense = find_defense("density_detector", {})
    with pytest.raises(ConfigError, match="no linear layer"):
        density.build(nn.Flatten(), trainer(100), draws())
    with pytest.raises(ConfigError, match="rejects images already"):
        density.build(made("squeeze_detector"), trainer(100), draws())


def test_a_grid_makes_detectors_and_keeps_what_they_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))

    def grid(**more: Any) -> list[Row]:
        return rbl.run_grid(
            "quickstart",
            n=12,
            results=str(tmp_path),
            data="mnist",
            source="bundled",
            models=["zoo:mnist/none"],
            threats=["linf:0.2"],
            defenses=["none", "density_detector", ["jpeg", "density_detector"]],
            attacks=[{"pgd": {"steps": 3}}],
            adaptive=[False, True],
            **more,
        )

    assert [row["status"] for row in grid(dry_run=True)] == ["to do"] + 4 * ["must train"]
    rows = grid()
    assert [row["status"] for row in rows] == 5 * ["ok"]
    assert [row["definition"]["defense"] for row in rows] == ["none"] + 2 * ["density_detector"] + 2 * [
        "jpeg + density_detector"
    ]
    assert ["detector" in row["results"] for row in rows] == [False] + 4 * [True]
    assert set(rows[1]["results"]["detector"]) == {"adversarial", "detection_rate", "roc_auc", "false_positive_rate"}
    assert len({row["definition"]["weights_digest"] for row in rows[1:3]}) == 1
    files = sorted(path.name for path in tmp_path.rglob("fitted/*"))
    assert len(files) == 1  # the same detector inside the JPEG
    assert [row["status"] for row in grid(dry_run=True)] == 5 * ["done"]
