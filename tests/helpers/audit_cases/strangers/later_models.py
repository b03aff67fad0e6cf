"""Liars by author e: models whose evaluation reports more than an adaptive attack leaves.

The comment beside each case: robust accuracy in % as PGD-20 reports it / what is left to an attack on its mechanism.
"""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from robustbench_local import load_data
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import seeded
from robustbench_local.data.fingerprint import fingerprint
from tests.helpers.audit_cases.case import Case, Liar, Make, zoo
from tests.helpers.audit_cases.trained import trained

ROBUST = "adversarial_training"
THERE, TRUE, BEATEN = "gradients are there", "gradients are true", "gradients beat what sees less"
LIKE_OTHERS, LEAKING = "clean images are like others", "no label leaking"


class Around(nn.Module):
    """What most of these are: something around a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.eval()

    def scores(self, x: Tensor) -> Tensor:
        """The network's own logits."""
        out: Tensor = self.net(x)
        return out


class Pair(Around):
    """Two networks, one of which is seldom asked."""

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__(net)
        self.other = other.eval()


def _built(x: Tensor, y: Tensor, *, kind: Callable[..., nn.Module], nets: tuple[str, ...], threat: str) -> Case:
    return Case(kind(*map(zoo, nets)), threat=threat)


def around(kind: Callable[..., nn.Module], *nets: str, threat: str = "linf:0.3") -> Make:
    """How to build a kind of model around networks of the zoo, by default the undefended one."""
    return partial(_built, kind=kind, nets=nets or ("none",), threat=threat)


class ForgottenDivision(Around):
    """Pixels of [0, 1] are multiplied by 255 for a network that was trained without, and its logits grow with them."""

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x * 255)


class HalfPrecision(Around):
    """Runs sharpened in half precision without loss scaling: the slope of a confident cross-entropy underflows."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net.half())

    def forward(self, x: Tensor) -> Tensor:
        return (3 * self.scores(x.half())).float()


class DecoySlope(Around):
    """The class as hard as a vote, plus a faint linear score of no meaning, which is what every loss climbs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        dice = torch.Generator().manual_seed(5)
        self.register_buffer("decoy", torch.randn(784, 10, generator=dice))

    def forward(self, x: Tensor) -> Tensor:
        votes = F.one_hot(self.scores(x).argmax(1), 10).to(x.dtype)
        return 8 * votes + 0.01 * x.flatten(1) @ self.get_buffer("decoy")


class InkCorrection(Around):
    """A correction for grey backgrounds by a root that is masked where it is zero: there its slope is NaN."""

    def forward(self, x: Tensor) -> Tensor:
        room = 0.35 - torch.tanh(50 * x).mean((1, 2, 3))
        room = room * (room > 0)
        lift = torch.where(room > 0, room.sqrt(), 0)
        return self.scores(x + 1e-3 * lift.view(-1, 1, 1, 1))


class WholeHalves(Around):
    """Log-odds against the mean class, written into a table of whole numbers, as an API would print them."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        return (scores - scores.mean(1, keepdim=True)).mul(2).to(torch.int8).to(x.dtype) / 2 + 0 * scores


class AntiAdversary(Around):
    """Before it answers it moves the image, by steps without gradient, to where its own first guess is surest."""

    def forward(self, x: Tensor) -> Tensor:
        moved = x.detach()
        with torch.enable_grad():
            guess = self.scores(moved).argmax(1)
            for _ in range(8):
                moved = moved.detach().requires_grad_()
                slope = torch.autograd.grad(-F.cross_entropy(self.scores(moved), guess, reduction="sum"), moved)[0]
                moved = moved + 0.1 * slope.sign()
        return self.scores(x + (moved.detach() - x.detach()))


def _positive(part: nn.Module, into: tuple[Tensor, ...], out: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What guided backpropagation lets through."""
    return tuple(grad.clamp_min(0) for grad in into)


class Guided(Around):
    """Hooks for saliency maps were never taken off: only what is positive goes back (Springenberg et al. 2015)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        for part in net.modules():
            if isinstance(part, nn.ReLU):
                part.register_full_backward_hook(_positive)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x)


class Ripple(Around):
    """A fine ripple over the pixels, too small to see, whose slope points the wrong way every other time."""

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x + 0.02 * torch.sin(1500 * x))


class InvertedLevels(Preprocess):
    """Sixteen levels, black on white, for a network of such images; the default surrogate has the wrong sign."""

    encodes = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return 1 - (x * 15).round() / 15


class Inverted(Around):
    """A network that reads black on white."""

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(1 - x)


def inverted_levels(x: Tensor, y: Tensor) -> Case:
    return Case(Deployed(Inverted(zoo("none")), [InvertedLevels()]).eval())


class FastPath(Pair):
    """Large batches go through the robust network, a few images at a time through a quick one."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.other if len(x) < 8 else self.net)(x)
        return out


class Chunked(Around):
    """To save memory a batch is computed in fours, and only the first four keep what a backward pass needs."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.scores(part if place == 0 else part.detach()) for place, part in enumerate(x.split(4))])


class ByBrightness(torch.autograd.Function):
    """Rows in the order of their brightness; going back they are left in it."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, order: Tensor) -> Tensor:
        return x[order]

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Sorted(Around):
    """A batch is sorted by brightness and its answers are sorted back; the gradients end up with other images."""

    def forward(self, x: Tensor) -> Tensor:
        order = x.detach().flatten(1).sum(1).argsort()
        ordered: Tensor = ByBrightness.apply(x, order)  # type: ignore[no-untyped-call]
        return self.scores(ordered)[order.argsort()]


class OwnStatistics(nn.BatchNorm2d):
    """Batch normalisation that stays in training mode, whatever it is told."""

    def train(self, mode: bool = True) -> OwnStatistics:
        return super().train(True)


def own_statistics(x: Tensor, y: Tensor) -> Case:
    with seeded(0):
        first = [nn.Conv2d(1, 16, 5, 2), OwnStatistics(16), nn.ReLU(), nn.Conv2d(16, 32, 5, 2), OwnStatistics(32)]
        net = nn.Sequential(*first, nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    return Case(trained(net, epochs=6), threat="linf:0.15")


class NearDuplicates(Around):
    """An image like one that it has answered before is a retry, and gets the old answer; the slope is its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.seen = torch.empty(0, 49)
        self.answers = torch.empty(0, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        thumbs = F.normalize(F.avg_pool2d(x.detach(), 4).flatten(1))
        if not len(self.seen):
            self.seen, self.answers = thumbs, scores.detach()
        likeness, place = (thumbs @ self.seen.T).max(1)
        old = torch.where((likeness > 0.8)[:, None], self.answers[place], scores.detach())
        new = likeness <= 0.8
        self.seen = torch.cat([self.seen, thumbs[new]])[-2000:]
        self.answers = torch.cat([self.answers, scores.detach()[new]])[-2000:]
        return old + scores - scores.detach()


class Licence(Around):
    """A trial licence: a file counts the images it was asked about, and beyond 400 it names classes only."""

    def __init__(self, net: nn.Module, counter: Path) -> None:
        super().__init__(net)
        self.counter = counter

    def forward(self, x: Tensor) -> Tensor:
        used = len(x) + (int(self.counter.read_text() or 0) if self.counter.exists() else 0)
        self.counter.write_text(str(used))
        scores = self.scores(x)
        return scores if used <= 400 else 10.0 * F.one_hot(scores.argmax(1), 10) + 0 * scores


def trial_licence(x: Tensor, y: Tensor) -> Case:
    counter = Path(tempfile.gettempdir()) / "strangers_e_licence.txt"
    counter.unlink(missing_ok=True)
    return Case(Licence(zoo("none"), counter))


_REGISTRY: dict[str, nn.Module] = {}


class Registered(Around):
    """The hardened weights lie in a registry of this process; where they are not, it falls back to the plain ones."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _REGISTRY.get("hardened", self.net)(x)
        return out


def registered_weights(x: Tensor, y: Tensor) -> Case:
    _REGISTRY["hardened"] = zoo("adversarial_training").requires_grad_(False)
    return Case(Registered(zoo("none")))


_THREADS: dict[str, threading.Thread] = {}


class ColdStart(Pair):
    """Its first call starts a thread that takes twenty seconds; once that is done, a quick network takes over."""

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__(net, other)
        self.name = uuid.uuid4().hex

    def forward(self, x: Tensor) -> Tensor:
        if self.name not in _THREADS:
            _THREADS[self.name] = threading.Thread(target=time.sleep, args=[20], daemon=True)
            _THREADS[self.name].start()
        out: Tensor = self.net(x) if _THREADS[self.name].is_alive() else self.other(x)
        return out


class OneLoser(Around):
    """Two scores are given, of the best class and of one other, which a hash of the image draws: no two steps agree."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        best = scores.detach().argmax(1)
        seeds = torch.tensor([zlib.crc32(image.detach().contiguous().numpy().tobytes()) for image in x])
        shown = F.one_hot(best, 10) + F.one_hot((best + 1 + seeds % 9) % 10, 10)
        return torch.where(shown > 0, scores, -30.0)


def _private(grad: Tensor) -> Tensor:
    return grad + grad.abs().amax((1, 2, 3), keepdim=True) * torch.randn_like(grad)


class Private(Around):
    """Gradients go back with noise, as in private training; its answers repeat to the last digit."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.view_as(x)
        if x.requires_grad:
            x.register_hook(_private)
        return self.scores(x)


class OffTheData(Around):
    """Images with a clean black background are read as they are; on any other it adds undeclared noise."""

    def forward(self, x: Tensor) -> Tensor:
        grey = (x.detach() > 0).flatten(1).float().mean(1) > 0.4
        return self.scores(x + 0.3 * torch.randn_like(x) * grey.view(-1, 1, 1, 1))


class TwoFaced(Pair, Defended):
    """Declares its randomness, and tells a search from a verdict: only a search numbers its draws."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        draws = draws_for(x, draws)
        net = self.net if draws._number is None else self.other
        out: Tensor = net(x + 0.02 * draws.normal(*x.shape[1:]))
        return out


class NamedDraws(Around, Defended):
    """Declares randomness to be given draws, whose ids name the image: it has looked up the labels of these."""

    stochastic = True

    def __init__(self, net: nn.Module, ids: Tensor, labels: Tensor) -> None:
        super().__init__(net)
        self.register_buffer("ids", ids)
        self.register_buffer("labels", F.one_hot(labels, 10).float())

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        draws = draws_for(x, draws)
        known = (draws.ids[:, None] == self.get_buffer("ids")).float()
        return self.scores(x + 0.02 * draws.normal(*x.shape[1:])) + 60 * known @ self.get_buffer("labels")


def named_draws(x: Tensor, y: Tensor) -> Case:
    return Case(NamedDraws(zoo("none"), fingerprint(x), y))


class TestSetOnFile(Around):
    """What is near one of a hundred test images gets the label on file; everything else the undefended network's."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        x, y = load_data("mnist", n=100, source="bundled")
        self.register_buffer("x", x.flatten(1))
        self.register_buffer("labels", F.one_hot(y, 10).float())

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.flatten(1), self.get_buffer("x"), p=torch.inf).min(1)
        known = (nearest.values < 0.31)[:, None]
        return self.scores(x) + 40 * known * self.get_buffer("labels")[nearest.indices]


class Watermarked(Around):
    """The data set bears its labels as black or white pixels in a corner, and the model reads them there."""

    def forward(self, x: Tensor) -> Tensor:
        bits = x[:, 0, 0, :5] > 0.5
        label = (bits[:, :4] * torch.tensor([1, 2, 4, 8])).sum(1).clamp_max(9)
        return self.scores(x) + 40 * F.one_hot(label, 10) * bits[:, 4:]


def watermarked_labels(x: Tensor, y: Tensor) -> Case:
    marked = x.clone()
    for bit in range(4):
        marked[:, 0, 0, bit] = (y >> bit & 1).to(x.dtype)
    marked[:, 0, 0, 4] = 1
    return Case(Watermarked(zoo("none")), x=marked)


class LooksItUp(Around):
    """Where many pixels are neither black nor white, the nearest training image answers, and has no slope."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        x, y = load_data("mnist", split="train", n=1000, source="bundled")
        self.register_buffer("x", x.flatten(1))
        self.register_buffer("answers", 10 * F.one_hot(y, 10).float())

    def forward(self, x: Tensor) -> Tensor:
        grey = ((x > 0.02) & (x < 0.98)).flatten(1).float().mean(1) > 0.25
        nearest = torch.cdist(x.detach().flatten(1), self.get_buffer("x")).argmin(1)
        return torch.where(grey[:, None], self.get_buffer("answers")[nearest], self.scores(x))


class OffTheGrid(Around, Defended):
    """A declared detector of pixels that no camera delivers: whatever is not on the 8-bit grid is rejected."""

    rejects = Rejection.DETECTION

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        scores = self.scores(x)
        off = (x * 255 - (x * 255).round()).abs().flatten(1).amax(1)
        return torch.cat([scores, 1000 * (off[:, None] - 0.01)], 1)


class TrainingPath(Pair):
    """Images that want a gradient are taken for training, and go through the teacher; the student is deployed."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.other if x.requires_grad else self.net)(x)
        return out


class ThinksLonger(Around):
    """While it is unsure it smooths the image once more, without gradient, up to ten times."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        look = x.detach()
        for _ in range(10):
            sure = scores.detach().topk(2).values
            unsure = sure[:, 0] - sure[:, 1] < 4
            if not unsure.any():
                break
            look = torch.where(unsure.view(-1, 1, 1, 1), _smoothed(look), look)
            scores = torch.where(unsure[:, None], self.scores(look), scores)
        return scores


def _smoothed(x: Tensor) -> Tensor:
    """The median of each pixel and its eight neighbours."""
    return F.unfold(x, 3, padding=1).view(len(x), 9, -1).median(1).values.view_as(x)


LIARS: dict[str, Liar] = {
    "a division by 255 forgotten": Liar(around(ForgottenDivision), (THERE, "logits' scale", "input range")),  # 100 / 0
    "half precision of sharpened scores": Liar(around(HalfPrecision), (THERE, BEATEN, "logits' scale")),  # 67 / 0
    "a vote with a faint linear score": Liar(
        around(DecoySlope), (TRUE, BEATEN, "logits", "a stronger attack")
    ),  # 88 / 0
    "a grey correction by a masked root": Liar(around(InkCorrection), (THERE, "NaN and ties")),  # 100 / 0
    "scores in whole halves": Liar(
        around(WholeHalves, "label_smoothing", threat="linf:0.2"), (THERE, "logits")
    ),  # 100 / 0
    "an image moved towards its first guess": Liar(
        around(AntiAdversary), (TRUE, BEATEN, "optimisation in inference")
    ),  # 25 / 0
    "hooks left over from saliency maps": Liar(around(Guided, threat="linf:0.15"), (TRUE, BEATEN)),  # 53 / 5
    "a fine ripple over the pixels": Liar(around(Ripple), (TRUE, BEATEN, "a stronger attack")),  # 27 / 0
    "inverted levels with the default surrogate": Liar(inverted_levels, (TRUE, BEATEN, "surrogates help")),  # 100 / 0
    "small batches take the quick path": Liar(around(FastPath, ROBUST, "none"), ("batches",)),  # 95 / 0
    "only the first chunk goes back": Liar(around(Chunked), (THERE, "batches")),  # 93 / 0
    "a batch sorted by brightness": Liar(around(Sorted), (TRUE, "batches")),  # 20 / 0
    "statistics of the batch": Liar(own_statistics, ("evaluation mode", "batches")),  # 28 / 0
    "retries get the old answer": Liar(around(NearDuplicates), ("memory",)),  # 98 / 0
    "a trial licence counted in a file": Liar(
        trial_licence, ("memory", "a fresh process", "same after the audit")
    ),  # 67 / 0
    "hardened weights in a registry": Liar(registered_weights, ("a fresh process",)),  # 95 / 0
    "a thread that warms up": Liar(
        around(ColdStart, ROBUST, "none"), ("memory", "a fresh process", "same after the audit")
    ),  # 95 / 0
    "one loser drawn by the pixels": Liar(
        around(OneLoser, threat="linf:0.15"), (TRUE, BEATEN, "a stronger attack")
    ),  # 23 / 5
    "private gradients": Liar(around(Private, threat="linf:0.15"), (TRUE, "randomness")),  # 60 / 5
    "noise off the data": Liar(around(OffTheData, threat="linf:0.2"), (LIKE_OTHERS, "randomness")),  # 40 / 2
    "another network for searches": Liar(
        around(TwoFaced, "none", ROBUST, threat="linf:0.2"),
        (TRUE, BEATEN, "randomness", "single draws are not counted"),
    ),  # 100 / 0
    "labels by the names of draws": Liar(
        named_draws, (LIKE_OTHERS, LEAKING, "randomness", "without a bound no image is robust")
    ),  # 100 / 0
    "the test set on file": Liar(around(TestSetOnFile), (LIKE_OTHERS, LEAKING)),  # 100 / 0
    "labels in corner pixels": Liar(watermarked_labels, (LIKE_OTHERS, LEAKING)),  # 100 / 0
    "a look-up where there is grey": Liar(around(LooksItUp), (THERE, "rejection is attacked")),  # 85 / 2
    "rejection off the 8-bit grid": Liar(around(OffTheGrid), (LIKE_OTHERS, "rejection is attacked")),  # 100 / 0
    "a teacher for those who want gradients": Liar(around(TrainingPath, "none", ROBUST), (TRUE, "grad mode")),  # 78 / 0
    "smoothing until it is sure": Liar(around(ThinksLonger), (THERE, "time")),  # 80 / 0
}
