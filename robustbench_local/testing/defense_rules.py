"""What every defense must keep: the rules that `check_defense` holds one to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from robustbench_local.core import losses
from robustbench_local.core.defense import (
    Defended,
    Defense,
    Deployed,
    Rejection,
    call,
    is_stochastic,
    rejection,
    undefended,
)
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed
from robustbench_local.core.training import NoTraining
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.testing.contract import Rule
from robustbench_local.testing.declared import odd_settings, says_nothing
from robustbench_local.testing.random_state import moved, state
from robustbench_local.testing.specimens import images, network

CLASSES = 4
NEAR = 1e-6  # what the order of a sum leaves of equal logits in float64
FINE = 1e-6  # a move that any smooth model answers to as its gradient says
STEP = 0.05  # and one after which the loss must have risen


class NoTrainer(NoTraining):
    """What a defense is handed that says it needs no trainer."""

    def fit(self, *given: object, **more: object) -> nn.Module:
        raise AssertionError("it trains, and neither `trains` nor `learns` is set")


@dataclass(frozen=True)
class Subject:
    """A defense, and how it is built."""

    defense: Defense

    def build(self, defense: Defense | None = None) -> nn.Module:
        """Around a fresh network, always the same."""
        defense = defense or self.defense
        trainer = NoTraining() if defense.trains or defense.learns else NoTrainer()
        built = defense.build(network(), trainer, Draws(0, torch.arange(1)).stream("train"))
        return built.eval() if isinstance(built, nn.Module) else built

    @cached_property
    def model(self) -> nn.Module:
        return self.build()

    @cached_property
    def data(self) -> Tensors:
        return images(network())


def draws(data: Tensors, seed: int = 0) -> Draws:
    return Draws(seed, data.ids, dtype=data.x.dtype)


def answers(model: nn.Module, data: Tensors, seed: int = 0) -> Tensor:
    """(N, K) logits, as the judge asks for them."""
    with torch.no_grad(), as_deployed(model):
        return call(model, data.x, draws(data, seed))


def declared(subject: Subject) -> Iterator[str]:
    yield from says_nothing(type(subject.defense))


def builds(subject: Subject) -> Iterator[str]:
    model = subject.model
    if not isinstance(model, nn.Module):
        yield f"build gave {type(model).__name__}, no nn.Module"
        return
    logits = answers(model, subject.data)
    width = CLASSES + (rejection(model) is not Rejection.NONE)
    if logits.shape != (len(subject.data), width):
        yield f"it answers {tuple(logits.shape)} to {len(subject.data)} images of {CLASSES} classes"
    elif not logits.isfinite().all():
        yield f"{int((~logits.isfinite()).sum())} of its logits are not finite"


def company(subject: Subject) -> Iterator[str]:
    model, data = subject.build().double(), images(network(), torch.float64)
    whole = answers(model, data)
    rows = torch.tensor([7, 2, 19])
    few = Tensors(data.x[rows], data.labels[rows], data.ids[rows])
    if not torch.allclose(answers(model, few), whole[rows], rtol=0, atol=NEAR):
        yield "three images in another order, without the rest, have other logits"


def randomness(subject: Subject) -> Iterator[str]:
    model, data = subject.model, subject.data
    before = state()
    first, again, other = answers(model, data), answers(model, data), answers(model, data, seed=1)
    yield from moved(before)
    if not first.equal(again):
        yield "the same images and draws have other answers when they are asked again"
    elif is_stochastic(model) and first.equal(other):
        yield "stochastic is true, and other draws do not change its answers"
    elif not is_stochastic(model) and not first.equal(other):
        yield "stochastic is false, and other draws change its answers"


def untouched(subject: Subject) -> Iterator[str]:
    model = subject.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    answers(model, subject.data)
    wrote = [name for name, value in model.state_dict().items() if not value.equal(before[name])]
    if wrote:
        yield f"answering changed {', '.join(wrote)}"
    given = subject.data.x.clone()
    with torch.no_grad(), as_deployed(model):
        model(given, draws(subject.data)) if isinstance(model, Defended) else model(given)
    if not given.equal(subject.data.x):
        yield "it wrote into the images it was given"


def attacked(subject: Subject) -> Iterator[str]:
    with as_deployed(subject.model):
        graded = call(subject.model, subject.data.x.clone().requires_grad_(), draws(subject.data)).detach()
    if not torch.allclose(graded, answers(subject.model, subject.data), rtol=0, atol=1e-5):
        yield "its answers are others while gradients are asked for"


def _slope(model: nn.Module, data: Tensors) -> tuple[Tensor, Tensor, Tensor]:
    """The cross-entropy (N,) of the labels as the model sees them, its gradient like the images, and those labels."""
    x = data.x.clone().requires_grad_()
    with as_deployed(model):
        logits = call(model, x, draws(data))
        y = logits.detach().argmax(1)
        loss = losses.ce(logits, y)
        (grad,) = torch.autograd.grad(loss.sum(), x, allow_unused=True)
    return loss.detach(), torch.zeros_like(x) if grad is None else grad, y


def _moved(model: nn.Module, data: Tensors, grad: Tensor, way: float, y: Tensor) -> Tensor:
    """The cross-entropy (N,) so far along the signs of the gradient."""
    moved = Tensors((data.x + way * grad.sign()).clamp(0, 1), y, data.ids)
    return losses.ce(answers(model, moved), y)


def gradients(subject: Subject) -> Iterator[str]:
    _, grad, y = _slope(subject.model, subject.data)
    if not grad.isfinite().all():
        yield "its gradients are not finite"
        return
    blind = (grad == 0).flatten(1).all(1)
    if 2 * int(blind.sum()) > len(blind):
        yield f"the gradient is 0 at {int(blind.sum())} of {len(blind)} images"
        return

    along, against = (float(_moved(subject.model, subject.data, grad, way * STEP, y).mean()) for way in (1, -1))
    if along <= against:
        yield f"{STEP:g} along its gradients the loss is {along:.4g}, and as far against them {against:.4g}"


def jumps(subject: Subject) -> Iterator[str]:
    model = subject.model
    steps = isinstance(model, Deployed) and any(getattr(step, "surrogate", None) is not None for step in model.steps)
    if steps or getattr(model, "surrogate_gradients", False):
        return
    model, data = subject.build().double(), images(network(), torch.float64)
    loss, grad, y = _slope(model, data)
    promised = FINE * grad.abs().flatten(1).sum(1)
    still = (_moved(model, data, grad, FINE, y) - loss).abs() < promised / 10
    if 2 * int(still.sum()) > len(still):
        yield (
            f"at {int(still.sum())} of {len(still)} images the answer is flat where its gradient is not, and no"
            " surrogate is declared"
        )


def wide(subject: Subject) -> Iterator[str]:
    for dtype in (torch.float32, torch.float64):
        logits = answers(subject.build().to(dtype), images(network(), dtype))
        if logits.dtype != dtype:
            yield f"it answers {logits.dtype} to images of {dtype}"


def rebuilt(subject: Subject) -> Iterator[str]:
    if not subject.defense.trains:
        base = network()
        before = {name: value.clone() for name, value in base.state_dict().items()}
        subject.defense.build(base, NoTraining(), Draws(0, torch.arange(1)).stream("train"))
        after = base.state_dict()
        if after.keys() != before.keys() or any(not value.equal(before[name]) for name, value in after.items()):
            yield "build wrote into the network it was given, and `trains` is not set"
    other = subject.build()
    other.load_state_dict(copy.deepcopy(subject.model.state_dict()))
    if not answers(other, subject.data).equal(answers(subject.model, subject.data)):
        yield "built again and given the same weights it answers otherwise"


def bare(subject: Subject) -> Iterator[str]:
    inner = undefended(subject.model)
    if inner is not None:
        logits = answers(inner, subject.data)
        if len(logits) != len(subject.data) or not logits.isfinite().all():
            yield f"its undefended part answers {tuple(logits.shape)} to {len(subject.data)} images"


def settings(subject: Subject) -> Iterator[str]:
    def use(defense: Defense) -> Iterator[str]:
        logits = answers(subject.build(defense), subject.data)
        if not logits.isfinite().all():
            yield "its logits are not finite"

    yield from odd_settings(subject.defense, use)


RULES: tuple[Rule[Subject], ...] = (
    Rule("declared", declared, "What `list defenses` shows is read from the class"),
    Rule(
        "builds",
        builds,
        "build gives what is deployed: pixels in, logits (N, K) out, (N, K + 1) where it rejects",
        True,
    ),
    Rule("company", company, "An image's answer may depend on its own row alone, and random numbers come from `draws`"),
    Rule("randomness", randomness, "A random defense sets stochastic = True and takes every number from `draws`"),
    Rule("untouched", untouched, "What is deployed does not learn, and clones before it writes in place"),
    Rule("attacked", attacked, "What is attacked must be what is deployed: never ask whether gradients are wanted"),
    Rule(
        "gradients",
        gradients,
        "Attacks by gradients would fail for no merit of the defense: give Preprocess a surrogate (BPDA), by default"
        " the identity",
    ),
    Rule("jumps", jumps, "Say surrogate_gradients = True, or put the step into a Preprocess, so that the audit knows"),
    Rule("dtype", wide, "Make tensors by x.new_zeros, zeros_like or .to(x), never by a dtype or a device of their own"),
    Rule("rebuilt", rebuilt, "A checkpoint holds the state_dict alone: what is fitted must be a parameter or a buffer"),
    Rule("undefended", bare, "It is attacked as well: it takes the same images and gives finite logits"),
    Rule(
        "settings",
        settings,
        "Annotate fields with types, and refuse what means nothing by a ConfigError in __post_init__",
    ),
)
