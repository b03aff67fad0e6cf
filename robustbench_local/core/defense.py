"""What is deployed, and how it comes to be: Defended modules, Preprocess with its surrogate, Recipe, Defense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from robustbench_local.core.containment import contained
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError
from robustbench_local.core.model_state import evaluating
from robustbench_local.core.outputs import form_of, logits_of
from robustbench_local.core.training import Trainer


class Rejection(StrEnum):
    """What it means that a model may reject an image: the last of its K + 1 logits is the largest.

    ABSTENTION: the model has no answer, and that is an error on every image, attacked or not (randomized smoothing).
    DETECTION: the model says that it is being attacked: an error on an image that is clean or that nature
    corrupted, right on an adversarial one.
    """

    NONE = "none"
    ABSTENTION = "abstention"
    DETECTION = "detection"


@dataclass(frozen=True)
class Sampled:
    """A certificate by sampling: L2 radii (N,) within which the answer y holds, each with probability `confidence` over
    the draws, of which every image took so many; NaN where none is certified.
    """

    radii: Tensor
    confidence: float
    draws: int


class Defended(nn.Module):
    """What is deployed: pixels in [0, 1], (N, C, H, W), in; logits (N, K) out, or (N, K + 1) where it rejects.

    stochastic says that forward draws numbers, which it must take from `draws` (an independent stream per sample).
    surrogate_gradients: that its answers jump, as votes do, and its gradients are those of something smooth instead.
    """

    stochastic: bool = False
    surrogate_gradients: bool = False
    rejects: Rejection = Rejection.NONE

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        raise NotImplementedError

    def undefended(self) -> nn.Module | None:
        """What an attacker sees who does not know of the defense: a part of this module. None: no part is left out."""
        return None

    def certified_by_sampling(self, x: Tensor, y: Tensor, ids: Tensor) -> Sampled | None:
        """What is certain of images x (N, C, H, W) with labels y (N,), whose ids (N,) address the draws; None: nothing
        is known, as of all models but those whose randomness is what certifies them.
        """
        return None


class Preprocess(nn.Module):
    """A step before the network. forward is deployed; surrogate is what gradients see, with the same draws.

    The default surrogate is the identity (BPDA, Athalye et al. 2018); a differentiable step sets `surrogate = None`
    and its own gradients pass.
    """

    stochastic: bool = False
    encodes: bool = False  # it hands the network something else than images like x: the network cannot do without

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        raise NotImplementedError

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return x


class Deployed(Defended):
    """Preprocessing steps before a network; gradients go through each step's surrogate."""

    def __init__(self, net: nn.Module, steps: Sequence[Preprocess] = ()) -> None:
        super().__init__()
        self.net = net
        self.steps = nn.ModuleList(steps)
        self.stochastic = is_stochastic(net) or any(step.stochastic for step in steps)
        self.rejects = rejection(net)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        draws = draws_for(x, draws) if self.stochastic else draws
        for place, step in enumerate(cast(Sequence[Preprocess], self.steps)):
            own = draws.stream(f"preprocess:{place}") if draws is not None else None
            x = through(step, x, own)
        return call(self.net, x, draws.stream("net") if draws is not None else None)

    def undefended(self) -> nn.Module | None:
        """The network without the steps; through a step that encodes pass its own gradients, whatever they are."""
        inner = undefended(self.net)
        kept = [WithoutSurrogate(step) for step in cast(Sequence[Preprocess], self.steps) if step.encodes]
        if kept:
            return evaluating(Deployed(inner or self.net, kept))
        return inner or (self.net if len(self.steps) else None)

    def certified_by_sampling(self, x: Tensor, y: Tensor, ids: Tensor) -> Sampled | None:
        bare = isinstance(self.net, Defended) and not len(self.steps)
        return cast(Defended, self.net).certified_by_sampling(x, y, ids) if bare else None


class WithoutSurrogate(Preprocess):
    """A step as autograd sees it, without its surrogate."""

    surrogate = None  # type: ignore[assignment]

    def __init__(self, step: Preprocess) -> None:
        super().__init__()
        self.step, self.stochastic = step, step.stochastic

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        # where autograd cannot follow, the gradient is 0, not none
        return cast(Tensor, self.step(x, draws)) + 0 * x.mean((1, 2, 3), keepdim=True)


def through(step: Preprocess, x: Tensor, draws: Draws | None) -> Tensor:
    """step(x) in value, the surrogate's in gradient. Both see the same draws, from the same place in the stream."""
    if not (torch.is_grad_enabled() and x.requires_grad) or step.surrogate is None:
        return cast(Tensor, step(x, draws))
    soft = step.surrogate(x.clone(), draws[:] if draws is not None else None)  # either may write into what it is given
    with torch.no_grad():
        hard = step(x.detach().clone(), draws)
    out: Tensor = hard + (soft - soft.detach())  # hard to the last bit
    return out


def draws_for(x: Tensor, draws: Draws | None) -> Draws:
    """draws, or where somebody calls a random model without any, those of seed 0 and of places in the batch."""
    return Draws(0, torch.arange(len(x), device=x.device), dtype=x.dtype) if draws is None else draws


def is_stochastic(module: nn.Module) -> bool:
    return bool(getattr(module, "stochastic", False))


def rejection(module: nn.Module) -> Rejection:
    return module.rejects if isinstance(module, Defended) else Rejection.NONE


def undefended(module: nn.Module) -> nn.Module | None:
    """What a static attacker sees of a model; None where no part of it is left out, as in one that was only trained."""
    return module.undefended() if isinstance(module, Defended) else None


def call(module: nn.Module, x: Tensor, draws: Draws | None) -> Tensor:
    """module(x), with draws where it is a Defended that takes them.

    The only place where anybody's images meet a model. It is given a copy of its own, and gives one of its answer:
    neither what it writes into its input nor what it keeps is anybody else's. Gradients pass. Whatever form its logits
    come in (see outputs.py), they are a tensor (N, K) here.
    """
    return answer_and_trace(module, x, draws)[0]


def answer_and_trace(module: nn.Module, x: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
    """(module(x), the images as they are afterwards): `call`, for who asks whether the model wrote into them."""
    given = x.clone()
    before = _version(given)
    with contained(ModelError, "the model"):
        out = module(given, draws) if isinstance(module, Defended) else module(given)
    if (seen := _NOTICED.get()) is not None:
        if _version(given) != before:
            seen.wrote.add(type(module).__name__)
        if (form := form_of(out)) is not None:
            seen.forms.add(form)
    out = logits_of(out)
    return cast(Tensor, out.clone() if isinstance(out, Tensor) else out), given


@dataclass(frozen=True)
class Noticed:
    """What models did meanwhile. wrote: the kinds of all that wrote into their input; forms: in which other forms than
    logits (N, K) they answered.
    """

    wrote: set[str] = field(default_factory=set)
    forms: set[str] = field(default_factory=set)


_NOTICED: ContextVar[Noticed | None] = ContextVar("noticed", default=None)


@contextmanager
def noticed() -> Iterator[Noticed]:
    """Whoever notices around this notices the same in the end."""
    seen = Noticed()
    token = _NOTICED.set(seen)
    try:
        yield seen
    finally:
        _NOTICED.reset(token)
        if (around := _NOTICED.get()) is not None:
            around.wrote.update(seen.wrote)
            around.forms.update(seen.forms)


def _version(x: Tensor) -> int:
    """How often x was written to, as autograd counts, which misses what is written to x.data."""
    return 0 if x.is_inference() else x._version


@dataclass(frozen=True)
class Defense:
    """A plug-in: its fields are its settings. Recipes train, wrappers wrap, some do both.

    trains: build trains the network. learns: build leaves the network as it is and fits something beside it, such as
    a detector's threshold, to the trainer's images. Neither: build needs no trainer. summary, paper and family (what
    the leaderboard groups by, such as "denoising") are what `list defenses` shows.
    """

    trains: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    version: ClassVar[int] = 1
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    family: ClassVar[str] = ""

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        """base (fresh or already trained) -> what is deployed."""
        raise NotImplementedError

    def as_trained(self) -> Defense:
        """This defense with what training does not read at its default: one checkpoint serves all that agree here."""
        return self
