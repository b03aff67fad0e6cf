"""Models of other packages, and files that would run code: two lines each, and refused unless trusted."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_local import evaluate, load_model
from robustbench_local.core.access import Access, granted
from robustbench_local.core.errors import ModelError
from robustbench_local.models import archives
from robustbench_local.models.classifier import describe

X = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 5


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "timm:test_resnet"])
def test_networks_of_packages_with_fresh_weights(spec: str) -> None:
    pytest.importorskip(spec.partition(":")[0]) if spec.startswith("timm") else None
    model = load_model(spec, weights="random", about={"classes": 5, "shape": [3, 0, 0]})
    found = evaluate(model, X, Y, "fgsm", "linf:8/255", allow_chance=True)
    assert found.scores.shape == (20, 5) and granted(model) is Access.GRADIENTS
    again = load_model(spec, weights="random", about={"classes": 5, "shape": [3, 0, 0]})
    assert torch.equal(model(X), again(X))


def test_weights_of_ones_own_go_into_a_package_s_network(tmp_path: Path) -> None:
    model = load_model("torchvision:squeezenet1_1", weights="random", about={"classes": 5})
    net = model.net
    assert isinstance(net, nn.Module)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01)
    wrapped = {"epoch": 3, "model_state": [{f"module.{name}": value for name, value in net.state_dict().items()}]}
    torch.save(wrapped, tmp_path / "mine.pth")
    with pytest.raises(ModelError, match="is a pickle"):
        load_model("torchvision:squeezenet1_1", weights=tmp_path / "mine.pth", about={"classes": 5})
    mine = load_model(
        "torchvision:squeezenet1_1", weights=tmp_path / "mine.pth", allow_pickle=True, about={"classes": 5}
    )
    assert torch.equal(mine(X), net.eval()(X))
    with pytest.raises(ModelError, match=r"of another architecture.*1000"):
        load_model("torchvision:squeezenet1_1", weights=tmp_path / "mine.pth", allow_pickle=True)


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32)
    config = transformers.ViTConfig(**sizes, patch_size=8, num_labels=5)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    halves = [0.5, 0.5, 0.5]
    preprocessor = tmp_path / "vit" / "preprocessor_config.json"
    preprocessor.write_text(json.dumps({"image_mean": halves, "image_std": halves}))
    model = load_model(f"hf:{tmp_path / 'vit'}")
    assert describe(model).shape == (3, 32, 32) and describe(model).class_count == 5
    found = evaluate(model, X, Y, "pgd", "linf:8/255", steps=2, allow_chance=True)
    assert "output_form:ImageClassifierOutput" in found.flags
    net = model.net
    assert isinstance(net, nn.Module)
    assert torch.equal(model(X), net((X - 0.5) / 0.5).logits)
    with pytest.raises(ModelError, match=r"takes images of 3x32x32"):
        model(X[..., :16])
    (tmp_path / "vit" / "out").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="is a link out of"):
        load_model(f"hf:{tmp_path / 'vit'}")


def test_a_random_forest_by_scores_and_by_labels(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    digits = load_digits()
    forest = RandomForestClassifier(10, random_state=0).fit(digits.data[:1000], digits.target[:1000])
    skops.dump(forest, tmp_path / "forest.skops")
    x = torch.tensor(digits.images[1000:1030, None] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target[1000:1030])
    with pytest.raises(ModelError, match=r"sklearn\.tree\._tree\.Tree.*trust=true"):
        load_model(f"sklearn:{tmp_path / 'forest.skops'}")
    model = load_model(f"sklearn:{tmp_path / 'forest.skops'}", trust=True, expects="0-16")
    scores = evaluate(model, x, y, "square", "linf:0.2", steps=50)
    assert scores.clean_accuracy > 0.8 and scores.robust_accuracy < scores.clean_accuracy / 2
    labels = load_model(str(tmp_path / "forest.skops"), trust=True, expects="0-16", about={"access": "labels"})
    assert granted(labels) is Access.LABELS
    by_labels = evaluate(labels, x, y, "hopskipjump", "l2:1", steps=3)
    assert torch.equal(by_labels.clean, torch.tensor(forest.predict(digits.data[1000:1030])) == y)
    assert by_labels.robust_accuracy < by_labels.clean_accuracy
    with pytest.raises(ModelError, match="takes 64 features"):
        model(torch.rand(2, 1, 9, 9))


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("it_ran",)


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.ts"])
def test_a_pickle_runs_nothing_unless_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, name)
    for how in ({}, {"allow_pickle": True}):
        with pytest.raises(ModelError, match="trust"):
            load_model(name, **how)  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        load_model("fast_cnn", weights=name, allow_pickle=True)
    assert not Path("it_ran").exists()
    whole = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    torch.save(whole, name)
    assert torch.equal(load_model(name, trust=True)(torch.ones(1, 1, 2, 2)), whole(torch.ones(1, 1, 2, 2)))


def test_an_exported_program_with_pickles_runs_nothing_unless_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    torch.export.save(torch.export.export(net, (torch.ones(2, 1, 2, 2),)), "good.pt2")
    assert load_model("good.pt2")(torch.ones(3, 1, 2, 2)).shape == (3, 2)
    poison = io.BytesIO()
    torch.save(Bomb(), poison)
    refused = 0
    with zipfile.ZipFile("good.pt2") as good:
        for victim in good.namelist():
            with zipfile.ZipFile("bad.pt2", "w") as bad:
                for name in good.namelist():
                    bad.writestr(name, poison.getvalue() if name == victim else good.read(name))
            try:
                load_model("bad.pt2")
            except ModelError:
                refused += 1
            assert not Path("it_ran").exists(), victim
    assert refused


def test_an_archive_that_unpacks_to_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST", 1 << 20)
    with zipfile.ZipFile(tmp_path / "net.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", "{}")
        with archive.open("net/data/weights", "w") as file:
            file.write(bytes(3 << 20))
    with pytest.raises(ModelError, match="unpacks to 3,145"):
        load_model(str(tmp_path / "net.pt2"))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("torchvision:resnet19", 'did you mean "resnet1'),
        ("timm:nothing_of_the_kind", "timm has no model"),
        ("hf:nowhere", "config.json"),
        ("sklearn:nowhere.skops", "is not there"),
        ("net.onnx", "is not there"),
        ("net.h5", "no format reads .h5 files"),
        ("robustbench:a/b", "write robustbench:"),
        ("zoo:mnist/nothing", "mnist"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=says):
        load_model(spec)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("net.h5", b"\x89HDF\r\n\x1a\n", "a file of Keras"),
        ("net.keras", b"PK\x03\x04", "a file of Keras"),
        ("net.onnx", b"\x08\x08", "an ONNX model"),
        ("net.skops", b"PK\x03\x04", "a scikit-learn model"),
    ],
)
def test_what_is_no_weights_is_told_what_it_is(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=says):
        load_model("fast_cnn", weights=tmp_path / name, allow_pickle=True)


def test_a_user_s_own_file_may_import_torchvision(tmp_path: Path) -> None:
    """Beside a torch of another build that needs help, which a fresh process has not had yet."""
    (tmp_path / "own_vision.py").write_text("import torchvision\n\nmake = torchvision.models.squeezenet1_1\n")
    code = "import robustbench_local as rbl; print(type(rbl.load_model('own_vision.py:make')).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "SqueezeNet", done.stderr
