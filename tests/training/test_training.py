from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ThreatError
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.defenses._adversarial import ascend
from robustbench_local.defenses.adversarial_training import AdversarialTraining
from robustbench_local.defenses.none import Undefended
from robustbench_local.models.build import build_model
from robustbench_local.training.trainer import TrainingLoop
from tests.helpers.tiny_training import TINY, Killed, Lines, accuracy, assert_equal_weights, digits, fit, tiny_net


@dataclasses.dataclass(frozen=True)
class Spy(Recipe):
    """Plain training that notes which images it meets."""

    trained: list[tuple[Tensor, ...]] = dataclasses.field(default_factory=list, repr=False)
    validated: list[tuple[Tensor, ...]] = dataclasses.field(default_factory=list, repr=False)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        assert net.training
        self.trained.append((draws.ids, x, y))
        return F.cross_entropy(net(x), y)

    def validate(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> None:
        assert not net.training
        self.validated.append((draws.ids, x, y))


@dataclasses.dataclass(frozen=True)
class Scripted(Recipe):
    """Reports the robust accuracies it was told to, and keeps the weights of each epoch."""

    robust: tuple[float, ...] = ()
    weights: list[dict[str, Tensor]] = dataclasses.field(default_factory=list, repr=False)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(x), y)

    def validate(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> float:
        self.weights.append({name: value.clone() for name, value in net.state_dict().items()})
        return self.robust[len(self.weights) - 1]


# the loop


def test_a_tiny_run_learns_digits_it_has_not_seen() -> None:
    plan = Schedule(epochs=5, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100)
    net, trainer = fit(Undefended(), plan, images=digits(1000), net=build_model("fast_cnn", seed=0))
    assert not net.training and len(trainer.history) == 5 and trainer.minutes > 0
    assert trainer.history[-1]["loss"] < 0.4 < 1.0 < trainer.history[0]["loss"]
    assert "robust" not in trainer.history[0]  # plain training has nothing to watch
    test = digits(300, "test")
    with torch.no_grad():
        assert (net(test[:]).argmax(1) == test.labels).double().mean() > 0.85


def test_sgd_learns_as_well() -> None:
    plan = dataclasses.replace(TINY, optimizer="sgd", lr=0.1, epochs=4)
    _, trainer = fit(Undefended(), plan, images=digits(600))
    assert trainer.history[-1]["clean"] > 0.6


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    first, again, other = fit(Undefended())[0], fit(Undefended())[0], fit(Undefended(), seed=1)[0]
    assert_equal_weights(first, again)
    assert_equal_weights(first, other, equal=False)


def test_global_random_state_is_not_moved() -> None:
    net, before = tiny_net(), torch.get_rng_state()
    fit(AdversarialTraining(threat="linf:0.1", steps=1), net=net)
    assert torch.equal(before, torch.get_rng_state())


def test_every_training_image_is_met_once_an_epoch_and_validation_images_never() -> None:
    images, spy = digits(200), Spy()
    fit(spy, dataclasses.replace(TINY, batch=16), images=images)
    epochs = torch.cat([ids for ids, _, _ in spy.trained]).view(3, 160)
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, images.ids[:160])
    assert not torch.equal(epochs[0], epochs[1])  # shuffled anew
    for ids, x, y in spy.trained:
        assert torch.equal(x, images[ids]) and torch.equal(y, images.labels[ids])
    assert len(spy.validated) == 3
    for ids, x, y in spy.validated:
        assert torch.equal(ids, images.ids[160:176]) and torch.equal(x, images[160:176])
        assert torch.equal(y, images.labels[160:176])


def test_what_the_validation_images_show_has_no_influence_on_the_weights() -> None:
    images = digits(200)
    pixels = np.array(images.pixels)
    pixels[160:] = 255 - pixels[160:]
    other = dataclasses.replace(images, pixels=pixels)
    (one, first), (two, second) = fit(Undefended(), images=images), fit(Undefended(), images=other)
    assert_equal_weights(one, two)
    assert first.history[-1]["clean"] != second.history[-1]["clean"]


def test_augmentation_gives_shifted_mirrored_originals_the_same_in_any_batch() -> None:
    images, spy = digits(200), Spy()
    fit(spy, dataclasses.replace(TINY, crop=2, flip=True, epochs=2), images=images)
    other = Spy()
    fit(other, dataclasses.replace(TINY, crop=2, flip=True, epochs=1, batch=40), images=images)
    kinds = set()
    met = {}
    assert len(spy.trained) == 10
    for ids, x, _ in spy.trained[:5]:
        for sample, found in zip(ids.tolist(), x, strict=True):
            padded = F.pad(images[sample : sample + 1], (2, 2, 2, 2), mode="reflect")[0]
            for flip in (False, True):
                for down in range(5):
                    for across in range(5):
                        cut = padded[:, down : down + 28, across : across + 28]
                        if torch.equal(found, cut.flip(2) if flip else cut):
                            kinds.add((flip, down, across))
                            met[sample] = found
    assert len(met) == 160 and len(kinds) > 40
    for ids, x, _ in other.trained:
        for sample, found in zip(ids.tolist(), x, strict=True):
            assert torch.equal(found, met[sample])
    later = torch.cat([ids for ids, _, _ in spy.trained[5:]]), torch.cat([x for _, x, _ in spy.trained[5:]])
    same = [torch.equal(found, met[sample]) for sample, found in zip(later[0].tolist(), later[1], strict=True)]
    assert len(same) == 160 and sum(same) < 20  # other shifts in the next epoch


# resuming


@pytest.mark.parametrize("recipe", [Undefended(), AdversarialTraining(threat="linf:0.1", method="fgsm_rs", ramp=0.5)])
@pytest.mark.parametrize("optimizer, lr", [("adam", 2e-3), ("sgd", 0.05)])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, recipe: AdversarialTraining | Undefended, optimizer: Literal["sgd", "adam"], lr: float
) -> None:
    plan = dataclasses.replace(TINY, optimizer=optimizer, lr=lr, crop=2, flip=True)
    whole, reference = fit(recipe, plan)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, plan, folder=tmp_path, progress=Killed(epoch=2))
    progress = Lines()
    resumed, trainer = fit(recipe, plan, folder=tmp_path, progress=progress)
    assert progress.lines[0] == "resumed after epoch 1 of 3" and len(progress.lines) == 3
    assert_equal_weights(whole, resumed)
    assert trainer.history == reference.history
    progress = Lines()
    again, _ = fit(recipe, plan, folder=tmp_path, progress=progress)  # nothing is left to do
    assert progress.lines == ["resumed after epoch 3 of 3"]
    assert_equal_weights(whole, again)


def test_a_run_killed_by_the_system_resumes(tmp_path: Path) -> None:
    script = """
        import os, signal, sys, torch
        from pathlib import Path
        torch.set_num_threads(int(sys.argv[3]))
        sys.path.insert(0, sys.argv[1])
        from robustbench_local.defenses.none import Undefended
        from tests.helpers.tiny_training import Killed, fit

        class Gone(Killed):
            def advance(self, what, share):
                try:
                    super().advance(what, share)
                except KeyboardInterrupt:
                    os.kill(os.getpid(), signal.SIGKILL)

        fit(Undefended(), folder=Path(sys.argv[2]), progress=Gone(epoch=3))
    """
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", textwrap.dedent(script), root, str(tmp_path), str(torch.get_num_threads())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -9, ended.stderr
    progress = Lines()
    resumed, _ = fit(Undefended(), folder=tmp_path, progress=progress)
    assert progress.lines[0] == "resumed after epoch 2 of 3"
    assert_equal_weights(fit(Undefended())[0], resumed)


def test_a_changed_setting_never_resumes_another_runs_state(tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = [
        dict(recipe=Undefended()),
        dict(recipe=Undefended(), schedule=dataclasses.replace(TINY, lr=1e-3)),
        dict(recipe=Undefended(), seed=1),
        dict(recipe=Undefended(), images=digits(190)),
        dict(recipe=AdversarialTraining(threat="linf:0.1", steps=1)),
        dict(recipe=AdversarialTraining(threat="linf:0.2", steps=1)),
    ]
    for count, run in enumerate(runs, 1):
        progress = Lines()
        fit(**{"schedule": TINY} | run, folder=tmp_path, progress=progress)
        assert not any("resumed" in line for line in progress.lines)
        assert len(list(tmp_path.iterdir())) == count


@dataclasses.dataclass(frozen=True)
class Noisy(Recipe):
    """Plain training on noisy images: what its draws are decides the weights."""

    teacher: nn.Module | None = dataclasses.field(default=None, repr=False)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        x = (x + 0.3 * draws.normal(*x.shape[1:])).clamp(0, 1)
        return F.cross_entropy(net(x), y if self.teacher is None else self.teacher(x).argmax(1))


def test_two_nets_of_one_defense_never_share_a_state(tmp_path: Path) -> None:
    """Of the same first weights, recipe and seed, they differ in their draws alone, or in who taught them."""
    progress, images = Lines(), digits(200)
    trainer = TrainingLoop(images, TINY, folder=tmp_path, progress=progress)
    draws = Draws(0, images.ids[:1]).stream("train")
    one, other = (trainer.fit(tiny_net(), Noisy(), draws.stream(f"member:{k}")) for k in range(2))
    assert_equal_weights(one, other, equal=False)
    first, second = (trainer.fit(tiny_net(), Noisy(teacher), draws.stream("student")) for teacher in (one, other))
    assert_equal_weights(first, second, equal=False)
    assert not any("resumed" in line for line in progress.lines) and len(list(tmp_path.iterdir())) == 4
    again = trainer.fit(tiny_net(), Noisy(other), draws.stream("student"))
    assert progress.lines[-1] == "resumed after epoch 3 of 3"  # and yet what is the same goes on
    assert_equal_weights(again, second)


class Meanwhile(Lines):
    """Somebody else trains the same, from first to last, while this is in its first epoch; then it is killed."""

    def __init__(self, other: Callable[[], object]) -> None:
        super().__init__()
        self.other: Callable[[], object] | None = other

    def advance(self, what: str, share: float) -> None:
        if self.other is not None:
            other, self.other = self.other, None
            other()
        if what == "epoch 3/3":
            raise KeyboardInterrupt


def test_of_two_who_train_the_same_the_slower_sets_nobody_back(tmp_path: Path) -> None:
    whole, _ = fit(Undefended())
    with pytest.raises(KeyboardInterrupt):
        fit(Undefended(), folder=tmp_path, progress=Meanwhile(lambda: fit(Undefended(), folder=tmp_path)))
    progress = Lines()
    resumed, _ = fit(Undefended(), folder=tmp_path, progress=progress)
    assert progress.lines == ["resumed after epoch 3 of 3"]  # not 2, which was written last
    assert_equal_weights(whole, resumed)


def test_the_slower_of_two_ends_where_the_other_does(tmp_path: Path) -> None:
    others: list[nn.Module] = []

    class Slower(Meanwhile):
        def advance(self, what: str, share: float) -> None:
            super().advance("", share)

    progress = Slower(lambda: others.append(fit(Undefended(), folder=tmp_path)[0]))
    mine, _ = fit(Undefended(), folder=tmp_path, progress=progress)
    assert len(others) == 1 and len(progress.lines) == 3
    assert_equal_weights(mine, others[0])


# watching for collapse


def run_script(*robust: Any, epochs: int = 6, **more: Any) -> tuple[list[int], TrainingLoop, list[str]]:
    recipe, progress = Scripted(tuple(robust)), Lines()
    net, trainer = fit(recipe, dataclasses.replace(TINY, epochs=epochs), progress=progress, **more)
    kept = [
        place
        for place, weights in enumerate(recipe.weights)
        if all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    ]
    return kept, trainer, progress.lines


def test_collapse_stops_the_run_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    script = (0.5, 0.7, 0.2, 0.9, 0.9, 0.9)
    kept, trainer, lines = run_script(*script, folder=tmp_path)
    assert kept == [1] and len(trainer.history) == 3 and "collapsed" in lines[-1]
    resumed, progress = Scripted(script), Lines()
    _, trainer = fit(resumed, dataclasses.replace(TINY, epochs=6), folder=tmp_path, progress=progress)
    assert len(trainer.history) == 3 and not resumed.weights  # it is not tried again


def test_collapse_in_the_last_epoch_is_no_loss() -> None:
    kept, trainer, lines = run_script(0.5, 0.7, 0.1, epochs=3)
    assert kept == [1] and len(trainer.history) == 3 and "collapsed" in lines[-1]


def test_a_dip_is_no_collapse_and_the_best_epoch_is_kept_all_the_same() -> None:
    kept, trainer, lines = run_script(0.5, 0.7, 0.36, 0.6, epochs=4)
    assert kept == [1] and len(trainer.history) == 4 and "collapsed" not in lines[-1]
    assert run_script(0.5, 0.7, 0.7, epochs=3)[0] == [2]  # of equals the later


def test_a_net_that_names_one_class_always_has_nothing_to_collapse_from() -> None:
    kept, trainer, _ = run_script(0.11, 0.0, 0.3, 0.6, epochs=4)  # a slow start at a large eps
    assert kept == [3] and len(trainer.history) == 4


# schedules


def test_the_rate_rises_and_falls() -> None:
    plan = Schedule(warmup=0.25)
    found = [plan.rate(progress) for progress in (0, 0.125, 0.25, 0.625, 1)]
    assert found == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert Schedule(warmup=0).rate(0) == 1 and Schedule(warmup=0).rate(0.5) == 0.5


def test_a_restart_rises_anew_to_half_the_peak() -> None:
    plan = Schedule(epochs=6, restarts=(4,), warmup=0.5)
    found = [plan.rate(epoch / 6) for epoch in (0, 2, 3, 4, 5, 6)]
    assert found == pytest.approx([0, 1, 0.5, 0, 0.5, 0])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"optimizer": "adm"}, 'unknown optimizer "adm": sgd or adam'),
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": -0.1}, "lr is -0.1"),
        ({"batch": 0}, "batch is 0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"epochs": 3, "restarts": (3,)}, r"restarts are \[3\]: rising epochs in 1 .. 2"),
        ({"epochs": 9, "restarts": (4, 2)}, r"restarts are \[4, 2\]"),
    ],
)
def test_a_schedule_that_means_nothing_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(**settings)


def test_too_few_images_are_refused_before_anything_runs() -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"validation": 200}, "validation is 200"),
        ({"validation": 0}, "validation is 0"),
        ({"batch": 161}, "batch is 161: 160"),
    )
    for settings, message in wrong:
        with pytest.raises(ConfigError, match=message):
            TrainingLoop(digits(200), dataclasses.replace(TINY, **settings), progress=Progress())


# adversarial training


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[nn.Module, TrainingLoop]]:
    """The same net, trained plainly and adversarially on 1,000 digits."""
    plan = Schedule(epochs=5, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100, watched=50)
    recipes: dict[str, Recipe] = {
        "none": Undefended(),
        "adversarial": AdversarialTraining(threat="linf:0.15", steps=3, ramp=0.4),
    }
    return {
        name: fit(recipe, plan, images=digits(1000), net=build_model("fast_cnn", seed=0))
        for name, recipe in recipes.items()
    }


def test_adversarial_training_raises_robust_accuracy_and_keeps_most_of_the_clean(
    trained: dict[str, tuple[nn.Module, TrainingLoop]],
) -> None:
    test, threat = digits(250, "test"), ThreatModel.parse("linf:0.15")
    x, y, draws = test[:], test.labels, Draws(9, test.ids)
    clean, robust = {}, {}
    for name, (net, _) in trained.items():
        clean[name] = accuracy(net, x, y)
        robust[name] = accuracy(net, ascend(net, x, y, threat, draws[:], 20, 0.02), y)
    assert min(clean.values()) > 0.8
    assert robust["adversarial"] > robust["none"] + 0.25
    assert robust["adversarial"] < clean["adversarial"]
    history = trained["adversarial"][1].history
    assert max(row["robust"] for row in history) > 0.3 and all(row["robust"] <= row["clean"] + 0.2 for row in history)


@pytest.mark.parametrize("text, size", [("linf:0.15", 0.03), ("l2:1.5", 0.3), ("l1:12", 3.0), ("l0:25", 1.0)])
def test_ascent_stays_in_the_ball_and_beats_its_own_start(
    trained: dict[str, tuple[nn.Module, TrainingLoop]], text: str, size: float
) -> None:
    net, threat, test = trained["none"][0], ThreatModel.parse(text), digits(100, "test")
    x, y, draws = test[:], test.labels, Draws(9, test.ids)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = ascend(net, x, y, threat, draws[:], 10, size)
    assert threat.contains(found, x).all() and not found.requires_grad
    assert torch.equal(x, test[:])
    start = ascend(net, x, y, threat, draws[:], 0, size)  # the broken twin: no step is taken
    assert torch.equal(start, threat.start(x, draws[:]))
    with torch.no_grad():
        reached, begun = (F.cross_entropy(net(images), y).item() for images in (found, start))
    assert reached > begun + 1 and accuracy(net, found, y) < accuracy(net, start, y) - 0.1
    assert all(parameter.grad is None or not parameter.grad.isnan().any() for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_ascent_leaves_gradients_of_parameters_alone() -> None:
    net, test = tiny_net().eval(), digits(8)
    ascend(net, test[:], test.labels, ThreatModel.parse("linf:0.1"), Draws(0, test.ids), 2, 0.05)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_random_start_fgsm_is_one_step_of_five_quarters_eps(trained: dict[str, tuple[nn.Module, TrainingLoop]]) -> None:
    net, test, threat = trained["none"][0], digits(20), ThreatModel.parse("linf:0.1")
    recipe = AdversarialTraining(threat="linf:0.1", method="fgsm_rs", steps=7)
    draws = Draws(0, test.ids)
    x_adv = ascend(net, test[:], test.labels, threat, draws[:], 1, 0.125)
    expected = F.cross_entropy(net(x_adv), test.labels)
    assert torch.equal(recipe.loss(net, test[:], test.labels, draws[:]), expected)
    loss = AdversarialTraining(threat="linf:0.1", steps=4, step_size="1/50").loss(net, test[:], test.labels, draws[:])
    x_adv = ascend(net, test[:], test.labels, threat, draws[:], 4, 0.02)
    assert torch.equal(loss, F.cross_entropy(net(x_adv), test.labels))


@pytest.mark.parametrize("text, halfway", [("linf:8/255", "linf:4/255"), ("l2:1", "l2:0.5"), ("l0:5", "l0:2")])
def test_a_ramp_raises_eps_from_nothing(text: str, halfway: str) -> None:
    recipe = AdversarialTraining(threat=text, ramp=0.5)
    norm = text.partition(":")[0]
    assert ThreatModel.parse(recipe.at(0.0).threat) == ThreatModel.parse(f"{norm}:0")
    assert ThreatModel.parse(recipe.at(0.25).threat) == ThreatModel.parse(halfway)
    assert recipe.at(0.5) == recipe and recipe.at(1.0) == recipe
    assert AdversarialTraining(threat=text).at(0.0).threat == text


def test_settings_that_mean_nothing_are_refused() -> None:
    for settings in ({"method": "pdg"}, {"steps": 0}, {"ramp": 1.5}):
        with pytest.raises(ConfigError, match=str(next(iter(settings.values())))):
            AdversarialTraining(**settings)
    with pytest.raises(ThreatError, match="unknown norm"):
        AdversarialTraining(threat="lmax:0.1")
