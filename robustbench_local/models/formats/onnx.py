"""ONNX files: onnxruntime answers, and where the graph can be written in torch, that gives gradients."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access
from robustbench_local.core.errors import ModelError
from robustbench_local.models.black_box import BlackBox
from robustbench_local.models.description import Description
from robustbench_local.models.fixed_batch import FixedBatch
from robustbench_local.models.format import Asked, Format, Loaded
from robustbench_local.models.onnx_file import TYPES, OnnxFile, open_onnx
from robustbench_local.models.onnx_gradients import in_torch

_PROBES = 4  # images on which a graph in torch must agree with onnxruntime


class ONNX(Format):
    prefixes = ("onnx",)
    suffixes = (".onnx",)
    summary = "an ONNX model, asked by onnxruntime; gradients where its graph converts to torch: net.onnx"

    def load(self, asked: Asked) -> Loaded:
        asked.refuse_weights("has its own weights")
        try:
            import onnx  # noqa: F401
            import onnxruntime
        except ImportError as error:
            needs = "onnx and onnxruntime: pip install robustbench_local[models]"
            raise ModelError(f'"{asked.spec}" needs {needs} ({error})') from error
        file = open_onnx(asked.file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
        takes, batch, own = _input(session, asked)
        output = _output(session, asked)
        name = session.get_outputs()[output].name
        labels = asked.said.outputs == "labels"
        if name in file.softmax:
            own = replace(own, outputs="probabilities")

        def ask(images: npt.NDArray[np.float32]) -> Any:
            return session.run([name], {takes.name: _cast(images, takes)})[0]

        box = BlackBox(
            ask,
            what=f'"{asked.spec}"',
            access=Access.LABELS if labels else Access.SCORES,
            classes=asked.said.class_count,
            batch=batch or asked.said.batch,
            exact=bool(batch),
        )
        if labels or asked.said.access in ("scores", "labels"):
            return Loaded(box, own, file.identity)
        net, reason = _in_torch(box, own, file, batch, output, asked)
        if net is None:
            warnings.warn(f'"{asked.spec}" grants scores and no gradients: {reason}', stacklevel=2)
            return Loaded(box, replace(own, access="scores"), file.identity)
        return Loaded(Both(net, box), own, file.identity)


class Both(nn.Module):
    """Answers are onnxruntime's to the last bit, gradients those of the same graph in torch."""

    def __init__(self, net: nn.Module, box: BlackBox) -> None:
        super().__init__()
        self.net, self.ask = net, box.forward  # a method, so that what the box grants says nothing of the whole

    def forward(self, x: Tensor) -> Tensor:
        hard = self.ask(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return hard
        soft: Tensor = self.net(x)
        return hard + (soft - soft.detach())


def _in_torch(
    box: BlackBox, own: Description, file: OnnxFile, batch: int, output: int, asked: Asked
) -> tuple[nn.Module | None, str]:
    """(the graph in torch, why there is none)."""
    description = asked.said.over(own, f'"{asked.spec}"')
    if description.shape is None or not all(description.shape):
        return None, "to compare its graph in torch a whole shape must be said: shape: [channels, height, width]"
    probe = torch.rand(batch or _PROBES, *description.shape, generator=torch.Generator().manual_seed(0))
    low, high = description.range
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in description.statistics or ((0.0,), (1.0,)))
    probe = (low + probe * (high - low) - mean) / std
    if description.layout == "NHWC":
        probe = probe.permute(0, 2, 3, 1).contiguous()
    net, reason = in_torch(file.path, probe, box(probe), output, fixed=bool(batch))
    return (FixedBatch(net, batch) if net is not None and batch else net), reason


def _cast(images: npt.NDArray[np.float32], takes: Any) -> npt.NDArray[Any]:
    """Images as the graph takes them: its type of numbers, flat where it takes two axes."""
    flat = images.reshape(len(images), -1) if len(takes.shape) == 2 else images
    kind = TYPES[takes.type]
    return np.rint(flat).astype(np.uint8) if kind == "uint8" else flat.astype(kind)


def _input(session: Any, asked: Asked) -> tuple[Any, int, Description]:
    """(the input that takes the images, its batch or 0 for any, what it says of the images)."""
    inputs = {each.name: each for each in session.get_inputs()}
    if asked.said.input is None and len(inputs) > 1:
        raise ModelError(f'"{asked.spec}" has inputs {", ".join(inputs)}: say which takes the images, input: NAME')
    name = asked.said.input or next(iter(inputs))
    if name not in inputs or len(inputs) > 1:
        raise ModelError(f'"{asked.spec}" has inputs {", ".join(inputs)}: only one that takes the images can be given')
    takes = inputs[name]
    if takes.type not in TYPES or len(takes.shape) not in (2, 4):
        raise ModelError(
            f'"{asked.spec}" takes {takes.type} {takes.shape}: images are {", ".join(TYPES)} of four axes, or two'
        )
    batch, *sides = (side if isinstance(side, int) and side > 0 else 0 for side in takes.shape)
    expects = "0-255" if takes.type == "tensor(uint8)" else None
    if len(sides) == 1:
        return takes, batch, Description(expects=expects)
    last = sides[-1] in (1, 3) and sides[0] not in (1, 3)
    shape = (sides[2], sides[0], sides[1]) if last else (sides[0], sides[1], sides[2])
    return takes, batch, Description(shape=shape, layout="NHWC" if last else None, expects=expects)


def _output(session: Any, asked: Asked) -> int:
    """Which of the outputs holds the scores: the one that is said, the only one, or the only one of floats."""
    outputs = session.get_outputs()
    names = [each.name for each in outputs]
    if asked.said.output is not None:
        if asked.said.output not in names:
            raise ModelError(f'"{asked.spec}" has no output "{asked.said.output}": it has {", ".join(names)}')
        return names.index(asked.said.output)
    floats = [place for place, each in enumerate(outputs) if each.type in TYPES and len(each.shape or ()) <= 2]
    if len(names) == 1:
        return 0
    if len(floats) != 1:
        about = ", ".join(f"{each.name} {each.type} {each.shape}" for each in outputs)
        raise ModelError(f'"{asked.spec}" has outputs {about}: say which holds the scores, output: NAME')
    return floats[0]
