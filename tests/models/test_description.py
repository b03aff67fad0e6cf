"""What is said of a model: applied, checked, and asked for where it is missing."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from robustbench_local import evaluate, load_data, load_model, normalised, wrap
from robustbench_local.audit.process import Untouched
from robustbench_local.core.access import Access, granted
from robustbench_local.core.errors import ConfigError, ModelError
from robustbench_local.core.model_state import evaluating
from robustbench_local.models.classifier import Classifier, describe
from robustbench_local.models.description import Description, described
from robustbench_local.models.load import open_model

X = torch.rand(6, 3, 4, 5, generator=torch.Generator().manual_seed(0))
OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(60, 4)
        with torch.no_grad():
            self.f.weight.copy_(torch.arange(240).view(4, 60) / 240)
            self.f.bias.zero_()

    def forward(self, x):
        return self.f(x.flatten(1))

def needs(x):
    return x
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pixels_become_what_it_takes() -> None:
    plain = load_model("own_net.py:Net")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    imagenet = load_model("own_net.py:Net", normalise="imagenet")
    torch.testing.assert_close(imagenet(X), normalised(plain, mean, std)(X))
    torch.testing.assert_close(load_model("own_net.py:Net", expects="0-255")(X), plain(255 * X))
    torch.testing.assert_close(load_model("own_net.py:Net", expects=[-1, 1])(X), plain(2 * X - 1))
    both = load_model("own_net.py:Net", expects="0-255", normalise={"mean": [100] * 3, "std": [50] * 3})
    torch.testing.assert_close(both(X), plain((255 * X - 100) / 50))
    named = load_model("own_net.py:Net", expects="0-255", normalise="imagenet")  # of [0, 1], stretched
    torch.testing.assert_close(named(X), imagenet(X), rtol=1e-4, atol=1e-4)
    last = load_model("own_net.py:Net", about={"layout": "NHWC"})
    torch.testing.assert_close(last(X), plain(X.permute(0, 2, 3, 1)))


def test_it_is_another_model_in_a_row() -> None:
    digests = [
        open_model("own_net.py:Net", said=described(said, "it"))[1]
        for said in ({}, {"normalise": "imagenet"}, {"expects": "0-255"}, {"version": "2"}, {"normalise": "imagenet"})
    ]
    assert len(set(digests)) == 4 and digests[1] == digests[4]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"normalize": "imagenet"}, 'says "normalize".*did you mean "normalise"'),
        ({"normalise": "imagnet"}, 'did you mean "imagenet"'),
        ({"normalise": {"mean": [0.5]}}, "needs mean and std"),
        ({"normalise": {"mean": [0.5], "std": [0.0]}}, "std above 0"),
        ({"normalise": {"mean": [0.5], "std": [0.5, 0.5]}}, "one of each per channel"),
        ({"normalise": {"mean": [123.7], "std": [58.4]}}, "say expects: 0-255"),
        ({"expects": "255"}, "lowest and the highest"),
        ({"expects": "1-0"}, "lowest and the highest"),
        ({"expects": [0, float("nan")]}, "expects"),
        ({"shape": [3, 224]}, "shape"),
        ({"shape": [3, -1, 4]}, "shape"),
        ({"classes": 0}, "classes"),
        ({"access": "all"}, "access"),
        ({"clean_accuracy": 91}, "clean_accuracy"),
    ],
)
def test_what_means_nothing_is_refused(said: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        described(said, "it")


def test_what_is_missing_is_asked_for_with_the_file_to_write() -> None:
    with pytest.raises(ModelError, match="does not say its access and classes") as told:
        load_model("own_net.py:needs")
    text = str(told.value).partition("write model.yaml:\n")[2]
    assert text.splitlines()[0].strip() == "model: own_net.py:needs"
    Path("model.yaml").write_text(textwrap.dedent(text))  # and what it shows will do
    assert describe(load_model("own_net.py:needs")).class_count == 10
    assert describe(load_model("own_net.py:Net")).class_count is None  # which it is not about
    assert describe(load_model("model.yaml")).access == "scores"


def test_a_file_beside_it_is_read(own: Path) -> None:
    plain = load_model("own_net.py:Net")
    torch.export.save(torch.export.export(plain, (X,)), own / "net.pt2")
    (own / "net.yaml").write_text("expects: 0-255\nclasses: [a, b, c, d]\nclean_accuracy: 0.9\n")
    model = load_model(str(own / "net.pt2"))
    assert describe(model).names == ("a", "b", "c", "d") and describe(model).size == (4, 5)
    torch.testing.assert_close(model(X), plain(255 * X))
    (own / "all.yaml").write_text("model: net.pt2\nexpects: '0-1'\n")
    torch.testing.assert_close(load_model(str(own / "all.yaml"))(X), plain(X))
    (own / "net.yaml").write_text("shape: [3, 8, 8]\n")
    with pytest.raises(ModelError, match=r"takes shape \(3, 4, 5\), and shape \(3, 8, 8\) is said of it"):
        load_model(str(own / "net.pt2"))
    (own / "net.yaml").write_text("expects: [0, 255\n")
    with pytest.raises(ConfigError, match=r"net\.yaml cannot be read"):
        load_model(str(own / "net.pt2"))


def test_images_of_another_size_are_named() -> None:
    model = load_model("own_net.py:Net", about={"shape": [3, 8, 8]})
    with pytest.raises(ModelError, match=r"takes images of 3x8x8 .* these are 3x4x5"):
        model(X)


def test_access_is_lowered_and_never_raised() -> None:
    model = load_model("own_net.py:Net", about={"access": "scores"})
    assert granted(model) is Access.SCORES
    box = wrap(lambda x: x.reshape(len(x), -1)[:, :3], classes=3)
    assert granted(Classifier(box, Description(access="gradients"))) is Access.SCORES


def test_clean_accuracy_below_the_declared_is_flagged() -> None:
    x, y = load_data("mnist", n=100, source="bundled")
    net = load_model("zoo:mnist/none")
    for declared, normalise, flagged in ((0.99, None, False), (0.99, {"mean": [0.5], "std": [0.35]}, True)):
        said = {"clean_accuracy": declared} | ({} if normalise is None else {"normalise": normalise})
        model = evaluating(Classifier(net, described(said, "it")))
        flags = evaluate(model, x, y, "fgsm", "linf:0.1", allow_chance=True).flags
        assert ("below_declared" in flags) is flagged


def test_a_function_sees_arrays_of_no_more_than_a_batch() -> None:
    sizes: list[int] = []

    def f(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        assert type(x) is np.ndarray and x.dtype == np.float32
        sizes.append(len(x))
        return x.reshape(len(x), -1)[:, :3]

    model = wrap(f, classes=3, batch=4)
    assert torch.equal(model(X.requires_grad_()), X.detach().flatten(1)[:, :3]) and sizes == [4, 2]
    assert model(X[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: np.full((len(x), 3), np.nan), "18 scores that are NaN"),
        (lambda x: np.zeros((len(x), 4)), "4 classes, and it has 3"),
        (lambda x: np.zeros((2, 3)), "for 6 images"),
        (lambda x: [["a"] * 3] * len(x), "give scores"),
        (lambda x: None, "returned object"),
        (lambda x: [[1, 2], [3]], "no array of numbers"),
    ],
)
def test_answers_that_are_no_scores_are_named(answer: object, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        wrap(answer, classes=3)(X)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [[0, 1, 2, 3, 0, 1], [-1] * 6, [0.5] * 6, [0] * 5, "abcdef"])
def test_labels_outside_the_classes_are_named(answer: object) -> None:
    with pytest.raises(ModelError, match="labels"):
        wrap(lambda x: np.array(answer), access="labels", classes=3)(X)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_other_numbers_are_given_these(own: Path, kind: torch.dtype) -> None:
    (own / "own_half.py").write_text(
        f"import torch\nfrom own_net import Net\n\ndef net():\n    return Net().to({kind})\n"
    )
    x, y = X, torch.zeros(6, dtype=torch.int64)
    net = load_model("own_net.py:Net")
    with pytest.raises(ModelError, match=rf"Images are torch.float32, and its weights {kind}: load_model makes one"):
        evaluate(load_model("own_net.py:Net").to(kind), x, y, "fgsm", allow_chance=True)
    found = load_model("own_half.py:net")
    assert found(x).dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(found(x).float(), net(x), rtol=0.05, atol=0.05)
    assert evaluate(found, x, y, "fgsm", "linf:8/255", allow_chance=True).scores.dtype in (torch.float32, torch.float64)


def test_a_fresh_process_finds_a_file_that_was_named_by_its_path(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.parent)
    model = load_model(f"{own / 'own_net.py'}:Net", normalise="imagenet")
    (logits,) = Untouched(model).ask([X], torch.arange(6), seed=0).logits
    assert torch.allclose(logits, model(X))


def test_labels_become_one_hot() -> None:
    model = wrap(lambda x: np.array([2, 0, 1, 2, 0, 1]), access="labels", classes=["a", "b", "c"])
    assert torch.equal(model(X).argmax(1), torch.tensor([2, 0, 1, 2, 0, 1])) and granted(model) is Access.LABELS
    with pytest.raises(ModelError, match="not of how many classes"):
        wrap(lambda x: x, access="labels")


def test_a_network_that_names_classes_says_so() -> None:
    class Names(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :4].argmax(1)

    model = Classifier(Names(), Description(outputs="labels", classes=4))
    assert torch.equal(model(X).argmax(1), Names()(X)) and granted(model) is Access.LABELS
