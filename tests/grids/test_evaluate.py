"""rbl.evaluate: models, images, attacks and threats in every form that people have them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import robustbench_local as rbl
from robustbench_local.core.errors import AccessError, ConfigError, DataError, RobustBenchError
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.models.wrap import wrap
from tests.helpers.small_networks import images, network

NET = network()
DATA = images(NET)
X, Y = DATA.x, DATA.labels
HOW: dict[str, Any] = {"attack": "fgsm", "threat": "linf:0.03"}


def alike(one: rbl.Verdict, other: rbl.Verdict) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("robust", "x_adv", "ids", "labels"))


FORMS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "tensors": lambda: (X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "arrays of other numbers": lambda: (X.double().numpy(), Y.numpy().astype(np.int32)),
    "a list of labels": lambda: (X, Y.tolist()),
    "a loader": lambda: (DataLoader(TensorDataset(X, Y), batch_size=7),),
    "a data set": lambda: (TensorDataset(X, Y),),
    "batches as lists": lambda: ([[X[:20], Y[:20].int()], [X[20:], Y[20:].tolist()]],),
    "an iterator": lambda: (iter([(X.numpy(), Y.numpy())]),),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_every_form_give_the_same_verdict(form: str) -> None:
    assert alike(rbl.evaluate(NET, *FORMS[form](), **HOW), rbl.evaluate(NET, X, Y, **HOW))
    assert not alike(rbl.evaluate(NET, X[1:], Y[1:], **HOW), rbl.evaluate(NET, X, Y, **HOW))


def test_of_a_loader_no_more_is_asked_than_is_needed() -> None:
    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, 20, 5):
            yield X[start : start + 5], Y[start : start + 5]
        raise AssertionError("asked for more")

    assert alike(rbl.evaluate(NET, endless(), n=18, **HOW), rbl.evaluate(NET, X[:18], Y[:18], **HOW))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((X,), "y is missing"),
        ((5,), "x is 5: give x and y, a DataLoader"),
        (([],), "gave no images"),
        (([X],), "must be a pair"),
        (([(X, Y), (X[:, :1], Y)],), "do not fit together"),
        (([(X, Y[:3])],), r"labels of shape \(3,\)"),
        (([(X, True)],), r"labels of shape \(\)"),
        ((X, True), "y is"),
        ((np.array(3.0), 1), "x is"),
        ((np.array([None]), Y), "images are floats"),
        (([("a", 1)],), "images must be tensors"),
        (([(X, "abc")],), "labels are whole numbers"),
        (("cifar10", Y), "with y"),
        (("cifra10",), 'did you mean "cifar10"'),
        (("folder:",), "names no place"),
        ((X.mul(255).byte().numpy(), Y), "divide by 255"),
    ],
)
def test_other_images_are_an_error_with_its_reason(given: tuple[Any, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        rbl.evaluate(NET, *given, **HOW)


def test_a_model_and_a_folder_may_be_names(tmp_path: Path) -> None:
    x, y = rbl.load_data("mnist", 12, source="bundled")
    for place, (image, label) in enumerate(zip(x, y, strict=True)):
        (tmp_path / f"{label}").mkdir(exist_ok=True)
        pixels = (image[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{label}" / f"{place:02}.png")
    classes = sorted({int(label) for label in y})
    own = torch.tensor([classes.index(int(label)) for label in y])
    order = torch.argsort(own, stable=True)
    spec = f"folder:{tmp_path}"
    named = rbl.evaluate("zoo:mnist/none", spec, attack="fgsm", threat="linf:0.1", allow_chance=True)
    assert named.x is not None and torch.equal(named.x.cpu(), x[order]) and torch.equal(named.labels.cpu(), own[order])
    assert len(rbl.evaluate("zoo:mnist/none", spec, attack="fgsm", threat="linf:0.1", n=5, allow_chance=True).ids) == 5


THREATS = ["linf:0.03", ("linf", 0.03), ("linf", "0.03"), ThreatModel(Norm.LINF, 0.03)]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_threat_in_every_form(threat: Any) -> None:
    verdict = rbl.evaluate(NET, X, Y, "fgsm", threat)
    assert verdict.threat == "linf:0.03" and alike(verdict, rbl.evaluate(NET, X, Y, **HOW))
    several = rbl.evaluate(NET, X, Y, attacks="fgsm", threats=threat)
    assert len(several) == 1 and alike(several[0], verdict)


def test_several_attacks_are_each_what_they_are_alone() -> None:
    attacks = ["fgsm", {"pgd": {"steps": 3}}, rbl.attacks.PGD(steps=5), "ddn", "fog"]
    found = rbl.evaluate(NET, X, Y, attacks=attacks, threats=["linf:0.03", ("l2", 0.2)], seed=3)
    names = [(verdict.attack, verdict.threat) for verdict in found]
    assert names == [
        *(("fgsm", threat) for threat in ("linf:0.03", "l2:0.2")),
        *(("pgd(steps=3)", threat) for threat in ("linf:0.03", "l2:0.2")),
        *(("pgd(steps=5)", threat) for threat in ("linf:0.03", "l2:0.2")),
        ("ddn", "l2:0.2"),  # which knows no other norm
        ("fog", "none"),
    ]
    assert alike(found["pgd(steps=3)", "l2:0.2"], rbl.evaluate(NET, X, Y, "pgd", "l2:0.2", 3, steps=3))
    assert alike(found["fog", "none"], rbl.evaluate(NET, X, Y, "fog", "none", 3))


def test_one_attack_within_several_threats() -> None:
    found = rbl.evaluate(NET, X, Y, "fgsm", threats=["linf:0.01", "linf:0.03"])
    assert [verdict.threat for verdict in found] == ["linf:0.01", "linf:0.03"]
    assert found.worst("linf:0.01").value > found.worst("linf:0.03").value


def test_a_suite_stands_for_what_the_model_allows() -> None:
    scores = wrap(lambda x: NET(torch.from_numpy(x)).detach().numpy(), access="scores", classes=4)
    with_gradients = rbl.evaluate(NET, X, Y, attacks="suite:quick", threats="linf:0.03")
    assert {verdict.attack for verdict in with_gradients} == {"fgsm", "pgd"}
    with pytest.warns(UserWarning, match="left out: pgd needs gradients"):
        without = rbl.evaluate(scores, X, Y, attacks="suite:quick", threats="linf:0.03")
    assert {verdict.attack for verdict in without} == {"square"}
    with pytest.raises(AccessError, match="needs gradients, and the model grants scores"):
        rbl.evaluate(scores, X, Y, attacks=["pgd"], threats="linf:0.03")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attacks": ["pgd"], "steps": 3}, "settings of one attack"),
        ({"attack": "fgsm", "attacks": ["pgd"]}, "attack and attacks are both given"),
        ({"threat": "linf:0.1", "threats": ["linf:0.2"]}, "threat and threats are both given"),
        ({"attacks": []}, "must not be empty"),
        ({"attacks": ["pgd"], "threats": []}, "must not be empty|no threat"),
        ({"attacks": ["pgdd"]}, 'did you mean "pgd"'),
        ({"attacks": ["suite:quikc"]}, 'did you mean "quick"'),
        ({"attacks": [3]}, "write a name"),
        ({"attacks": 3}, "give a list"),
        ({"attacks": [rbl.attacks.PGD]}, r"write PGD\(\)"),
        ({"attacks": ["pgd"], "threats": ["linf"]}, "has no eps"),
        ({"attacks": ["cw"], "threats": ["linf:0.1"]}, "has no threat to attack within"),
        ({"n": 0}, "n is 0"),
        ({"progress": "yes"}, "progress is 'yes'"),
    ],
)
def test_mistakes_are_errors_that_help(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RobustBenchError, match=words):
        rbl.evaluate(NET, X, Y, **settings)


def test_progress_says_how_each_attack_ended() -> None:
    class Kept(Progress):
        def __init__(self) -> None:
            self.lines: list[str] = []
            self.shares: list[float] = []

        def line(self, text: str) -> None:
            self.lines.append(text)

        def advance(self, what: str, share: float) -> None:
            self.shares.append(share)

    kept = Kept()
    rbl.evaluate(NET, X, Y, attacks=["fgsm", "pgd"], progress=kept)
    assert [line.partition(":")[0] for line in kept.lines] == ["fgsm within linf", "pgd within linf"]
    assert kept.shares == sorted(kept.shares) and kept.shares[-1] == 1


def test_progress_shows_on_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rbl.evaluate(NET, X, Y, progress=True, **HOW)
    shown = capsys.readouterr()
    assert "fgsm within linf:0.03: clean" in shown.err and not shown.out
    rbl.evaluate(NET, X, Y, **HOW)
    assert capsys.readouterr() == ("", "")


def test_images_that_are_not_kept_are_not_there() -> None:
    verdict = rbl.evaluate(NET, X, Y, keep_images=False, **HOW)
    assert verdict.x is None and len(verdict.x_adv) == 0 and "<img" not in verdict._repr_html_()


def test_a_benchmark_is_a_suite_on_the_first_images_of_a_data_set() -> None:
    net = rbl.load_model("zoo:mnist/none")
    found = rbl.benchmark(net, "mnist", "linf:0.1", suite="quick", n=10, progress=False)
    x, y = rbl.load_data("mnist", 10, source="bundled")
    assert [verdict.attack for verdict in found] == ["fgsm", "pgd"]
    assert alike(found[1], rbl.evaluate(net, x, y, "pgd", "linf:0.1", steps=10))
    with pytest.raises(ConfigError, match='did you mean "quick"'):
        rbl.benchmark(net, "mnist", suite="quikc")


class Mine(rbl.attacks.FGSM):
    """Not registered."""


def test_an_attack_is_named_as_it_is_registered() -> None:
    assert rbl.evaluate(NET, X, Y, rbl.attacks.GaussianNoise(), "none").attack == "gaussian_noise"
    assert rbl.evaluate(NET, X, Y, Mine(), "linf:0.03").attack == "mine"


def test_photographs_are_cropped_to_the_size_that_a_model_declares(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for place, size in enumerate([(12, 9), (8, 8), (20, 16)]):
        (tmp_path / "photos" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / "ab"[place % 2] / f"{place}.png")
    spec = f"folder:{tmp_path / 'photos'}"
    (tmp_path / "sized.py").write_text(
        "from tests.helpers.small_networks import network\n\ndef net():\n    return network()\n", encoding="utf-8"
    )
    sized = rbl.load_model(f"{tmp_path / 'sized.py'}:net", about={"shape": [3, 8, 8]})
    verdict = rbl.evaluate(sized, spec, allow_chance=True, **HOW)
    assert verdict.x is not None and verdict.x.shape == (3, 3, 8, 8)
    assert torch.equal(verdict.x.cpu(), rbl.load_data(spec, crop=8)[0])
    with pytest.raises(DataError, match="crop"):
        rbl.evaluate(NET, spec, allow_chance=True, **HOW)
