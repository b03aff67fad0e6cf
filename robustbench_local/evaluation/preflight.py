"""What is checked before an attack starts: images, labels, and the model as it answers a few of them."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access, granted
from robustbench_local.core.defense import (
    Defended,
    Rejection,
    answer_and_trace,
    call,
    is_stochastic,
    noticed,
    rejection,
    undefended,
)
from robustbench_local.core.device import kept_random_state, out_of_memory
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import DataError, ModelError, RobustBenchError
from robustbench_local.core.model_state import evaluating
from robustbench_local.core.outputs import log_probabilities
from robustbench_local.core.source import Source
from robustbench_local.data.images import few_classes
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.chance import Look, look

REPEATS = 5  # forward passes by which randomness is measured
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SAMPLE = 64  # images in each of them


def check_images(x: Tensor, y: Tensor) -> None:
    """Raise DataError unless x is float (N, C, H, W) in [0, 1] without NaN and y int64 (N,)."""
    for name, tensor in (("x", x), ("y", y)):
        if tensor.layout is not torch.strided or tensor.is_meta:
            where = "on the meta device" if tensor.is_meta else f"of layout {tensor.layout}"
            raise DataError(f"{name} is {where}: give a dense tensor (to_dense makes one) that holds its values")
    if x.ndim != 4 or x.dtype not in FLOATS:
        raise DataError(
            f"x is {x.dtype} of shape {tuple(x.shape)}: give float images (N, C, H, W) in [0, 1]"
            " (uint8 images: divide by 255; greyscale: add a channel axis)"
        )
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise DataError(f"y is {y.dtype} of shape {tuple(y.shape)} for {len(x)} images: give int64 labels (N,)")
    if not len(x):
        raise DataError("x holds no images: give at least one")
    if not x.numel():
        raise DataError(f"x is of shape {tuple(x.shape)} and holds no pixel: every side must be at least 1")
    if bool(x.isnan().any()):
        raise DataError(f"x holds {int(x.isnan().sum())} NaN values: every pixel must be a number in [0, 1]")
    low, high = x.aminmax()
    if low < 0 or high > 1:
        raise DataError(
            f"x spans [{low.item():.3g}, {high.item():.3g}]: give pixels in [0, 1] and let the model normalise"
            " (robustbench_local.normalised(net, mean, std))"
        )


@dataclass
class Tally:
    """Forward passes of a model, of all images together, that no attack is to pay for."""

    forwards: int = 0


@dataclass(frozen=True)
class Checked:
    """model: the one to attack; flags: what stood out; logits: what it answered to x, images `rows`, by these draws."""

    model: nn.Module
    flags: tuple[str, ...]
    rows: Tensor
    x: Tensor
    draws: Draws
    logits: Tensor

    def changed(self, asked: Tally) -> bool:
        """Whether the same question has another answer by now, though the model had answered it alike before."""
        if "undeclared_randomness" in self.flags:
            return False
        asked.forwards += len(self.x)
        with torch.no_grad(), kept_random_state(self.x.device):
            return _differ(call(self.model, self.x, self.draws[:]), self.logits)

    def look(self, images: Source, most: int | None, asked: Tally) -> Look:
        """Whether the model is at chance on these images, in the same order as those that were asked about."""
        x, y = images[self.rows].to(self.x), images.labels[self.rows]

        def ask(z: Tensor) -> Tensor:
            asked.forwards += len(z)
            with torch.no_grad(), kept_random_state(z.device):
                return call(self.model, z.contiguous(memory_format=torch.channels_last), self.draws[:])

        logits = self.logits if torch.equal(x, self.x) else ask(x)
        return look(x, y, logits, ask, logits.shape[1] - (rejection(self.model) is not Rejection.NONE), most)

    def ask_every_way(self, x_adv: Tensor, asked: Tally) -> None:
        """Ask as an attack and a judge do, for what this does to the model."""
        with kept_random_state(self.x.device):
            for x in (self.x, x_adv[: len(self.x)]):
                asked.forwards += 2 * len(x)
                with torch.no_grad():
                    call(self.model, x, self.draws[: len(x)])
                with torch.enable_grad(), suppress(Exception):  # there may be no gradient
                    call(self.model, x.clone().requires_grad_(), self.draws[: len(x)])


def check_model(
    model: nn.Module,
    images: Source,
    draws: Draws,
    dtype: torch.dtype,
    *,
    size: int = SAMPLE,
    repeats: int = REPEATS - 1,
    known: AnswerCache | None = None,
    about: tuple[Any, ...] = (),
    asked: Tally | None = None,
    judged: Tally | None = None,
) -> Checked:
    """Ask the model about some of the images, spread over all, `size` of them at most.

    Randomness is measured, not believed: a module that gives different answers to the same question, though it does
    not take its numbers from draws, is wrapped so that it does, and flagged. The question is repeated so many times,
    once of a module that says it is random. known: where its answers to clean images are kept, by `about`: the first
    is the judge's own, and on its account.
    """
    flags: list[str] = []
    asked, judged, known = asked or Tally(), judged or Tally(), known or AnswerCache()
    count = min(SAMPLE, len(images), size)
    rows = torch.arange(count, device=draws.ids.device) * len(images) // count
    x = images[rows].to(dtype).contiguous(memory_format=torch.channels_last)  # as the judge will ask
    draws, labels = draws[rows].stream("clean").stream(0), images.labels
    written = False

    def ask(account: Tally, stream: Draws) -> Tensor:
        nonlocal written
        account.forwards += count
        answer, after = answer_and_trace(model, x, stream)
        written = written or not torch.equal(after, x)
        return answer

    with torch.no_grad(), kept_random_state(x.device), noticed() as seen:
        try:
            logits = known.once(lambda: ask(judged, draws[:]), model, *about, tuple(draws.ids.tolist()), 0)
            declared = is_stochastic(model) and isinstance(model, Defended)
            others = [draws[:]] if declared else [draws.stream(f"again:{k}") for k in range(REPEATS)]
            again = [ask(asked, stream) for stream in others[:repeats]]
        except RobustBenchError:
            raise
        except Exception as error:  # somebody else's code: whatever it dies of, say what it was given
            if out_of_memory(error):
                raise
            raise ModelError(
                f"the model cannot read images of shape {tuple(x.shape[1:])} (channels, height, width):"
                f" {type(error).__name__}: {error}{_of_other_numbers(model, x)}"
            ) from error
    _check_answer(model, logits, labels, count)
    classes = len(getattr(images, "classes", ()))
    if classes and bool((_named(model, logits) >= classes).cpu().double().mean() > 0.5):
        flags.append("extra_classes")
    if written:
        flags.append("writes_input")
    if flag := few_classes(labels, getattr(images, "classes", ())):
        flags.append(flag)
    if bool(logits.isnan().any()):
        flags.append("nan_logits")
    random = any(_differ(answer, logits) for answer in again)  # it draws numbers from somewhere else
    if granted(model) > Access.LABELS and are_probabilities(logits, one="binary" in seen.forms):
        model, logits = LogProbabilities(model), log_probabilities(logits)
        flags.append("probabilities")
        warnings.warn(
            "the model returns probabilities, not logits: their logarithms are taken. Gradients still vanish where"
            " probabilities round to 0 or 1: better remove its softmax",
            stacklevel=3,
        )
    if random:
        model = UndeclaredRandomModel(model)
        flags.append("undeclared_randomness")
    return Checked(model, tuple(flags), rows, x, draws, logits)


def _of_other_numbers(model: nn.Module, x: Tensor) -> str:
    """What to do about weights that are no numbers like x; "" where they are."""
    kind = next((each.dtype for each in model.parameters() if each.is_floating_point()), x.dtype)
    advice = "load_model makes one that turns the images into these, and so does a forward of your own"
    return "" if kind is x.dtype else f". Images are {x.dtype}, and its weights {kind}: {advice}"


def _check_answer(model: nn.Module, logits: object, labels: Tensor, count: int) -> None:
    """ModelError unless logits are (count, K) with two classes or more, DataError unless labels are among these."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        what = type(logits).__name__
        if isinstance(logits, Tensor):
            what = f"{str(logits.dtype).removeprefix('torch.')} {tuple(logits.shape)}"
        raise ModelError(
            f"the model returned {what} for {count} images: it must return logits (N, classes), alone or first in a"
            " tuple or dict; one that names a class only is described by outputs: labels (see Description)"
        )
    classes = logits.shape[1] - (rejection(model) is not Rejection.NONE)
    if classes < 2:
        raise ModelError(f"the model returned {tuple(logits.shape)}: robustness is of two classes or more")
    if not logits.is_floating_point():
        raise ModelError(f"the model returned {logits.dtype} {tuple(logits.shape)}: logits are floating point numbers")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(
            f"labels span {int(labels.min())} .. {int(labels.max())}, the model knows classes 0 .. {classes - 1}:"
            " wrong labels, or a model with the wrong number of classes"
        )


def _named(model: nn.Module, logits: Tensor) -> Tensor:
    """(N,) the classes that logits name, where they do not reject."""
    return logits[:, : logits.shape[1] - (rejection(model) is not Rejection.NONE)].argmax(1)


def are_probabilities(logits: Tensor, *, one: bool) -> bool:
    """Whether all rows of logits (N, K) are distributions over the classes; one: they are made of one number an image,
    which may be the probability of class 1, see core/outputs.py.
    """
    if one:
        return bool(((logits[:, 1] >= 0) & (logits[:, 1] <= 0.5)).all())
    return bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all())


def _differ(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


class LogProbabilities(Defended):
    """A model that returns probabilities, with their logarithms instead, which are logits."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.rejects, self.stochastic = module, rejection(module), is_stochastic(module)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return log_probabilities(call(self.module, x, draws))

    def undefended(self) -> nn.Module | None:
        inner = undefended(self.module)
        return None if inner is None else evaluating(LogProbabilities(inner))


class UndeclaredRandomModel(Defended):
    """A module that draws from the global generator, run under a forked state that its draws seed.

    Its answers repeat for the same batch, and only for the same batch.
    """

    stochastic = True

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.rejects = module, rejection(module)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        if draws is None:
            return call(self.module, x, None)
        seeds = draws.stream("stranger").integers(2**31)
        digest = hashlib.blake2b(seeds.cpu().numpy().tobytes(), digest_size=7).digest()
        with kept_random_state(x.device):
            torch.manual_seed(int.from_bytes(digest, "little"))
            return call(self.module, x, draws)
