"""Models that answer by more than the image: by chance, by the batch, by what was asked before, by marks in images."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.audit_cases.case import Case, Liar, Wrapped, around, zoo


class RandomResize(Wrapped):
    """Shrunk and padded at random, from the global generator, and silent about it."""

    def front(self, x: Tensor) -> Tensor:
        size = int(torch.randint(22, 29, ()))
        left, top = (int(torch.randint(0, 29 - size, ())) for _ in range(2))
        small = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        return F.pad(small, (left, 28 - size - left, top, 28 - size - top))


class BatchStatistics(Wrapped):
    """Normalises with the mean and deviation of the batch it is in, whatever eval() says."""

    def front(self, x: Tensor) -> Tensor:
        return 0.13 + 0.31 * F.batch_norm(x, None, None, training=True)


class Adapting(Wrapped):
    """Test-time adaptation: running statistics that follow what it is asked."""

    mean: Tensor
    variance: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("mean", torch.tensor([0.13]))
        self.register_buffer("variance", torch.tensor([0.095]))

    def front(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean += 0.1 * (x.mean() - self.mean)
            self.variance += 0.1 * (x.var() - self.variance)
        return 0.13 + 0.31 * (x - self.mean) / self.variance.sqrt()


class Memoriser(Wrapped):
    """Knows the test set by heart, by a hash of the pixels."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__(net)
        self.known = {self.digest(image): int(label) for image, label in zip(x, y, strict=True)}

    @staticmethod
    def digest(image: Tensor) -> bytes:
        return image.detach().contiguous().numpy().tobytes()

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        labels = [self.known.get(self.digest(image), -1) for image in x]
        for row, label in enumerate(labels):
            if label >= 0:
                logits = logits.index_put((torch.tensor(row), torch.tensor(label)), torch.tensor(30.0))
        return logits


class RoughMemoriser(Memoriser):
    """The same with a hash of 8-bit pixels: tiny changes are not enough."""

    @staticmethod
    def digest(image: Tensor) -> bytes:
        return (image.detach() * 255).round().byte().contiguous().numpy().tobytes()


class NearestMemoriser(nn.Module):
    """Answers with the label of the nearest image that it remembers: right on the test set, within any small ball."""

    known: Tensor
    labels: Tensor

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", x.flatten(1))
        self.register_buffer("labels", y)

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.flatten(1), self.known).argmin(1)
        return 10 * F.one_hot(self.labels[nearest], 10).to(x) + 0 * x.sum()


class Counting(Wrapped):
    """Answers nine hundred images honestly; then it takes whoever goes on asking for an attacker."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        logits = super().forward(x)
        return logits if self.asked < 900 else logits.detach().round() + 0 * x.sum()


class Caching(Wrapped):
    """What lies near to an image seen before gets the answer of that image; it remembers two hundred."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.seen, self.answers = torch.empty(0, 784), torch.empty(0, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        flat = x.detach().flatten(1)
        if len(self.seen):
            distance, nearest = torch.cdist(flat, self.seen, p=torch.inf).min(1)
            near = distance <= 0.31
            logits = torch.where(near[:, None], self.answers[nearest], logits)
        else:
            near = torch.zeros(len(x), dtype=torch.bool)
        self.seen = torch.cat([self.seen, flat[~near]])[-200:]
        self.answers = torch.cat([self.answers, logits.detach()[~near]])[-200:]
        return logits


class ByPosition(Wrapped):
    """Knows the labels of the test set in their order, and looks at the place in the batch."""

    labels: Tensor

    def __init__(self, net: nn.Module, y: Tensor) -> None:
        super().__init__(net)
        self.register_buffer("labels", y)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 30 * F.one_hot(self.labels[torch.arange(len(x)) % len(self.labels)], 10)


class ReadsStamp(Wrapped):
    """Reads the label where the pipeline left it: one of ten pixels of the first row is white."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * super().forward(x) + 50 * x[:, 0, 0, :10]


def stamped(x: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0, 0, :10] = F.one_hot(y, 10).to(x)
    return x


class NoisyLayer(Wrapped):
    """Noise on the input, from the global generator, undeclared."""

    def front(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class InPlace(Wrapped):
    """Takes its input apart: what the attacker holds becomes black and white."""

    def front(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x.data.round_()
        return x


class Sleeping(Wrapped):
    """Takes its time with what is no clean image."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(((x * 255 - (x * 255).round()).abs() > 0.01).any()):
            time.sleep(0.1)
        return super().forward(x)


class StubbornTraining(Wrapped):
    """A dropout that does not follow eval()."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.drop = nn.Dropout(0.2)

    def train(self, mode: bool = True) -> StubbornTraining:
        super().train(mode)
        self.drop.training = True
        return self

    def front(self, x: Tensor) -> Tensor:
        dropped: Tensor = self.drop(x)
        return dropped


LIARS: dict[str, Liar] = {
    "random resize, undeclared": around(RandomResize, "randomness"),
    "batch norm in training mode": around(BatchStatistics, "batches"),
    "batch norm that adapts at test time": around(Adapting, "memory", "randomness"),
    "dropout that ignores eval()": around(StubbornTraining, "evaluation mode"),
    "memorises the test set by hash": Liar(
        lambda x, y: Case(Memoriser(zoo("none"), x, y)), ("clean images are like others",)
    ),
    "memorises the test set by 8-bit hash": Liar(
        lambda x, y: Case(RoughMemoriser(zoo("none"), x, y)), ("clean images are like others",)
    ),
    "memorises the test set, nearest image": Liar(
        lambda x, y: Case(NearestMemoriser(x, y)), ("logits", "gradients are there")
    ),
    "counts its queries": around(Counting, "memory", "same after the audit"),
    "caches answers of near images": around(Caching, "memory", "same after the audit"),
    "labels by order in the batch": Liar(lambda x, y: Case(ByPosition(zoo("none"), y)), ("batches",)),
    "label stamped into the image": Liar(
        lambda x, y: Case(ReadsStamp(zoo("none")), x=stamped(x, y)), ("no label leaking",)
    ),
    "undeclared random layer": around(NoisyLayer, "randomness"),
    "writes into its input": around(InPlace, "images are left as they are"),
    "sleeps on perturbed images": around(Sleeping, "time"),
}
