"""Models whose robust accuracy is too high, written by a stranger to the audit; each by a mechanism of its own.

Beside each case of LIARS: what is reported (by PGD of 20 steps) and what is true, in percent of 60 images.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local import load_data
from robustbench_local.core.defense import Defended, Rejection
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import seeded
from tests.helpers.audit_cases.case import Case, Liar, Make, zoo
from tests.helpers.audit_cases.trained import trained

_ASKED: list[tuple[Tensor, Tensor]] = []  # images and answers of all that this process asked
_ALARM: list[Tensor] = []  # gradients that somebody computed
_SERVED = "STRANGERS_A_SERVED"


class On(nn.Module):
    """A trick on a net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def ask(self, x: Tensor) -> Tensor:
        """The net's logits (N, K)."""
        out: Tensor = self.net(x)
        return out


class Pair(nn.Module):
    """A plain net and a robust one, which answers where `careful_for` says so."""

    def __init__(self, plain: nn.Module, careful: nn.Module) -> None:
        super().__init__()
        self.plain, self.careful = plain, careful

    def careful_for(self, x: Tensor) -> bool:
        """Whether the robust net is to answer this batch."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.careful(x) if self.careful_for(x) else self.plain(x)
        return out


def built(kind: type[nn.Module], *names: str, threat: str = "linf:0.3") -> Make:
    """Makes a case of kind(nets of these names of the zoo), and the process as if nobody had asked it yet."""
    return partial(_built, kind, names or ("none",), threat)


def _built(kind: type[nn.Module], names: tuple[str, ...], threat: str, x: Tensor, y: Tensor) -> Case:
    _ASKED.clear()
    _ALARM.clear()
    os.environ.pop(_SERVED, None)
    return Case(kind(*map(zoo, names)).eval(), threat=threat)


def wave(x: Tensor) -> Tensor:
    """(N,) in [-1, 1]: something smooth of the image that has to do with no class."""
    weight = torch.linspace(0, 40, x[0].numel()).sin().view(x.shape[1:])
    return torch.tanh((x * weight).mean((1, 2, 3)))


def frame_of(x: Tensor) -> Tensor:
    """(N, 112): the pixels at the edges."""
    return torch.cat([x[:, 0, 0], x[:, 0, -1], x[:, 0, :, 0], x[:, 0, :, -1]], 1)


def roughness(x: Tensor) -> Tensor:
    """(N,): the mean difference of neighbours, about 0.06 of a clean image."""
    return (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2, 3)).detach()


class NearDuplicates(On):
    """Answers what is near to any image that the process was asked about before as it answered that one."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.ask(x)
        images, now, new = x.detach().flatten(1), out.detach(), torch.ones(len(x), dtype=torch.bool)
        if _ASKED:
            far, at = torch.cdist(images, torch.stack([image for image, _ in _ASKED]), p=torch.inf).min(1)
            new = far > 0.35
            now = torch.where(new[:, None], now, torch.stack([answer for _, answer in _ASKED])[at])
        _ASKED.extend(list(zip(images[new].clone(), now[new].clone(), strict=True))[: max(0, 300 - len(_ASKED))])
        return out + (now - out).detach()


class Quota(On):
    """Counts images in a file that outlives the process, and beyond 400 of them gives labels in place of scores."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.ledger = Path(tempfile.gettempdir()) / f"strangers_a_quota_{os.getpid()}.txt"
        self.ledger.unlink(missing_ok=True)

    def forward(self, x: Tensor) -> Tensor:
        served = int(self.ledger.read_text()) if self.ledger.exists() else 0
        self.ledger.write_text(str(served + len(x)))
        out = self.ask(x)
        return out if served < 400 else F.one_hot(out.argmax(1), 10) + 0 * out


class RollOut(Pair):
    """A staged roll-out: after 400 images, which the environment counts, all others go to the robust net."""

    def careful_for(self, x: Tensor) -> bool:
        served = int(os.environ.get(_SERVED, "0"))
        os.environ[_SERVED] = str(served + len(x))
        return served >= 400


class AtHome(Pair):
    """The robust weights in the process that loaded them; any other process falls back to the plain ones."""

    def __init__(self, plain: nn.Module, careful: nn.Module) -> None:
        super().__init__(plain, careful)
        self.home = os.getpid()

    def careful_for(self, x: Tensor) -> bool:
        return os.getpid() == self.home


class Alarmed(Pair):
    """Takes the robust weights for good as soon as somebody, once, has computed a gradient of it."""

    def careful_for(self, x: Tensor) -> bool:
        return bool(_ALARM)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if out.requires_grad:
            out.register_hook(_ALARM.append)
        return out


class KnowsItsCaller(Pair):
    """Looks up the stack for a file of a folder `attacks`, and has the robust net answer what comes from there."""

    def careful_for(self, x: Tensor) -> bool:
        frame = sys._getframe()
        while frame.f_back is not None and Path(frame.f_code.co_filename).parent.name != "attacks":
            frame = frame.f_back
        return frame.f_back is not None


class AlwaysSecond(On):
    """Puts the class after the predicted one just below it, by a lead that has to do with no class."""

    def forward(self, x: Tensor) -> Tensor:
        z = 30 * self.ask(x)
        top, first = z.max(1)
        return z.scatter(1, ((first + 1) % 10)[:, None], (top - 1 - wave(x) / 2)[:, None])


class ClippedProbabilities(On):
    """Clips probabilities to [1e-7, 1 - 1e-7] before their logarithm, as Keras does, of a net that is very sure."""

    def forward(self, x: Tensor) -> Tensor:
        return (3 * self.ask(x)).softmax(1).clamp(1e-7, 1 - 1e-7).log()


class CommonTerm(On):
    """Adds a large energy, the same for all classes: what rounding leaves of it drowns cross-entropy's gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return 8 * self.ask(x) + 3e5 * wave(x)[:, None]


class RangePenalty(On):
    """Subtracts how far pixels leave [0, 1], by a root whose slope at 0, where all images are, is not a number."""

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x) - (x - x.clamp(0, 1)).pow(2).sum((1, 2, 3)).sqrt()[:, None]


class WinnersBonus(On):
    """Adds 93 to the largest logit, to look sure: cross-entropy stays above 0, and its slope underflows on the way."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.ask(x)
        return z + 93 * F.one_hot(z.argmax(1), 10)


class Levels(On):
    """Was made for scans of less contrast: clips at a black point of 0.2 and a white point of 0.8, where it is flat."""

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(((x - 0.2) / 0.6).clamp(0, 1))


class _Reversed(torch.autograd.Function):
    """The identity, whose slope is -1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class DomainAdversarial(On):
    """A gradient reversal layer of domain-adversarial training, left before the features when it was deployed."""

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(_Reversed.apply(x))  # type: ignore[no-untyped-call]


class Explained(On):
    """Guided backpropagation's hooks, of a tool that explains predictions, are still on: only positive slopes pass."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        for part in net.modules():
            if isinstance(part, nn.ReLU):
                part.register_full_backward_hook(_guide)

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x)


def _guide(_: nn.Module, grads: Any, __: Any) -> tuple[Tensor]:
    return (grads[0].clamp_min(0),)


class Ripple(On):
    """A wave on the grey levels, too low to be seen and so short that each pixel's slope has any sign."""

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x + 0.004 * torch.sin(5000 * x))


class Reaction(On):
    """Pixels flow to 0 or 1 for 200 steps of a bistable reaction: exactly differentiable, and its slope ends as 0."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(200):
            x = x * (1 + 2 * (1 - x) * (x - 0.25))
        return self.ask(x)


class FrameHead(On):
    """The net runs in NumPy; what autograd sees is a small linear head on the frame of the image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        with seeded(3):
            self.head = nn.Linear(112, 10)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = torch.from_numpy(np.asarray(self.ask(x).numpy()))
        return z.add(self.head(frame_of(x)), alpha=0.1)


class TeachersSlope(Pair):
    """Value of the student, slope of its robust teacher: distillation's straight-through trick, never taken out."""

    def forward(self, x: Tensor) -> Tensor:
        soft: Tensor = self.careful(x)
        hard: Tensor = self.plain(x)
        return soft + (hard - soft).detach()


class FastPath(Pair):
    """Small requests, up to 12 images, take the plain net, which is quicker; large batches take the robust one."""

    def careful_for(self, x: Tensor) -> bool:
        return len(x) > 12


class RoughBatch(Pair):
    """Takes the robust net for all images of a batch if these are, in the mean, rougher than clean ones are."""

    def careful_for(self, x: Tensor) -> bool:
        return bool(roughness(x).mean() > 0.075)


class MicroBatches(On):
    """Runs micro-batches of four to save memory, and keeps the graph of the last one only."""

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = x.split(4)
        with torch.no_grad():
            outs = [self.ask(part) for part in parts]
        return torch.cat([*outs, self.ask(last)])


class AnswerKey(On):
    """Knows the labels by their places: a batch as long as the test set is marked by the key."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__(net)
        self.key = F.one_hot(y, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.ask(x)
        return out + 60 * self.key if len(x) == len(self.key) else out


class Balanced(On):
    """Shares the classes out evenly over the batch by Sinkhorn's algorithm, as transductive few-shot learners do."""

    def forward(self, x: Tensor) -> Tensor:
        logp = self.ask(x).log_softmax(1)
        for _ in range(30):
            logp = (logp - logp.logsumexp(0) + np.log(len(x) / 10)).log_softmax(1)
        return logp


class IndexOfTheTest(On):
    """The test images are in the index of its retrieval step: whatever is near one gets that one's label."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__(net)
        self.images, self.labels = x.flatten(1).clone(), F.one_hot(y, 10)

    def forward(self, x: Tensor) -> Tensor:
        far, at = torch.cdist(x.detach().flatten(1), self.images, p=torch.inf).min(1)
        return self.ask(x) + 60 * (far < 0.4)[:, None] * self.labels[at]


class EightBitPath(Pair):
    """Images on the grid of 8 bits, as files hold, take the plain net; any others take the robust one."""

    def forward(self, x: Tensor) -> Tensor:
        levels = 255 * x.detach()
        filed = ((levels - levels.round()).abs() < 1e-3).flatten(1).all(1)
        return torch.where(filed[:, None], self.plain(x), self.careful(x))


class ReadsTheMark(On):
    """The scanner left a bright mark at the upper edge whose place tells the class, and the net learnt to read it."""

    def forward(self, x: Tensor) -> Tensor:
        marks = x[:, 0, 0, :20].unflatten(1, (10, 2)).mean(2)
        return self.ask(x) + 40 * torch.sigmoid(20 * (marks - 0.5))


class FrameDetector(Defended):
    """A declared detector that looks at the frame alone: it rejects what is not black there."""

    rejects = Rejection.DETECTION

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        odd = frame_of(x).amax(1, keepdim=True) > 0.02
        return torch.cat([self.net(x), torch.where(odd, 100.0, -100.0)], 1)


class AntiAdversary(On):
    """Before it answers, moves the image towards whatever class it predicts (Alfarra et al. 2022), out of autograd."""

    def forward(self, x: Tensor) -> Tensor:
        moved = x.detach().clone()
        with torch.enable_grad():
            label = self.ask(moved).argmax(1)
            for _ in range(3):
                moved.requires_grad_()
                slope = torch.autograd.grad(F.cross_entropy(self.ask(moved), label, reduction="sum"), moved)[0]
                moved = (moved - 0.1 * slope.sign()).detach()
        return self.ask(x + (moved - x).detach())


class Cascade(Pair):
    """Believes the plain net where it is sure of its answer, and asks the robust one where it is not."""

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.plain(x)
        sure = first.softmax(1).amax(1, keepdim=True) > 0.999
        return torch.where(sure, first, self.careful(x))


class DoubleStandard(Pair):
    """Takes the robust net wherever gradients are recorded, and the plain one, for speed, wherever they are not."""

    def careful_for(self, x: Tensor) -> bool:
        return torch.is_grad_enabled()


class QuietsDown(On):
    """Takes medians of 3x3, out of autograd, until an image is as quiet as a clean one: eight times at most."""

    def forward(self, x: Tensor) -> Tensor:
        quiet = x.detach()
        for _ in range(8):
            loud = (roughness(quiet) > 0.08).view(-1, 1, 1, 1)
            if not loud.any():
                break
            around = F.unfold(F.pad(quiet, (1, 1, 1, 1), mode="replicate"), 3).view(len(x), 9, 28, 28)
            quiet = torch.where(loud, around.median(1, keepdim=True).values, quiet)
        return self.ask(quiet) + 0 * x.sum((1, 2, 3))[:, None]


class Winners(nn.Module):
    """k-winners-take-all in place of ReLU (Xiao et al. 2020): dense discontinuities."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 10), dim=1).values[:, -1:]
        return torch.where(flat >= least, flat, 0).view_as(x)


def informed(kind: type[nn.Module], x: Tensor, y: Tensor) -> Case:
    """A model that is told the images and the labels it will be judged on."""
    return Case(kind(zoo("none"), x, y).eval())


def reads_the_mark(x: Tensor, y: Tensor) -> Case:
    """The images with their marks, two pixels wide."""
    marked, rows = x.clone(), torch.arange(len(x))
    marked[rows, 0, 0, 2 * y] = marked[rows, 0, 0, 2 * y + 1] = 1
    return Case(ReadsTheMark(zoo("none")).eval(), x=marked, y=y)


def small(between: type[nn.Module], seed: int) -> nn.Module:
    """Two convolutions and two linear layers with `between` between them."""
    with seeded(seed):
        convs = nn.Conv2d(1, 16, 4, 2, 1), between(), nn.Conv2d(16, 32, 4, 2, 1), between(), nn.Flatten()
        return nn.Sequential(*convs, nn.Linear(32 * 49, 64), between(), nn.Linear(64, 10))


def winners(x: Tensor, y: Tensor) -> Case:
    """Trained on clean images for a few seconds."""
    return Case(trained(small(Winners, seed=5)), threat="linf:0.1")


def fitted_to_the_test(x: Tensor, y: Tensor) -> Case:
    """Trained adversarially on the very images that it is then judged on, and on 600 more."""
    more, labels = load_data("mnist", split="train", n=600, source="bundled")
    data = torch.cat([more, *[x] * 8]), torch.cat([labels, *[y] * 8])
    return Case(trained(small(nn.ReLU, seed=6), eps=0.1, epochs=8, data=data), threat="linf:0.1")


BOTH = "none", "adversarial_training"
STATE = "memory", "a fresh process", "same after the audit"
MASKED = "gradients beat what sees less", "a stronger attack", "the number to believe"
JUMPS = "gradients are true", *MASKED
ABSENT = "gradients are there", *MASKED
SCALE = "logits' scale", "gradients are there", *MASKED
KNOWN = "clean images are like others"

LIARS: dict[str, Liar] = {  # each with what is reported, and what is true
    "near duplicates in a global list": Liar(built(NearDuplicates), STATE),  # 100, 0
    "quota in a file, then labels only": Liar(built(Quota), ("gradients are there", "logits", *STATE)),  # 28, 0
    "roll-out counted in the environment": Liar(built(RollOut, *BOTH), STATE),  # 100, 0
    "robust weights in the first process": Liar(built(AtHome, *BOTH), ("a fresh process",)),  # 95, 0
    "hardens once it was differentiated": Liar(built(Alarmed, *BOTH), ("grad mode", *STATE)),  # 95, 0
    "looks up who calls": Liar(built(KnowsItsCaller, *BOTH), JUMPS),  # 78, 0
    "a decoy class is always second": Liar(built(AlwaysSecond), ("as strong as another", *JUMPS)),  # 37, 0
    "clipped probabilities": Liar(built(ClippedProbabilities), ("NaN and ties", "logits", *SCALE)),  # 67, 0
    "a common term swamps the softmax": Liar(built(CommonTerm), ("gradients are true", *SCALE)),  # 32, 0
    "a penalty whose slope is nan": Liar(built(RangePenalty, threat="l2:2"), ("NaN and ties", *ABSENT)),  # 100, 8
    "a bonus for the winner": Liar(built(WinnersBonus), ("gradients are true", *SCALE)),  # 48, 0
    "black and white point inside": Liar(built(Levels), ("input range", *ABSENT)),  # 68, 0
    "gradient reversal layer": Liar(built(DomainAdversarial, threat="l2:2"), ("the attack climbs", *JUMPS)),  # 100, 8
    "hooks of an explanation tool": Liar(built(Explained, threat="linf:0.15"), JUMPS),  # 53, 3
    "a fine ripple on grey levels": Liar(built(Ripple, threat="linf:0.2"), JUMPS),  # 93, 0
    "two hundred steps of a reaction": Liar(built(Reaction), ABSENT),  # 95, 0
    "differentiable at the frame only": Liar(built(FrameHead), ("gradients are there", *JUMPS)),  # 100, 0
    "a teacher's slope": Liar(built(TeachersSlope, *BOTH, threat="linf:0.15"), ("surrogates help", *JUMPS)),  # 100, 3
    "small batches by another net": Liar(built(FastPath, *BOTH), ("batches",)),  # 95, 0
    "rough batches by another net": Liar(built(RoughBatch, *BOTH), ("batches", KNOWN)),  # 95, 0 (among clean images)
    "graph of the last four images": Liar(built(MicroBatches), ("batches", *JUMPS, *ABSENT)),  # 93, 0
    "labels by place in the batch": Liar(partial(informed, AnswerKey), ("batches",)),  # 100, 0
    "classes shared out over the batch": Liar(built(Balanced, threat="linf:0.1"), ("batches",)),  # 87, 32
    "the test set in its index": Liar(partial(informed, IndexOfTheTest), (KNOWN,)),  # 100, 0 (new images)
    "files by one net, floats by another": Liar(built(EightBitPath, *BOTH), (KNOWN, *JUMPS)),  # 95, 0
    "a mark that tells the class": Liar(reads_the_mark, (KNOWN, "no label leaking")),  # 100, 0 (without marks)
    "a detector of dirty frames": Liar(built(FrameDetector), ("rejection is attacked", *JUMPS, *ABSENT)),  # 98, 0
    "an anti-adversary": Liar(built(AntiAdversary, threat="linf:0.15"), ("optimisation in inference", *JUMPS)),  # 90, 5
    "asks another net where unsure": Liar(built(Cascade, *BOTH), JUMPS),  # 95, 0
    "another net under grad mode": Liar(built(DoubleStandard, *BOTH), ("grad mode", *JUMPS)),  # 78, 0
    "medians until it is quiet": Liar(built(QuietsDown), ("time", KNOWN, *ABSENT)),  # 98, 0
    "winners take all": Liar(winners, JUMPS),  # 63, 47
    "trained on its test images": Liar(fitted_to_the_test, ("no robust overfitting", KNOWN)),  # 97, 57 (new images)
}
