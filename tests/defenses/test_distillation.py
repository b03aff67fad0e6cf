from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustbench_local.core import losses
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import Schedule
from robustbench_local.data.images import Images
from robustbench_local.defenses.distillation import Distillation, Student, Tempered
from robustbench_local.defenses.none import Undefended
from robustbench_local.models.build import build_model
from robustbench_local.training.trainer import TrainingLoop
from tests.helpers.tiny_training import Killed, Lines, digits, fit

PLAN = Schedule(epochs=8, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100)


def built(temperature: float, images: Images, plan: Schedule = PLAN, **more: Any) -> tuple[nn.Module, TrainingLoop]:
    trainer = TrainingLoop(images, plan, progress=more.pop("progress", Progress()), **more)
    net = build_model("fast_cnn", seed=0)
    return Distillation(temperature).build(net, trainer, Draws(0, images.ids[:1]).stream("train")), trainer


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    images = digits(1000)
    plain, _ = fit(Undefended(), PLAN, images=images, net=build_model("fast_cnn", seed=0))
    return {"plain": plain, "distilled": built(30.0, images)[0]}


def test_the_losses_are_cross_entropies_at_the_temperature() -> None:
    x, y, draws = digits(20)[:], digits(20).labels, Draws(0, torch.arange(20))
    teacher, student = build_model("fast_cnn", seed=1), build_model("fast_cnn", seed=2)
    soft = torch.softmax(teacher(x) / 5, 1)
    by_hand = -(soft * torch.log_softmax(student(x) / 5, 1)).sum(1).mean()
    torch.testing.assert_close(Student(5.0, teacher).loss(student, x, y, draws), by_hand)
    torch.testing.assert_close(Tempered(5.0).loss(student, x, y, draws), F.cross_entropy(student(x) / 5, y))
    Student(5.0, teacher).loss(student, x, y, draws).backward()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_the_student_is_as_good_and_its_logits_are_large(models: dict[str, nn.Module]) -> None:
    test = digits(300, "test")
    with torch.no_grad():
        logits = {name: model(test[:]) for name, model in models.items()}
    accuracy = {name: (each.argmax(1) == test.labels).double().mean() for name, each in logits.items()}
    assert accuracy["distilled"] > 0.85 and accuracy["distilled"] > accuracy["plain"] - 0.06
    assert logits["distilled"].abs().mean() > 5 * logits["plain"].abs().mean()


def test_cross_entropy_finds_no_gradient_where_the_margin_does(models: dict[str, nn.Module]) -> None:
    """Carlini and Wagner 2016: the softmax of the deployed student is saturated in float32."""
    test = digits(200, "test")
    x = test[:].requires_grad_()
    flat = {}
    for name, model in models.items():
        for loss in (losses.ce, losses.margin):
            (slope,) = torch.autograd.grad(loss(model(x), test.labels).sum(), x)
            flat[name, loss.__name__] = (slope.flatten(1).abs().amax(1) < 1e-12).double().mean().item()
    assert flat["distilled", "ce"] > 0.3 > 0.05 > flat["plain", "ce"]
    assert flat["distilled", "margin"] == flat["plain", "margin"] == 0


def test_an_interrupted_distillation_goes_on_with_the_same_teacher(tmp_path: Path) -> None:
    plan = Schedule(epochs=2, batch=50, optimizer="adam", lr=3e-3, validation=50)
    images = digits(300)
    whole, _ = built(10.0, images, plan)

    class InTheStudent(Killed):
        """Dies in the second training's second epoch."""

        def advance(self, what: str, share: float) -> None:
            self.first = getattr(self, "first", 0) + (what == "epoch 1/2" and share == 0)
            if self.first == 2:
                super().advance(what, share)

    with pytest.raises(KeyboardInterrupt):
        built(10.0, images, plan, folder=tmp_path, progress=InTheStudent(epoch=2))
    progress = Lines()
    resumed, trainer = built(10.0, images, plan, folder=tmp_path, progress=progress)
    assert [line for line in progress.lines if "resumed" in line] == [
        "resumed after epoch 2 of 2",
        "resumed after epoch 1 of 2",
    ]
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert trainer.minutes > 0


@pytest.mark.parametrize("temperature", [0.0, -3.0])
def test_a_temperature_that_means_nothing_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=f"temperature is {temperature}"):
        Distillation(temperature)
