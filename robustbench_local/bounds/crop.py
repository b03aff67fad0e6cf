"""The part of a network that a window of one of its places hangs on, as a network of its own.

A value of a convolution hangs on a window of what it reads, that on a window of what is before, and so on back to the
image: its receptive field. Outside of these windows the coefficients that are carried back from it are 0, so its bounds
are those of the whole network, at the price of the windows. What hangs on no bound, as the room for rounding, is found
once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from robustbench_local.bounds.affine import Affine, Pad
from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.chain import Chain
from robustbench_local.bounds.network import Network, Placed
from robustbench_local.bounds.step import Box, Step
from robustbench_local.bounds.window import Window

TOGETHER = 64  # values that share their windows, about: few calls, of much work each


class Crop(NamedTuple):
    """A network whose last step makes the window; its intervals and its ball."""

    network: Network
    boxes: list[Box]
    ball: Ball


def squares(wanted: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[Window, Tensor, Tensor]]:
    """The wanted of the values of a shape, by their numbers (U,), those that lie near each other together.

    Of each square that holds some: their window, their numbers, and their numbers in the window.
    """
    if len(shape) != 3 or not len(wanted):
        yield Window.whole(shape), wanted, wanted
        return
    _, height, width = shape
    side = max(1, math.isqrt(TOGETHER * height * width // len(wanted)))
    channel, row, column = wanted // (height * width), wanted // width % height, wanted % width
    square = row // side * width + column // side
    order = square.argsort(stable=True)
    for some in order.split(square.unique(return_counts=True)[1].tolist()):
        rows, columns = row[some], column[some]
        top, bottom, left, right = (int(each) for each in (rows.min(), rows.max(), columns.min(), columns.max()))
        window = Window(top, bottom + 1, left, right + 1)
        high, wide = window.sides
        yield window, wanted[some], (channel[some] * high + rows - top) * wide + columns - left


def crop(network: Network, boxes: list[Box], ball: Ball, place: int, window: Window) -> Crop:
    """What a window of a place hangs on. boxes: the intervals of that place and of all before it."""
    windows, kept = _needed(network, [Window.whole(box.low.shape[1:]) for box in boxes], place, window)
    readers = Counter(each for here in kept for each in network.steps[here - 1].inputs)
    made, steps, cropped = {0: 0}, list[Placed](), [_of(windows[0], boxes[0])]
    for here in sorted(kept):
        step, reads = kept[here]
        inputs = []
        for each in network.steps[here - 1].inputs:
            pad = Pad(windows[each].padding_to(reads or windows[each]))
            inputs.append(made[each])
            if any(pad.sides):
                cropped.append(pad.interval(cropped[made[each]]))
                steps.append(Placed(pad, (made[each],)))
                inputs[-1] = len(steps)
        if isinstance(step, Affine):
            inner, before = cropped[inputs[0]], steps[inputs[0] - 1].step if inputs[0] else None
            if isinstance(before, Chain) and readers[network.steps[here - 1].inputs[0]] == 1:
                step, inputs = before.then(step, inner), list(steps[inputs[0] - 1].inputs)
            else:
                step = Chain.of(step, inner)
        cropped.append(_of(windows[here], boxes[here]))
        steps.append(Placed(step, tuple(inputs)))
        made[here] = len(steps)
    images = _of(windows[0], Box(ball.x, ball.x)).low
    return Crop(Network(tuple(steps)), cropped, Ball(images, ball.norm, ball.eps))


def coefficients(network: Network, boxes: list[Box], place: int, wanted: Tensor) -> int:
    """How many are carried back in all, from these values of a place to the image."""
    shapes = [box.low.shape[1:] for box in boxes[: place + 1]]
    whole, found = [Window.whole(shape) for shape in shapes], 0
    for window, values, _ in squares(wanted, shapes[place]):
        windows, _ = _needed(network, whole, place, window)
        found += len(values) * sum(
            math.prod((shapes[here][0], *part.sides) if len(shapes[here]) == 3 else shapes[here])
            for here, part in windows.items()
        )
    return found


def _needed(
    network: Network, whole: list[Window], place: int, window: Window
) -> tuple[dict[int, Window], dict[int, tuple[Step, Window | None]]]:
    """By place: its window, and the step that makes it from which window of its inputs; None: from all of them."""
    windows, kept = {place: window}, dict[int, tuple[Step, Window | None]]()
    for here in range(place, 0, -1):
        if here not in windows:
            continue
        placed = network.steps[here - 1]
        through = None if windows[here] == whole[here] else placed.step.through(windows[here])
        if through is not None and all(through[1].meets(whole[each]) for each in placed.inputs):
            kept[here] = through
        else:
            kept[here], windows[here] = (placed.step, None), whole[here]
        for each in placed.inputs:
            reads = kept[here][1]
            needed = whole[each] if reads is None else reads.common(whole[each])
            windows[each] = windows[each].hull(needed) if each in windows else needed
    return windows, kept


def _of(window: Window, box: Box) -> Box:
    """The part of a box that is in the window; all of what is no image."""
    return Box(window.of(box.low), window.of(box.high)) if box.low.ndim == 4 else box
