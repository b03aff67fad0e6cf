"""ONNX files as people have them, and as nobody should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from robustbench_local.core.access import Access, granted
from robustbench_local.core.errors import ModelError
from robustbench_local.models.classifier import describe
from robustbench_local.models.load import load_model, open_model
from robustbench_local.models.onnx_gradients import in_torch

NET = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
X = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def exported(path: Path, net: nn.Module = NET, x: torch.Tensor = X) -> Path:
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["out"], "dynamic_axes": {"x": {0: "n"}}}
    torch.onnx.export(net, (x,), path, dynamo=False, **names)
    return path


def test_a_graph_in_torch_is_believed_only_where_it_answers_alike(tmp_path: Path) -> None:
    path = exported(tmp_path / "net.onnx")
    net, _ = in_torch(path, X, NET(X).detach(), 0)
    assert net is not None
    net, reason = in_torch(path, X, NET(X).detach() + 0.1, 0)
    assert net is None and "logits are off by" in reason


def test_what_one_converter_does_not_know_another_may(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).eval()
    shapes = ({0: torch.export.Dim("n")},)
    torch.onnx.export(net, (X,), tmp_path / "net.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False)
    model = load_model(str(tmp_path / "net.onnx"))
    assert granted(model) is Access.GRADIENTS
    found, wanted = (torch.autograd.functional.jacobian(each, X) for each in (model, net))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_converts_to_nothing_grants_scores_and_says_so(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((12, 3), np.float32), "w")
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Celu", ["flat"], ["bent"]),
        helper.make_node("Hardmax", ["bent"], ["hard"]),
        helper.make_node("Gemm", ["hard", "w"], ["out"]),
    ]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])
    gives = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3])
    model = helper.make_model(helper.make_graph(nodes, "g", [takes], [gives], [weight]), ir_version=8)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 17))
    onnx.save(model, str(tmp_path / "odd.onnx"))
    with pytest.warns(UserWarning, match="grants scores and no gradients"):
        loaded = load_model(str(tmp_path / "odd.onnx"))
    assert granted(loaded) is Access.SCORES and describe(loaded).access == "scores"


def test_probabilities_halves_bytes_flat_and_nhwc(tmp_path: Path) -> None:
    soft = load_model(str(exported(tmp_path / "soft.onnx", nn.Sequential(NET, nn.Softmax(1)))))
    assert describe(soft).outputs == "probabilities"
    torch.testing.assert_close(soft(X), NET(X).log_softmax(1))
    flat = load_model(str(exported(tmp_path / "flat.onnx", NET[1], X.flatten(1))))
    torch.testing.assert_close(flat(X), NET(X))
    turned = nn.Sequential(Turned(), NET)
    last = load_model(str(exported(tmp_path / "last.onnx", turned, X.permute(0, 2, 3, 1))))
    assert describe(last).layout == "NHWC" and describe(last).shape == (3, 2, 2)
    torch.testing.assert_close(last(X), NET(X))
    grey = load_model(str(exported(tmp_path / "bytes.onnx", nn.Sequential(Bytes(), NET), (X * 255).to(torch.uint8))))
    torch.testing.assert_close(grey(X), NET((X * 255).round() / 255), rtol=1e-4, atol=1e-4)


class Turned(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)


class Bytes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() / 255


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "inner/../../secret.bin"])
def test_weights_outside_its_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    folder = tmp_path / "model"
    folder.mkdir()
    model = onnx.load(str(exported(folder / "net.onnx")))
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its own folder"):
        load_model(str(folder / "net.onnx"))


def test_a_link_out_of_its_folder_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load(str(exported(folder / "net.onnx")))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its own folder"):
        load_model(str(folder / "net.onnx"))


def test_its_identity_is_its_content(tmp_path: Path) -> None:
    one, same, other = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "c.onnx"
    exported(one)
    same.write_bytes(one.read_bytes())
    exported(other, nn.Sequential(NET, nn.Linear(3, 3)))
    digests = [open_model(str(path))[1] for path in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    assert open_model(str(one), said=describe(load_model(str(one), expects="0-255")))[1] != digests[0]


@pytest.mark.parametrize("cut", [0, 1, 40, 200])
def test_damaged_files_are_named(tmp_path: Path, cut: int) -> None:
    path = exported(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"net\.onnx"):
        load_model(str(path))
    with pytest.raises(ModelError, match="an ONNX model: it goes where the model is named"):
        load_model("fast_cnn", weights=path)
