"""The graph of an ONNX file as a torch module, for its gradients; believed only where its logits are the file's own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.data.vision import import_torchvision

_OPSET = 17  # the last of which the converter knows every usual operator
_TOLERANCE = 1e-4  # of logits, relative to the largest


def in_torch(
    path: Path, x: Tensor, logits: Tensor, output: int, *, fixed: bool = False
) -> tuple[nn.Module | None, str]:
    """(a module that answers images x as `logits` (N, K), why there is none).

    Tried in turn, by two converters: the graph as it is; folded by onnxruntime; and that in an older set of operators.
    output: which of the graph's outputs is meant. fixed: it takes batches as large as x and no others.
    """
    import_torchvision()  # which the converters import
    reasons = []
    for convert, read in product((_onnx2torch, _onnx2pytorch), (_as_it_is, _folded, _older)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                net = _OneOutput(convert(read(path)).eval(), output)
                gap = _gap(net, x, logits)
                gap = gap if fixed else max(gap, _gap(net, x[:1], logits[:1]))
        except Exception as error:  # a converter dies of anything that it does not know
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}")
            continue
        if gap <= _TOLERANCE:
            return net, ""
        reasons.append(f"its logits are off by {gap:.1e} of the largest")
    return None, "; ".join(dict.fromkeys(reasons))


def _gap(net: nn.Module, x: Tensor, logits: Tensor) -> float:
    """How far its logits are off, relative to the largest; infinite where its gradient is not finite."""
    leaf = x.clone().requires_grad_()
    answer = net(leaf)
    (grad,) = torch.autograd.grad(answer.sum(), leaf)
    if not bool(grad.isfinite().all()):
        return torch.inf
    return float((answer.detach() - logits).abs().max() / logits.abs().max().clamp_min(1e-6))


def _onnx2torch(model: Any) -> nn.Module:
    import onnx2torch

    found: nn.Module = onnx2torch.convert(model)
    return found


def _onnx2pytorch(model: Any) -> nn.Module:
    """Knows operators that the other does not, those of transformers among them."""
    import onnx2pytorch

    found: nn.Module = onnx2pytorch.ConvertModel(model, experimental=True)  # of batches, that means
    return found


class _OneOutput(nn.Module):
    def __init__(self, net: nn.Module, output: int) -> None:
        super().__init__()
        self.net, self.output = net, output

    def forward(self, x: Tensor) -> Tensor:
        found = self.net(x)
        answer: Tensor = found[self.output] if isinstance(found, tuple | list) else found
        return answer


def _as_it_is(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))


def _folded(path: Path) -> Any:
    """With constants folded, and without a flag of Reshape that means nothing where no side is 0."""
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory() as folder:
        onnx.save(onnx.load(str(path)), f"{folder}/whole.onnx")  # weights that lie beside it are in it now
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = f"{folder}/folded.onnx"
        options.log_severity_level = 3
        onnxruntime.InferenceSession(f"{folder}/whole.onnx", options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        sides = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if sides is not None and (numpy_helper.to_array(sides) != 0).all():
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return model


def _older(path: Path) -> Any:
    from onnx import version_converter

    convert: Callable[[Any, int], Any] = version_converter.convert_version
    return convert(_folded(path), _OPSET)
