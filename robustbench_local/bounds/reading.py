"""From a module to a network of steps: torch.fx writes down what it computes, and each operation is looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from robustbench_local.bounds.affine import Add, Concat, Mean, Reshape, Scale
from robustbench_local.bounds.layers import Shape, Unreadable, conv, doubled, linear, step_of, zeros_around
from robustbench_local.bounds.network import Network, Placed
from robustbench_local.bounds.plain import plain
from robustbench_local.bounds.relu import ReLU
from robustbench_local.bounds.step import Step
from robustbench_local.core.containment import contained
from robustbench_local.core.errors import BoundsError, said

_POOL = ("kernel_size", "stride", "padding")
# functions that are layers of torch.nn, and the names of their settings in order
_LAYERS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "relu": (nn.ReLU, ("inplace",)),
    "relu_": (nn.ReLU, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "tanh": (nn.Tanh, ()),
    "leaky_relu": (nn.LeakyReLU, ("negative_slope", "inplace")),
    "max_pool2d": (nn.MaxPool2d, (*_POOL, "dilation", "ceil_mode", "return_indices")),
    "avg_pool2d": (nn.AvgPool2d, (*_POOL, "ceil_mode", "count_include_pad", "divisor_override")),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
}
_FUNCTIONS: dict[str, Callable[..., Step]] = {"conv2d": conv, "linear": linear}  # whose settings may be tensors
_RESHAPE = ("view", "reshape", "flatten", "squeeze", "unsqueeze")
_SIZES = ("size", "dim", "getattr")  # getattr: of shape, or another tensor, which is looked up as any operation
_ARITHMETIC = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "truediv", "div": "truediv"}
_IN_PLACE = ("relu_", "add_", "sub_", "mul_", "div_", "iadd", "isub", "imul", "itruediv")


def read(model: nn.Module, x: Tensor) -> Network:
    """The steps of a model in evaluation mode, at images like x (N, C, H, W).

    It may consist of layers of torch.nn (conv, linear, ReLU, batch norm, average and max pooling, flatten), of sums and
    of arithmetic with constants. BoundsError names the first operation that no bound is known of.
    """
    module = plain(model)
    try:
        with contained(BoundsError, "it"), torch.no_grad():
            graph = fx.symbolic_trace(module)
            run = _Run(graph)
            run.run(torch.cat([x[:1], x[:1]]))
    except Exception as error:  # a stranger's model may refuse in any way to be traced
        what = f"{type(model).__name__}: torch.fx cannot follow it ({said(error)})"
        raise BoundsError(f"no bound is known of {what}") from error
    reader = _Reader(graph, run.values)
    for node in graph.graph.nodes:
        try:
            reader.read(node)
        except Unreadable as error:
            raise BoundsError(f"no bound is known of {_words(node, graph)}: {error}") from None
    return Network(tuple(reader.steps))


def _words(node: fx.Node, graph: fx.GraphModule) -> str:
    if node.op == "call_module":
        return f'layer "{node.target}" ({type(graph.get_submodule(str(node.target))).__name__})'
    return f'operation "{_called(node)}"'


def _called(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _layer(name: str, node: fx.Node) -> nn.Module:
    """The layer that a function is, with its settings."""
    kind, words = _LAYERS[name]
    return kind(**dict(zip(words, node.args[1:], strict=False)) | dict(node.kwargs))


class _Run(fx.Interpreter):
    """Runs a graph on two images and keeps what every node gave."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


@dataclass
class _Reader:
    """Reads nodes in order. places: where what a node makes of the image is; a node that is not in it is constant."""

    graph: fx.GraphModule
    values: dict[fx.Node, Any]
    steps: list[Placed] = field(default_factory=list)
    places: dict[fx.Node, int] = field(default_factory=dict)

    def read(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if self.places:
                raise Unreadable("the model reads more than images")
            self.places[node] = 0
        elif node.op == "output":
            self._check_answer(node.args[0])
        elif any(each in self.places for each in node.all_input_nodes) and not self._is_size(node):
            self._place(node)

    def _check_answer(self, answer: Any) -> None:
        if not isinstance(answer, fx.Node) or answer not in self.places or len(self._shape(answer)) != 1:
            raise Unreadable("the model answers with something else than logits (N, K)")
        if self._shape(answer)[0] < 2 or self.places[answer] != len(self.steps):
            raise Unreadable("the model's answer is not what it computes last, or is of a single class")

    def _is_size(self, node: fx.Node) -> bool:
        """Whether it only asks for the shape of what moves, which is the same for all images."""
        if isinstance(self.values[node], Tensor):
            return False
        if _called(node) in _SIZES and (_called(node) != "getattr" or node.args[1] in ("shape", "ndim")):
            return True
        raise Unreadable("it makes something else than a tensor of the image")

    def _place(self, node: fx.Node) -> None:
        if _called(node) in ("cat", "concat"):
            self._concat(node)
            return
        moving = [each for each in node.args if isinstance(each, fx.Node) and each in self.places]
        if not moving:
            raise Unreadable("it reads the image by name, or in a list")
        if self._writes(node) and len(moving[0].users) > 1:
            raise Unreadable("it writes into what other layers read")
        first = self.places[moving[0]]
        leak = self._leak(node)
        if leak is not None:
            self.places[node] = self._leaky(first, leak)
            return
        step = self._step(node, moving)
        self.places[node] = first if step is None else self._put(step, *(self.places[each] for each in moving))

    def _put(self, step: Step, *inputs: int) -> int:
        """The place of what a step makes of what is at these places."""
        self.steps.append(Placed(step, inputs))
        return len(self.steps)

    def _concat(self, node: fx.Node) -> None:
        parts = node.args[0] if node.args else None
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if not isinstance(parts, list | tuple) or not all(each in self.places for each in parts):
            raise Unreadable("parts that all hang on the image are known to be put together, and no others")
        nodes = [each for each in parts if isinstance(each, fx.Node)]
        if axis not in (1, -len(self._shape(node))):
            raise Unreadable("parts are known to be put together along the first axis of an image")
        sizes = tuple(self._shape(each)[0] for each in nodes)
        self.places[node] = self._put(Concat(sizes), *(self.places[each] for each in nodes))

    def _leak(self, node: fx.Node) -> float | None:
        """Of a LeakyReLU, its slope below 0."""
        if node.op == "call_module":
            layer = self.graph.get_submodule(str(node.target))
        elif _called(node) == "leaky_relu":
            layer = _layer("leaky_relu", node)
        else:
            return None
        return layer.negative_slope if type(layer) is nn.LeakyReLU else None

    def _leaky(self, first: int, leak: float) -> int:
        """leak z + (1 - leak) max(z, 0), whose sum errs by more in float32 than the one product that there is."""
        slope = torch.ones((), dtype=torch.float64) * leak
        below = self._put(Scale(slope, None), first)
        above = self._put(Scale(1 - slope, None), self._put(ReLU(), first))
        return self._put(Add(), below, above)

    def _writes(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return bool(getattr(self.graph.get_submodule(str(node.target)), "inplace", False))
        return _called(node) in _IN_PLACE or bool(node.kwargs.get("inplace"))

    def _step(self, node: fx.Node, moving: list[fx.Node]) -> Step | None:
        """What a node does to what moves; None for nothing."""
        inner, outer, name = self._shape(moving[0]), self._shape(node), _called(node)
        if node.op == "call_module":
            return step_of(self.graph.get_submodule(str(node.target)), inner, outer)
        if name in _LAYERS:
            return step_of(_layer(name, node), inner, outer)
        if name in _FUNCTIONS:
            given = [self._held(each) for each in node.args[1:]]
            return _FUNCTIONS[name](inner, *given, **{word: self._held(each) for word, each in node.kwargs.items()})
        if name in _RESHAPE:
            return Reshape(inner, outer)
        if name == "contiguous" or (name == "dropout" and node.kwargs.get("training") is False):
            return None
        if name == "pad":
            return self._pad(node, inner)
        if name == "mean":
            return self._mean(node, inner, outer)
        return self._arithmetic(_ARITHMETIC.get(name.removesuffix("_"), name.removesuffix("_")), node, moving)

    def _pad(self, node: fx.Node, inner: Shape) -> Step:
        words = ("pad", "mode", "value")
        given: dict[str, Any] = dict(zip(words, node.args[1:], strict=False)) | dict(node.kwargs)
        if given.get("mode", "constant") != "constant":
            raise Unreadable(f"it pads with {given['mode']}, and zeros are known")
        return zeros_around(inner, given["pad"], float(given.get("value") or 0))

    def _held(self, value: Any) -> Any:
        """A setting of a function: what the model holds where it is named."""
        if isinstance(value, fx.Node):
            if value in self.places:
                raise Unreadable("a setting that hangs on the image")
            return self.values[value]
        return value

    def _mean(self, node: fx.Node, inner: Shape, outer: Shape) -> Step:
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        over = isinstance(axes, tuple | list) and sorted(axis % 4 for axis in axes if isinstance(axis, int)) == [2, 3]
        if len(inner) != 3 or not over or node.kwargs.keys() - {"dim", "keepdim"}:
            raise Unreadable("a mean over height and width is known, and no other")
        return Mean(inner, keepdim=len(outer) == 3)

    def _arithmetic(self, name: str, node: fx.Node, moving: list[fx.Node]) -> Step:
        if name not in ("add", "sub", "mul", "truediv") or len(node.args) != 2 or node.kwargs:
            raise Unreadable("an operation of no kind that there are bounds for")
        shapes = {self._shape(each) for each in (*moving, node)}
        if len(shapes) > 1:
            raise Unreadable("it spreads what it reads over more values")
        if len(moving) == 2:
            if name != "add":
                raise Unreadable("two parts that both hang on the image are known to be added, and no more")
            return Add()
        first = node.args[0] is moving[0]
        constant = self._constant(node.args[1 if first else 0], shapes.pop(), moving[0])
        one = torch.ones_like(constant)
        if name == "add":
            return Scale(one, constant)
        if name == "sub":
            return Scale(one, -constant) if first else Scale(-one, constant)
        if name == "truediv" and not first:
            raise Unreadable("division by something that hangs on the image")
        return Scale(constant if name == "mul" else 1 / constant, None)

    def _constant(self, value: Any, shape: Shape, beside: fx.Node) -> Tensor:
        """A number or a tensor of the model, in float64, of a shape that broadcasts against that of one image."""
        if isinstance(value, fx.Node):
            value = self.values[value]
            if not isinstance(value, Tensor):
                raise Unreadable("arithmetic with the size of a tensor")
        found = doubled(torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64))
        found = found.to(self.values[beside].device)
        if found.ndim > len(shape) and found.shape[0] != 1:
            raise Unreadable("a constant that differs from image to image")
        return found.view(found.shape[-len(shape) :])

    def _shape(self, node: fx.Node) -> Shape:
        """Of what a node makes of one image."""
        shape = tuple(self.values[node].shape)
        if not shape or shape[0] != 2:
            raise Unreadable("the images of a batch do not stay apart")
        return shape[1:]
