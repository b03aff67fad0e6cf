from __future__ import annotations

import json
import pickle
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustbench_local.core.errors import ModelError
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models import zoo
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.models.build import build_model
from robustbench_local.models.defense_gan import Dropout
from robustbench_local.models.load import load_model
from robustbench_local.models.zoo import zoo_entry, zoo_names
from robustbench_local.storage import checkpoints
from robustbench_local.storage.checkpoints import load, restore, save, weights_digest

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
COLOURED = ("lenet5", "preact_small", "preact_resnet18", "wide_resnet28_10", "cifar10_strided")
SHAPES = dict.fromkeys(COLOURED, (3, 32, 32))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save(path, build_model("fast_cnn", seed=3), {"seed": "3"})
    return path


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"wide_resnet28_10"}))
def test_architectures_take_pixels_and_give_logits(name: str) -> None:
    x = torch.rand(2, *SHAPES.get(name, (1, 28, 28)))
    assert build_model(name).eval()(x).shape == (2, 10)


def test_dropout_keeps_its_share_in_training_and_resumes_with_the_masks_it_would_have_drawn() -> None:
    x, dropout = torch.ones(50, 400), Dropout(0.25)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = dropout(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(first.unique().tolist()) == {0.0, 4.0}
    assert 0.23 < first.count_nonzero() / first.numel() < 0.27  # 20,000 draws: three deviations are 0.01
    resumed = Dropout(0.25)
    resumed.load_state_dict(dropout.state_dict())
    second = dropout(x)
    assert torch.equal(resumed(x), second) and not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert dropout.eval()(x) is x


def test_small_network_is_small() -> None:
    assert sum(p.numel() for p in build_model("preact_small").parameters()) <= 300_000


def test_seed_decides_the_weights_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights_digest(build_model("fast_cnn", seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert weights_digest(build_model("fast_cnn", seed=1)) == first
    assert weights_digest(build_model("fast_cnn", seed=2)) != first


def test_digest_sees_a_single_bit_names_and_types_but_not_the_layout() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    first = weights_digest(net)
    assert weights_digest(net.to(memory_format=torch.channels_last)) == first  # type: ignore[call-overload]
    assert weights_digest(nn.Sequential(nn.Identity(), net)) != first
    with torch.no_grad():
        weight = next(net.parameters())
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))
    second = weights_digest(net)
    assert second != first
    assert weights_digest(net.double()) != second


def test_half_precision_round_trip(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net[1].running_var[0] = 1e6  # overflows 16 bits
    net[1].num_batches_tracked += 123_457  # beyond what 16 bits can count
    save(tmp_path / "half.safetensors", net, {"recipe": "{}"})
    save(tmp_path / "full.safetensors", net, {}, half=False)
    state, metadata = load(tmp_path / "half.safetensors")
    assert metadata == {"recipe": "{}"}
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}
    weight = net[0].weight.detach()
    assert torch.equal(state["0.weight"], weight.half().float())
    assert not torch.equal(state["0.weight"], weight)
    assert state["1.running_var"][0] == 1e6
    assert state["1.num_batches_tracked"] == 123_457
    assert torch.equal(load(tmp_path / "full.safetensors")[0]["0.weight"], weight)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.65 * sizes[1]


def test_checkpoint_becomes_a_model(checkpoint: Path) -> None:
    model = load_model("fast_cnn", weights=checkpoint)
    assert not model.training
    expected = build_model("fast_cnn", seed=3).half().float()
    assert weights_digest(model) == weights_digest(expected)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def header_only(content: bytes) -> bytes:
    return content[:20]


def random_bytes(content: bytes) -> bytes:
    return b"\x01" + random.Random(0).randbytes(5000)


def empty(content: bytes) -> bytes:
    return b""


def a_web_page(content: bytes) -> bytes:
    return b"<!DOCTYPE html><html>404 not found</html>"


@pytest.mark.parametrize("damage", [truncated, header_only, random_bytes, empty, a_web_page])
def test_a_corrupt_checkpoint_names_its_path_and_cause(checkpoint: Path, damage: object) -> None:
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"no readable checkpoint.*cut short") as caught:
        load_model("fast_cnn", weights=checkpoint)
    assert str(checkpoint) in str(caught.value)


def test_an_absent_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.safetensors: No such file"):
        load(tmp_path / "nowhere.safetensors")


class Bomb:
    """Runs code when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_pickle_is_refused_whatever_its_name(tmp_path: Path, name: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / name
    path.write_bytes(pickle.dumps({"weight": Bomb(mark)}, protocol=2))
    with pytest.raises(ModelError, match=r"is a pickle.*allow_pickle=True"):
        load(path)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load(path, allow_pickle=True)  # the restricted unpickler runs nothing either
    assert not mark.exists()


def test_a_header_whose_length_begins_as_a_pickle_does_is_none(tmp_path: Path) -> None:
    path, firsts = tmp_path / "net.safetensors", set()
    for padding in range(0, 256, 8):
        save(path, nn.Linear(2, 2), {"note": "x" * padding})
        firsts.add(path.read_bytes()[0])
        assert load(path)[1] == {"note": "x" * padding}
    assert 0x80 in firsts


@pytest.mark.parametrize("nested", ["", "state_dict", "model"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_weights_is_read_when_asked_for(tmp_path: Path, nested: str, zipped: bool) -> None:
    net, path = build_model("fast_cnn", seed=3), tmp_path / "net.pth"
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}  # as DataParallel saves
    torch.save({nested: state, "epoch": 3} if nested else state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="is a pickle"):
        load_model("fast_cnn", weights=path)
    assert weights_digest(load_model("fast_cnn", weights=path, allow_pickle=True)) == weights_digest(net)


@pytest.mark.parametrize("content", [build_model("fast_cnn"), {"epoch": 3}, [torch.zeros(3)], {}])
def test_a_pickle_of_anything_else_is_an_error(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"net\.pt.*(state_dict|state dict)"):
        load(tmp_path / "net.pt", allow_pickle=True)


def test_a_truncated_pickle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(build_model("fast_cnn").state_dict(), path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ModelError, match="cut short"):
        load(path, allow_pickle=True)


def test_wrong_keys_and_shapes_are_listed(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=r"another architecture\. missing: feature.* and 10 more; unexpected: 0\.bias"):
        load_model("trades_cnn", weights=checkpoint)
    net = nn.Linear(3, 2)
    with pytest.raises(ModelError, match=r"weight \(2, 4\), not \(2, 3\)"):
        restore(net, nn.Linear(4, 2).state_dict(), "here")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("preact_smal", 'did you mean "preact_small"'),
        ("zoo:cifar10/adversarial_trainin", "in the zoo"),
        ("preact_small", "give weights=PATH"),
        ("no_such_module:net", "No module named 'no_such_module'"),
    ],
)
def test_unknown_models(spec: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_unknown_architecture() -> None:
    with pytest.raises(ModelError, match='did you mean "trades_cnn"'):
        build_model("trades_cn")


OWN = """
import torch
def net():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(4, 2))
def weights():
    return net().state_dict()
def broken():
    raise ValueError("my own mistake")
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own_models", raising=False)
    return tmp_path


def test_a_function_of_the_users_own(own: Path) -> None:
    path = list(sys.path)
    model = load_model("my_own_models:net")
    assert sys.path == path
    assert not model.training
    assert model(torch.rand(5, 1, 2, 2)).shape == (5, 2)
    save(own / "w.safetensors", model, {}, half=False)
    assert weights_digest(load_model("my_own_models:net", weights="w.safetensors")) == weights_digest(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nett", 'no function "nett" .did you mean "net"'),
        ("number", "is a int: name a model"),
        ("weights", "returned a OrderedDict, not a torch.nn.Module"),
        ("broken", "ValueError: my own mistake"),
    ],
)
def test_a_function_that_gives_no_model(own: Path, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(f"my_own_models:{name}")


def test_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    assert zoo_names() == []
    with pytest.raises(ModelError, match="none is bundled"):
        zoo_entry("mnist/none")
    net = build_model("fast_cnn", seed=3)
    notes = {"architecture": "fast_cnn", "recipe": json.dumps({"seed": 3}), "figures": json.dumps({"clean": 0.98})}
    save(tmp_path / "mnist" / "none.safetensors", net, notes)
    assert zoo_names() == ["mnist/none"]
    entry = zoo_entry("mnist/none")
    assert (entry.architecture, entry.recipe, entry.figures) == ("fast_cnn", {"seed": 3}, {"clean": 0.98})
    assert weights_digest(load_model("zoo:mnist/none")) == weights_digest(net.half().float())
    with pytest.raises(ModelError, match='did you mean "mnist/none"'):
        load_model("zoo:mnist/non")
    with pytest.raises(ModelError, match="has its own weights"):
        load_model("zoo:mnist/none", weights=entry.path)
    entry.path.write_bytes(entry.path.read_bytes()[:50])
    with pytest.raises(ModelError, match="damaged"):
        load_model("zoo:mnist/none")


@pytest.mark.parametrize("name", zoo_names())
def test_bundled_checkpoints_are_small_and_tell_how_they_were_made(name: str) -> None:
    entry = zoo_entry(name)
    assert entry.path.stat().st_size <= 700_000
    assert entry.metadata.keys() >= {"architecture", "recipe", "seed", "hardware", "minutes", "figures", "data_digest"}
    assert entry.recipe
    assert entry.figures
    assert not load_model(f"zoo:{name}").training


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the published weights are not here")
@pytest.mark.parametrize(
    ("architecture", "file"), [("trades_cnn", "trades_mnist_smallcnn.pt"), ("fast_cnn", "fast_mnist_fgsm.pth")]
)
def test_published_weights_fit(architecture: str, file: str) -> None:
    model = load_model(architecture, weights=REFERENCE / file, allow_pickle=True)
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert checkpoints.load(REFERENCE / file, allow_pickle=True)[1] == {}


FOUND = """
import torch
from torch import nn

instance = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).train()
PATH = "net.pt2"

def exported():
    return torch.export.load(PATH).module()
"""


def test_a_model_that_is_there_already_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownfour.py").write_text(FOUND)
    monkeypatch.chdir(tmp_path)
    model = load_model("ownfour:instance")
    assert isinstance(model, nn.Sequential) and not model.training
    with pytest.raises(ModelError, match=r'no function "instanc" .did you mean "instance"'):
        load_model("ownfour:instanc")
    with pytest.raises(ModelError, match="is a str: name a model"):
        load_model("ownfour:PATH")


def test_programs_are_no_weights_but_a_function_may_load_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval(), torch.rand(5, 1, 2, 2)
    size = torch.export.Dim("n")
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=({0: size},)), tmp_path / "net.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save(tmp_path / "net.pt")
    for name in ("net.pt2", "net.pt"):
        for allowed in (False, True):
            with pytest.raises(ModelError, match=r"holds a whole .* and no weights alone: name it as the model"):
                load_model("fast_cnn", weights=tmp_path / name, allow_pickle=allowed)
        assert torch.allclose(load_model(str(tmp_path / name))(x), net(x))
    (tmp_path / "ownfive.py").write_text(FOUND)
    monkeypatch.chdir(tmp_path)
    model = load_model("ownfive:exported")
    assert torch.allclose(model(x), net(x))
    verdict, wanted = (evaluate(each, x, net(x).argmax(1), "fgsm", "linf:0.3") for each in (model, net))
    assert verdict.clean.all() and torch.allclose(verdict.x_adv, wanted.x_adv) and (verdict.x_adv != x).any()


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"PK\x03\x04" + bytes(99), b"\x80\x02", b"\x80\x02]q\x00."])
def test_damaged_pickles_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"net.pt (cannot be read as weights|holds no state dict)"):
        load(path, allow_pickle=True)
    torch.save({1: torch.ones(2)}, path)
    with pytest.raises(ModelError, match=r"net\.pt holds no state dict"):
        load(path, allow_pickle=True)
