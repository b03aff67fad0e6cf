"""Models that are at chance on clean images are refused with the likely reason, and cautions name lost accuracy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.cli.main import main
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.errors import ModelError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.chance import CleanScore, better_order, ranges
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.architectures import normalised
from robustbench_local.models.build import build_model
from robustbench_local.models.load import load_model

DIGITS, Y = load_data("mnist", n=64, source="bundled")
COLOUR, KINDS = load_data("cifar10", n=64, source="bundled")
NET, COLOUR_NET = load_model("zoo:mnist/none"), load_model("zoo:cifar10/none")
MNIST = (0.1307,), (0.3081,)
CIFAR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Behind(nn.Module):
    """A good network behind a change of its pixels, or of its answers."""

    def __init__(
        self,
        pixels: Callable[[Tensor], Tensor] = lambda x: x,
        answers: Callable[[Tensor], Tensor] = lambda z: z,
        net: nn.Module = NET,
    ) -> None:
        super().__init__()
        self.net, self.pixels, self.answers = net, pixels, answers

    def forward(self, x: Tensor) -> Tensor:
        return self.answers(self.net(self.pixels(x)))


def refused(model: nn.Module, x: Tensor = DIGITS, y: Tensor = Y) -> str:
    with pytest.raises(ModelError, match=r"right on \d+ of \d+ clean images") as caught:
        evaluate(model, x, y, "fgsm", "linf:0.05")
    text = str(caught.value)
    assert "allow_chance=true goes on" in text
    return text


REASONS: dict[str, tuple[nn.Module, str]] = {
    "0..255": (Behind(lambda x: x / 255), r"with pixels in [0, 255] it would be 100.0 %. Wrap it, robustbench_local."),
    "rolled": (Behind(answers=lambda z: z.roll(1, 1)), "with its classes rolled by -1 it would be 100.0 %. Its"),
    "shuffled": (Behind(answers=lambda z: z[:, [5, 3, 8, 0, 9, 1, 2, 4, 7, 6]]), "its classes in another order"),
    "constant": (Behind(answers=lambda z: 0 * z + torch.arange(10.0)), "as fresh weights would be"),
    "fresh": (build_model("fast_cnn", seed=3).eval(), "as fresh weights would be: no other range"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_at_chance_is_refused_with_the_reason(reason: str) -> None:
    model, says = REASONS[reason]
    assert says in refused(model)


def test_allowed_it_goes_on_and_every_number_has_its_caution() -> None:
    model = REASONS["0..255"][0]
    verdict = evaluate(model, DIGITS, Y, "fgsm", "linf:0.05", allow_chance=True)
    assert "at_chance" in verdict.flags and verdict.clean_accuracy < 0.2
    images = Tensors(DIGITS, Y, torch.arange(64))
    attack, ball = find_attack("fgsm"), ThreatModel.parse("linf:0.05")
    assert "at_chance" not in Judge()(model, images, attack, ball).flags  # nobody looked
    with pytest.raises(ModelError, match="allow_chance"):
        Judge(allow_chance=False)(model, images, attack, ball)


LOWERED: dict[str, tuple[nn.Module, str]] = {
    "[-1, 1]": (Behind(lambda x: (x + 1) / 2, net=COLOUR_NET), "pixels in [-1, 1]"),
    "normalised twice": (normalised(COLOUR_NET, *CIFAR), "normalisation (CIFAR-10's) undone"),
    "BGR": (Behind(lambda x: x.flip(1), net=COLOUR_NET), "BGR"),
}


@pytest.mark.parametrize("reason", LOWERED)
def test_what_other_pixels_would_give_is_a_caution_or_the_reason(reason: str) -> None:
    """Whichever of the two, by how much is lost; the audit's own check finds the same."""
    model, name = LOWERED[reason]
    verdict = evaluate(model, COLOUR, KINDS, "fgsm", "linf:0.01", allow_chance=True)
    assert {"input_range", "at_chance"} & set(verdict.flags), verdict.clean_accuracy
    assert any(name in each for each, _, _ in ranges(COLOUR))


def test_good_models_and_handfuls_have_no_caution() -> None:
    for model, x, y in ((NET, DIGITS, Y), (COLOUR_NET, COLOUR, KINDS)):
        assert evaluate(model, x, y, "fgsm", "linf:0.01").flags == ()
    for count in (1, 5, 15):  # all wrong, and too few to say so
        evaluate(NET, DIGITS[:count], (Y[:count] + 1) % 10, "fgsm", "linf:0.01")
    weak = load_model("zoo:cifar10/adversarial_training")
    assert evaluate(weak, COLOUR, KINDS, "fgsm", "linf:0.01").flags == ()
    one_class = DIGITS[Y == 7]
    few = one_class.repeat(4, 1, 1, 1)[:20]
    evaluate(NET, few, torch.full((20,), 7), "fgsm", "linf:0.01")  # right on all of one class is no chance


def test_under_a_corruption_the_images_before_it_decide() -> None:
    verdict = evaluate(NET, DIGITS, Y, "fgsm", "linf:0.01", attack_under="contrast:5")
    assert "at_chance" not in verdict.flags
    with pytest.raises(ModelError, match=r"\[0, 255\]"):
        evaluate(REASONS["0..255"][0], DIGITS, Y, "fgsm", "linf:0.01", attack_under="brightness:1")


@pytest.mark.parametrize(
    ("right", "n", "chance", "lost"),
    [
        (0, 15, 0.1, False),
        (0, 16, 0.1, True),
        (1, 16, 0.1, True),
        (5, 16, 0.1, False),
        (12, 64, 0.1, False),
        (10, 64, 0.1, True),
        (12, 64, 0.19, True),
        (64, 64, 1.0, False),
        (50, 100, 0.5, True),
        (65, 100, 0.5, False),
    ],
)
def test_chance_is_told_by_its_interval(right: int, n: int, chance: float, lost: bool) -> None:
    assert CleanScore(right, n, chance).at_chance is lost


def test_chance_is_that_of_answers_dealt_out_at_random() -> None:
    y = torch.arange(10).repeat(10)
    assert CleanScore.of(torch.full((100,), 3), y == 3, y, 10).chance == pytest.approx(0.1)
    y = torch.tensor([0] * 30 + [1] * 70)
    assert CleanScore.of(torch.ones(100).long(), y == 1, y, 2).chance == pytest.approx(0.7)
    assert CleanScore.of(y, y == y, y, 2).chance == pytest.approx(0.58)


def test_random_answers_have_no_better_order() -> None:
    found = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        predicted, y = torch.randint(10, (2, 64), generator=generator)
        found += better_order(predicted, y, predicted == y, 10) is not None
    assert found <= 5


def test_one_logit_is_that_of_two_classes() -> None:
    one = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
    two = Behind(answers=lambda z: torch.cat([-z / 2, z / 2], 1), net=one)
    y = (one(DIGITS)[:, 0] > 0).long()
    both, alone = (evaluate(net, DIGITS, y, "fgsm", "linf:0.05") for net in (two, one))
    assert both.clean.all() and torch.equal(both.x_adv, alone.x_adv) and torch.equal(both.robust, alone.robust)
    assert alone.flags == (*both.flags, "output_form:binary")


def test_in_a_grid_its_cells_fail_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chancers.py").write_text(
        "from robustbench_local import load_model\nfrom torch import nn\n"
        "class Bytes(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.net = load_model('zoo:mnist/none')\n    def forward(self, x):\n        return self.net(x / 255)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("robustbench_local.grids.run.write_report", lambda *_: None)
    run = [
        "run",
        "grid=quickstart",
        "data=mnist",
        "n=32",
        "models=[chancers:Bytes,zoo:mnist/none]",
        "defenses=none",
        "threats=[linf:0.1]",
        "attacks=[fgsm,noise]",
        "device=cpu",
    ]
    assert main(run) == 1
    said = capsys.readouterr().err
    assert "2 of 4 cells failed" in said and "with pixels in [0, 255] it would be 100.0 %" in said
    assert main([*run, "allow_chance=true"]) == 0
