"""One change for all images: the universal perturbation and the patch, both fitted on images of the attacker's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks import patch as patches
from robustbench_local.attacks import universal
from robustbench_local.attacks.patch import Patch
from robustbench_local.attacks.universal import Universal
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ConfigError, ThreatError
from robustbench_local.core.losses import Loss
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model

LINF, FREE = ThreatModel.parse("linf:0.05"), ThreatModel.parse("none")
SMALL: dict[str, Any] = dict(images=20, epochs=10, batch=8)
ATTACKS: list[tuple[Attack, ThreatModel]] = [
    (Universal(**SMALL), LINF),
    (Universal(**SMALL), ThreatModel.parse("l2:0.5")),
    (Universal(**SMALL, target=1), LINF),
    (Patch(side=2, **SMALL), FREE),
    (Patch(side=2, place=(1, 3), **SMALL), ThreatModel.parse("l0:4")),
]


def network(channels: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (
            nn.Sequential(nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, 4))
            .eval()
            .requires_grad_(False)
        )


def images(count: int, seed: int, channels: int = 3, dtype: torch.dtype = torch.float64) -> Tensors:
    """Random images, many pixels of which are 0 or 1, as the network sees them."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(count, channels, 8, 8, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1).to(dtype)
    return Tensors(x, network(channels).to(dtype)(x).argmax(1), 100 * seed + torch.arange(count))


# what is known


def linear(slope: Tensor) -> nn.Module:
    """Class 1 where slope . (x - 1/2) > 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(slope.numel(), 2))
    model[1].weight.data = torch.stack([torch.zeros(slope.numel()), slope.flatten()])
    model[1].bias.data = torch.stack([torch.zeros(()), -0.5 * slope.sum()])
    return model


def at(distance: Tensor, slope: Tensor, dual: float, seed: int) -> Tensor:
    """Images (M, 1, 4, 4) of class 0, far from the box, at these distances from the boundary."""
    flat = 0.5 + 0.01 * torch.randn(len(distance), 16, generator=torch.Generator().manual_seed(seed))
    missing = -distance * slope.norm(p=dual) - (flat - 0.5) @ slope
    x: Tensor = (flat + missing[:, None] * slope / slope.square().sum()).view(-1, 1, 4, 4)
    return x


def breaks_exactly_the_near(attack: Attack, threat: ThreatModel) -> bool:
    """Where all images are of one class of a linear model, the best change of each is the best for all."""
    slope = torch.randn(16, generator=torch.Generator().manual_seed(0))
    dual = 1.0 if threat.norm == "linf" else 2.0
    distance = threat.eps * torch.cat([torch.linspace(0.3, 0.99, 30), torch.linspace(1.01, 1.7, 30)])
    judged, own = at(distance, slope, dual, 1), at(distance.mean().expand(20), slope, dual, 2)
    zeros = torch.zeros(60, dtype=torch.int64)
    verdict = evaluate(linear(slope), judged, zeros, attack, threat, attacker=(own, zeros[:20]))
    assert verdict.clean.all()
    return torch.equal(verdict.robust, distance > threat.eps)


@pytest.mark.parametrize("threat", ["linf:0.05", "l2:0.2"])
@pytest.mark.parametrize("target", [None, 1])
def test_the_best_change_of_one_class_is_found(threat: str, target: int | None) -> None:
    ball = ThreatModel.parse(threat)
    assert breaks_exactly_the_near(Universal(**SMALL | {"epochs": 40}, target=target), ball)


class WrongSign(ThreatModel):
    def steepest(self, grad: Tensor, x_adv: Tensor, x: Tensor, sparsity: float = 0.01) -> Tensor:
        return -super().steepest(grad, x_adv, x, sparsity)


class NoStep(ThreatModel):
    def steepest(self, grad: Tensor, x_adv: Tensor, x: Tensor, sparsity: float = 0.01) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("broken", [WrongSign, NoStep])
def test_broken_twins_are_caught(broken: type[ThreatModel]) -> None:
    for threat in (broken.parse("linf:0.05"), broken.parse("l2:0.2")):
        assert not breaks_exactly_the_near(Universal(**SMALL | {"epochs": 40}), threat)
    assert not breaks_exactly_the_near(Universal(**SMALL | {"epochs": 40}, target=0), LINF)


def fitted_patch(attack: Patch, slope: Tensor) -> Tensor:
    """What was pasted onto one image of a linear model."""
    x = torch.full((20, 1, 4, 4), 0.4)
    zeros = torch.zeros(20, dtype=torch.int64)
    judged, model = torch.full((1, 1, 4, 4), 0.41), linear(slope)
    verdict = evaluate(model, judged, model(judged).argmax(1), attack, FREE, attacker=(x, zeros))
    return verdict.x_adv - judged


def finds_the_best_patch() -> bool:
    """At a place: white where the slope rises, black where it falls."""
    slope = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    slope -= slope.abs().sum() / 4  # the judged image is of class 0
    slope[1, 2:] = torch.tensor([0.3, 0.1])
    changed = fitted_patch(Patch(side=2, place=(1, 2), **SMALL), slope)[0, 0]
    expected = torch.zeros(4, 4)
    expected[1:3, 2:] = torch.where(slope[1:3, 2:] > 0, 0.59, -0.41)
    return torch.allclose(changed, expected, atol=1e-6)


@pytest.mark.parametrize("factor", [0, -1])
def test_broken_twins_of_a_patch_are_caught(factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step, and the wrong sign."""
    assert finds_the_best_patch()
    whole = Oracle.grad

    def twisted(oracle: Oracle, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        value, grad, logits = whole(oracle, x, y, loss)
        return value, factor * grad, logits

    monkeypatch.setattr(Oracle, "grad", twisted)
    assert not finds_the_best_patch()


def test_the_best_patch_of_one_class_is_found() -> None:
    """At a place, and anywhere, of one slope: white."""
    assert finds_the_best_patch()
    rising = torch.full((4, 4), 0.5)
    anywhere = fitted_patch(Patch(side=2, **SMALL), rising)[0, 0]
    assert (anywhere > 0.58).sum() == 4 and (anywhere == 0).sum() == 12
    assert not torch.allclose(fitted_patch(Patch(side=2, target=0, **SMALL), rising), anywhere)  # the other way


def test_places_are_spread_over_the_whole_image() -> None:
    x = torch.zeros(4000, 2, 5, 7)
    where = patches.square(x, 3, None, Draws(0, torch.arange(4000)))
    assert x[where].shape == (4000, 3, 3, 2)
    x_adv = patches.pasted(x, torch.ones(1, 2, 3, 3), where)
    assert (x_adv.sum((2, 3)) == 9).all()
    corners = x_adv[:, 0].flatten(1).argmax(1)
    counts = torch.stack([(corners == 7 * row + column).sum() for row in range(3) for column in range(5)])
    assert counts.sum() == 4000 and counts.min() > 200 and counts.max() < 340
    mark = torch.arange(18.0).view(1, 2, 3, 3)
    fixed = patches.pasted(x[:1], mark, patches.square(x[:1], 3, (2, 4), Draws(0, torch.arange(1))))
    assert torch.equal(fixed[:, :, 2:, 4:], mark) and fixed.count_nonzero() == 17


# what must not matter


@pytest.mark.parametrize(("attack", "threat"), ATTACKS, ids=lambda value: str(value).replace(" ", ""))
def test_in_float64_batches_and_order_change_nothing(attack: Attack, threat: ThreatModel) -> None:
    model, data, pool = network().double(), images(24, 1), images(60, 2)
    before = data.x.clone()
    whole = Judge(precision="float64")(model, data, attack, threat, attacker=pool)
    assert torch.equal(data.x, before)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    for size, rows in ((1, torch.arange(24)), (7, order)):
        part = Judge(precision="float64", batch_size=size)(
            model, Tensors(data.x[rows], data.labels[rows], data.ids[rows]), attack, threat, attacker=pool
        )
        assert torch.equal(part.robust, whole.robust[rows])
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("attack", "threat"), ATTACKS, ids=lambda value: str(value).replace(" ", ""))
def test_the_cost_is_paid_before(attack: Attack, threat: ThreatModel) -> None:
    data, pool = images(24, 1, dtype=torch.float32), images(60, 2, dtype=torch.float32)
    verdict = Judge()(network(), data, attack, threat, attacker=pool)
    assert verdict.prepared_forwards == verdict.prepared_backwards == 20 * 10
    assert attack.prepare_cost(4) == (200, 200)
    assert attack.cost(4) == (0, 0) and not verdict.forwards.any() and not verdict.backwards.any()
    short = Judge(budget=3)(network(), data, attack, threat, attacker=pool)
    assert short.prepared_forwards == 20 * 3


@pytest.mark.parametrize("threat", ["linf:0.3", "linf:0", "l2:2", "l0:9", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_they_stay_in_ball_and_box(threat: str, channels: int) -> None:
    ball = ThreatModel.parse(threat)
    data, pool = (images(30, seed, channels, torch.float32) for seed in (1, 2))
    attack: Attack = Universal(**SMALL) if ball.norm in Universal.norms else Patch(side=3, **SMALL)
    verdict = Judge()(network(channels), data, attack, ball, attacker=pool)
    assert ball.contains(verdict.x_adv, data.x).all() and verdict.flags == ()
    if isinstance(attack, Patch):
        assert ((verdict.x_adv != data.x).any(1).flatten(1).sum(1) <= 9).all()


def test_without_gradients_they_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    data, pool = (images(30, seed, dtype=torch.float32) for seed in (1, 2))
    for attack, threat in ATTACKS:
        with monkeypatch.context() as patch:
            patch.setattr(type(attack), "access", Access.SCORES)
            patch.setattr(universal.Fitted, "access", Access.NONE)
            patch.setattr(patches.Fitted, "access", Access.NONE)
            with pytest.raises(AccessError, match="asked for gradients"):
                Judge()(network(), data, attack, threat, attacker=pool)


def test_towards_a_target() -> None:
    data, pool = (images(30, seed, dtype=torch.float32) for seed in (1, 2))
    keep = data.labels != 1
    data = Tensors(data.x[keep], data.labels[keep], data.ids[keep])
    goal = torch.ones(len(data), dtype=torch.int64)
    for attack, threat in (
        (Universal(**SMALL, target=1), ThreatModel.parse("linf:0.3")),
        (Patch(side=5, **SMALL, target=1), FREE),
    ):
        verdict = Judge(targets=goal)(network(), data, attack, threat, attacker=pool)
        assert verdict.robust_accuracy < 0.5
    with pytest.raises(ConfigError, match="give the one `target`"):
        Judge(targets=goal)(network(), data, Universal(**SMALL), LINF, attacker=pool)


def test_what_makes_no_sense_is_refused() -> None:
    make: list[tuple[Callable[[], Attack], str]] = [
        (lambda: Universal(images=0), "images is 0"),
        (lambda: Universal(clip=0.0), "clip is 0"),
        (lambda: Universal(step_size=-1.0), "step_size is -1"),
        (lambda: Patch(side=0), "side is 0"),
        (lambda: Patch(step_size=0.0), "step_size is 0"),
        (lambda: Patch(place=(1,)), r"place is \[1\]"),
    ]
    for made, said in make:
        with pytest.raises(ConfigError, match=said):
            made()
    data, pool = (images(30, seed, dtype=torch.float32) for seed in (1, 2))
    runs: list[tuple[Attack, str, str]] = [
        (Patch(side=9, **SMALL), "none", "side 9"),
        (Patch(side=3, place=(6, 0), **SMALL), "none", r"at \[6, 0\]"),
        (Patch(side=3, **SMALL), "l0:8", "has 9 pixels, and l0:8 allows fewer"),
    ]
    for attack, threat, said in runs:
        with pytest.raises(ConfigError, match=said):
            Judge()(network(), data, attack, ThreatModel.parse(threat), attacker=pool)
    with pytest.raises(ThreatError, match="does not know the norm"):
        Judge()(network(), data, Patch(), LINF, attacker=pool)


def test_on_digits_one_change_fells_most(record_property: Callable[[str, object], None]) -> None:
    x, y = load_data("mnist", n=100, source="bundled")
    own = load_data("mnist", split="train", source="bundled")
    model = load_model("zoo:mnist/none")
    uap = evaluate(model, x, y, Universal(images=200, epochs=8, batch=25), "linf:0.3", attacker=own)
    noise = evaluate(model, x, y, "noise", "linf:0.3")
    square = evaluate(model, x, y, Patch(side=8, images=200, epochs=8, batch=25), "none", attacker=own)
    record_property("universal, noise, patch", (uap.robust_accuracy, noise.robust_accuracy, square.robust_accuracy))
    assert uap.robust_accuracy < 0.4 and noise.robust_accuracy > 0.9
    assert square.robust_accuracy < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("source", ["mnist/none", "mnist/adversarial_training"])
def test_one_change_leaves_no_more_robust_than_arts(
    source: str, record_property: Callable[[str, object], None]
) -> None:
    """Each fitted on 200 training images, in as many epochs, and tried on 300 test images."""
    attacks = pytest.importorskip("art.attacks.evasion")
    wrapper = pytest.importorskip("art.estimators.classification").PyTorchClassifier
    model, eps, epochs = load_model(f"zoo:{source}"), 0.3, 10
    x, y = load_data("mnist", n=300, source="bundled")
    own_x, own_y = (part[:200] for part in load_data("mnist", split="train", source="bundled"))
    classifier = wrapper(model, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0.0, 1.0), device_type="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)
        fitted = attacks.UniversalPerturbation(
            classifier, attacker="fgsm", delta=0.01, max_iter=epochs, eps=eps, batch_size=25, verbose=False
        )
        fitted.generate(own_x.numpy(), own_y.numpy())
    with torch.no_grad():
        robust = model((x + torch.from_numpy(fitted.noise)).clamp(0, 1).float()).argmax(1) == y
    theirs = robust.double().mean().item()
    attack = Universal(images=200, epochs=epochs, batch=25)
    ours = evaluate(model, x, y, attack, f"linf:{eps}", attacker=(own_x, own_y)).robust_accuracy
    record_property("robust after ours, after theirs", (ours, theirs))
    assert ours <= theirs + 0.005
