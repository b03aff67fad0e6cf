"""Honest models of unusual form: other layers, precisions, outputs, wrappers and tasks, whose numbers are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local import load_data, load_model
from robustbench_local.attacks.apgd import APGD
from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.attack import Attack
from robustbench_local.core.model_state import seeded
from tests.helpers.audit_cases.case import Case, Make
from tests.helpers.audit_cases.trained import trained

MARGIN = PGD(steps=50, restarts=4, loss="margin")
TARGETED = APGD(steps=40, targets=9, loss="margin")


@dataclass(frozen=True)
class Grown:
    """A case of one net, trained from seeded first weights.

    then: turns the trained net into what is deployed. task: makes other images and labels of MNIST's, of both splits.
    """

    build: Callable[[], nn.Module]
    threat: str
    eps: float = 0.0
    epochs: int = 8
    lr: float = 2e-3
    attack: Attack | None = None
    then: Callable[[nn.Module], nn.Module] | None = None
    task: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Case:
        data = load_data("mnist", split="train", n=2000, source="bundled")
        if self.task:
            data, (x, y) = self.task(*data), self.task(x, y)
        with seeded(0):
            net = trained(self.build(), eps=self.eps, epochs=self.epochs, lr=self.lr, data=data)
        return Case(self.then(net) if self.then else net, self.attack, x, y, int(y.max()) + 1, self.threat)


def mlp(act: Callable[[], nn.Module] = nn.ReLU, width: int = 100, classes: int = 10, inputs: int = 784) -> nn.Module:
    """Two hidden layers on flat pixels."""
    half = width // 2
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, width), act(), nn.Linear(width, half), act(), nn.Linear(half, classes)
    )


def convs(act: Callable[[], nn.Module] = nn.ReLU, width: int = 8, classes: int = 10) -> nn.Module:
    """Two strided convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1),
        act(),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        act(),
        nn.Flatten(),
        nn.Linear(98 * width, classes),
    )


def pooled_gelu() -> nn.Module:
    """GELU, and average pooling in place of strides."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 32, 3, 1, 1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )


def normed_softplus() -> nn.Module:
    """Softplus after layer norms."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 120),
        nn.LayerNorm(120),
        nn.Softplus(),
        nn.Linear(120, 60),
        nn.LayerNorm(60),
        nn.Softplus(),
        nn.Linear(60, 10),
    )


class Sine(nn.Module):
    """sin(2x) as an activation."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(2 * x)


class Residual(nn.Module):
    """x + f(x), with group norm and ELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        once = [nn.GroupNorm(4, width), nn.ELU(), nn.Conv2d(width, width, 3, 1, 1)]
        self.inner = nn.Sequential(*once, nn.GroupNorm(4, width), nn.ELU(), nn.Conv2d(width, width, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.inner(x))


def residual_net() -> nn.Module:
    """Pre-activation residual blocks on 7x7 maps, global average at the end."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 4, 4),
        Residual(24),
        Residual(24),
        nn.ELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


class Dense(nn.Module):
    """Each layer reads all layers before it, as in DenseNet, with batch norm."""

    def __init__(self, width: int, growth: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width + i * growth), nn.LeakyReLU(0.1), nn.Conv2d(width + i * growth, growth, 3, 1, 1)
            )
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def dense_net() -> nn.Module:
    """A dense block between a stem and max pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1), nn.MaxPool2d(2), Dense(8, 8, 3), nn.BatchNorm2d(32), nn.Flatten(), nn.Linear(1568, 10)
    )


class PatchTransformer(nn.Module):
    """A vision transformer on 16 patches with a class token; torch's fast path serves it without gradients."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.1 * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, activation="gelu", batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.places
        return cast(Tensor, self.head(self.body(tokens)[:, 0]))


class RowReader(nn.Module):
    """A GRU that reads an image row by row."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.reader = nn.GRU(28, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.reader(x[:, 0])[0][:, -1]))


class Capsules(nn.Module):
    """Two rounds of routing by agreement between capsules; the logits are the lengths of the ten last vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 5, 2))
        self.votes = nn.Parameter(0.1 * torch.randn(50, 10, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.squash(self.stem(x).reshape(len(x), 50, 8))
        votes = torch.einsum("nid,icde->nice", parts, self.votes)
        agreement = votes.new_zeros(votes.shape[:3])
        for _ in range(2):
            whole = self.squash((agreement.softmax(2)[..., None] * votes).sum(1))
            agreement = agreement + (votes * whole[:, None]).sum(3)
        return 10 * (whole.square().sum(2) + 1e-6).sqrt()

    @staticmethod
    def squash(vector: Tensor) -> Tensor:
        square = vector.square().sum(-1, keepdim=True)
        return vector * (square + 1e-6).sqrt() / (1 + square)


class RadialBasis(nn.Module):
    """Gaussian kernels around 120 learnt centres in pixel space, read by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        x, _ = load_data("mnist", split="train", n=120, source="bundled")
        self.centres = nn.Parameter(x.flatten(1).clone())
        self.widths = nn.Parameter(torch.full((120,), 3.7).log())
        self.head = nn.Linear(120, 10)

    def forward(self, x: Tensor) -> Tensor:
        square = (x.flatten(1)[:, None] - self.centres).square().sum(2)
        return cast(Tensor, self.head(20 * torch.exp(-square / (2 * self.widths.exp().square()))))


class Prototypes(nn.Module):
    """The negative squared distance to one learnt prototype a class, in a learnt space."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = convs(nn.Tanh, classes=16)
        self.prototypes = nn.Parameter(torch.randn(10, 16))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, -(self.embed(x)[:, None] - self.prototypes).square().sum(2))


def linear_net() -> nn.Module:
    """One linear layer on pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def separable_net() -> nn.Module:
    """Depthwise separable convolutions with hard swish."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.Hardswish(),
        nn.Conv2d(16, 16, 3, 2, 1, groups=16),
        nn.Conv2d(16, 32, 1),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(1568, 10),
    )


class Quadratic(nn.Module):
    """Each logit is a quadratic form of low rank of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Linear(784, 80)
        self.signs = nn.Parameter(torch.randn(80, 10) / 5)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.factors(x.flatten(1)).square() @ self.signs)


class SoftTree(nn.Module):
    """A soft decision tree of depth 5: log-probabilities of a mixture of 32 leaves, by 31 sigmoid gates."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(784, 31)
        self.leaves = nn.Parameter(torch.randn(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        right = self.gates(x.flatten(1)).sigmoid()
        reach = right.new_ones(len(x), 1)
        for depth in range(5):
            here = right[:, 2**depth - 1 : 2 ** (depth + 1) - 1]
            reach = torch.stack([reach * (1 - here), reach * here], 2).flatten(1)
        return cast(Tensor, (reach @ self.leaves.softmax(1)).clamp_min(1e-30).log())


class Mixture(nn.Module):
    """Four small experts and a gate that weighs their logits."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(mlp(nn.SiLU, 40) for _ in range(4))
        self.gate = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.Softmax(1))

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.stack([expert(x) for expert in self.experts], 1)
        return cast(Tensor, (self.gate(x)[..., None] * answers).sum(1))


class Around(nn.Module):
    """What answers in another way than the net inside."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Cast(nn.Module):
    """A net that computes in one precision and answers in another."""

    def __init__(self, net: nn.Module, inside: torch.dtype, outside: torch.dtype) -> None:
        super().__init__()
        self.net, self.inside, self.outside = net.to(inside), inside, outside

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x.to(self.inside)).to(self.outside))


def frozen(net: nn.Module) -> nn.Module:
    """TorchScript whose weights are constants: it has no parameters left."""
    return cast(nn.Module, torch.jit.freeze(torch.jit.script(net)))


def traced(net: nn.Module) -> nn.Module:
    """TorchScript by tracing one batch."""
    return torch.jit.trace(net, torch.rand(3, 1, 28, 28))  # type: ignore[no-any-return]


def exported(net: nn.Module) -> nn.Module:
    """An exported program, which knows no eval()."""
    batch = {0: torch.export.Dim("n", min=1, max=4096)}
    return torch.export.export(net, (torch.rand(3, 1, 28, 28),), dynamic_shapes=(batch,)).module()


def compiled(net: nn.Module) -> nn.Module:
    """torch.compile without a code generator."""
    return cast(nn.Module, torch.compile(net, backend="aot_eager", dynamic=True))


class Committee(nn.Module):
    """Members of one form as stacked tensors, called by vmap; the log of their mean probabilities."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        stacked, _ = torch.func.stack_module_state(members)
        self.names, self.form = list(stacked), [members[0]]
        self.weights = nn.ParameterList(stacked.values())

    def member(self, weights: tuple[Tensor, ...], x: Tensor) -> Tensor:
        named = dict(zip(self.names, weights, strict=True))
        return cast(Tensor, torch.func.functional_call(self.form[0], named, (x,)))

    def forward(self, x: Tensor) -> Tensor:
        every: Tensor = torch.vmap(self.member, in_dims=(0, None))(tuple(self.weights), x)
        return every.log_softmax(2).logsumexp(0) - torch.tensor(len(every)).log()


def committee(x: Tensor, y: Tensor) -> Case:
    """Four nets of other seeds, called as one function of their weights."""
    with seeded(0):
        members = [trained(mlp(nn.Mish, 40), eps=0.1, epochs=5, seed=seed) for seed in range(4)]
    return Case(Committee(members), MARGIN, threat="linf:0.1")


class Pairs(Around):
    """Two digits side by side as one of 100 classes: each pair of log-probabilities summed."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = (self.net(half).log_softmax(1) for half in x.chunk(2, 3))
        return cast(Tensor, (left[:, :, None] + right[:, None]).flatten(1))


def pairs(x: Tensor, y: Tensor) -> Case:
    """100 classes: two digits in one wide image."""
    with seeded(0):
        net = trained(mlp(nn.CELU, 80), eps=0.1)
    return Case(Pairs(net), None, torch.cat([x, x.roll(1, 0)], 3), 10 * y + y.roll(1), 100, "linf:0.06")


def halved(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Five classes: a digit and its neighbour are one."""
    return x, y // 2


def parity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two classes: even and odd."""
    return x, y % 2


class OneLogit(Around):
    """One logit an image, (N,), as people train with a binary cross-entropy."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out[:, 1] - out[:, 0]


class Named(Around):
    """A dict with the logits among other things."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = self.net(x)
        return {"image_mean": x.mean((1, 2, 3)), "logits": out, "entropy": out.softmax(1).clamp_min(1e-9).log().sum(1)}


class Neighbours(nn.Module):
    """The log of the summed Gaussian kernels to each class's known images, all pooled 2x2: soft nearest neighbours."""

    def __init__(self, x: Tensor, y: Tensor, width: float) -> None:
        super().__init__()
        self.width = width
        self.known = nn.Parameter(F.avg_pool2d(x, 2).flatten(1))
        self.member = nn.Parameter(F.one_hot(y).float())

    def forward(self, x: Tensor) -> Tensor:
        near = (F.avg_pool2d(x, 2).flatten(1) @ self.known.T - self.known.square().sum(1) / 2) * (2 / self.width)
        return ((near - near.amax(1, keepdim=True)).exp() @ self.member).clamp_min(1e-35).log()


def neighbours(x: Tensor, y: Tensor) -> Case:
    """Soft nearest neighbours among 1,000 training images."""
    return Case(Neighbours(*load_data("mnist", split="train", n=1000, source="bundled"), 1.5), MARGIN, threat="l2:1")


def thousand(x: Tensor, y: Tensor) -> Case:
    """1,000 classes: matched filters tell which of 1,000 known images a noisy copy was."""
    known, _ = load_data("mnist", split="train", n=1000, source="bundled")
    noise = 0.2 * torch.randn(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 784, 1000))
    net.load_state_dict({"1.weight": known.flatten(1), "1.bias": -known.flatten(1).square().sum(1) / 2})
    return Case(net, None, (known[:60] + noise).clamp(0, 1), torch.arange(60), 1000, "l2:2.5")


class Scaled(nn.Module):
    """Logits times a constant, as a temperature that training left behind."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.scale * self.net(x))


def cropped(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images of 22 by 20 pixels."""
    return x[:, :, 3:25, 4:24].contiguous(), y


def dirtied(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The training images with noise and inverted digits among them, as two classes more; test images as they are."""
    if len(x) < 1000:
        return x, y
    noise = torch.rand(200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    more = torch.tensor([10, 11]).repeat_interleave(200)
    return torch.cat([x, noise, 1 - x[:200]]), torch.cat([y, more])


class Groups(Around):
    """Ten classes of colour photographs as two: machines and animals, by log-sum-exp."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        return torch.stack([out[:, [0, 1, 8, 9]].logsumexp(1), out[:, 2:8].logsumexp(1)], 1)


def photographs(x: Tensor, y: Tensor) -> Case:
    """Machines or animals on 32x32 photographs in colour."""
    x, y = load_data("cifar10", n=60, source="bundled")
    animal = ((y >= 2) & (y < 8)).long()
    return Case(Groups(load_model("zoo:cifar10/adversarial_training")), None, x, animal, 2, "linf:8/255")


THOUSANDTHS = partial(Scaled, scale=1e-3)
DOUBLE = partial(Cast, inside=torch.float64, outside=torch.float64)
BFLOAT16_INSIDE = partial(Cast, inside=torch.bfloat16, outside=torch.float32)
FLOAT16_OUTSIDE = partial(Cast, inside=torch.float32, outside=torch.float16)
NHWC = partial(nn.Module.to, memory_format=torch.channels_last)

# beside each: robust accuracy in % under the case's attack (PGD of 20 steps where it has none), and under `best`
HONEST: dict[str, Make] = {
    "sigmoid units": Grown(partial(mlp, nn.Sigmoid), "linf:0.05", epochs=15, lr=5e-3),  # 28.3 28.3
    "gelu and average pooling": Grown(pooled_gelu, "linf:0.2", eps=0.2, attack=TARGETED),  # 23.3 23.3
    "a network of sines": Grown(partial(mlp, Sine), "l2:0.6", attack=TARGETED),  # 61.7 61.7
    "residual blocks with group norm": Grown(residual_net, "linf:0.08", eps=0.1, epochs=5, attack=MARGIN),  # 80.0 78.3
    "a dense block with batch norm": Grown(dense_net, "linf:0.04", attack=MARGIN),  # 51.7 48.3
    "a patch transformer": Grown(PatchTransformer, "linf:0.02", epochs=14, lr=2e-3, attack=TARGETED),  # 56.7 56.7
    "a gru that reads rows": Grown(RowReader, "linf:0.02", epochs=12, lr=4e-3, attack=TARGETED),  # 71.7 73.3
    "capsules routed by agreement": Grown(Capsules, "linf:0.06", attack=MARGIN),  # 71.7 70.0
    "gaussian kernels around images": Grown(RadialBasis, "linf:0.08", attack=TARGETED),  # 56.7 56.7
    "distances to prototypes": Grown(Prototypes, "l2:1.2", eps=0.1, attack=TARGETED),  # 46.7 46.7
    "one linear layer": Grown(linear_net, "l2:0.7"),  # 65.0 65.0
    "quadratic forms": Grown(Quadratic, "linf:0.04"),  # 68.3 68.3
    "a soft decision tree": Grown(SoftTree, "linf:0.04", epochs=15, lr=5e-3),  # 63.3 60.0
    "a mixture of gated experts": Grown(Mixture, "linf:0.08", eps=0.1, attack=MARGIN),  # 76.7 76.7
    "double precision throughout": Grown(partial(mlp, nn.Tanh), "l1:6", then=DOUBLE, attack=APGD()),  # 23.3 21.7
    "bfloat16 inside": Grown(convs, "linf:0.1", eps=0.1, then=BFLOAT16_INSIDE),  # 78.3 75.0
    "float16 at the output": Grown(mlp, "linf:0.08", eps=0.1, then=FLOAT16_OUTSIDE, attack=MARGIN),  # 71.7 70.0
    # 66.7 66.7
    "separable and channels-last": Grown(separable_net, "linf:0.08", eps=0.1, epochs=6, then=NHWC, attack=MARGIN),
    "layer norms under dataparallel": Grown(normed_softplus, "linf:0.04", then=nn.DataParallel),  # 28.3 26.7
    "a compiled net": Grown(partial(convs, nn.Tanh), "linf:0.1", eps=0.1, then=compiled),  # 60.0 58.3
    "a scripted net": Grown(convs, "l2:1", eps=0.2, epochs=6, then=torch.jit.script),  # 86.7 85.0
    "a frozen script": Grown(mlp, "linf:0.04", then=frozen),  # 61.7 60.0
    "a traced net": Grown(pooled_gelu, "linf:0.08", then=traced),  # 25.0 23.3
    # 88.3 88.3
    "an exported program": Grown(partial(convs, nn.ReLU6), "linf:0.08", eps=0.1, then=exported, attack=MARGIN),
    "four nets by vmap": committee,  # 55.0 51.7
    "soft neighbours among training images": neighbours,  # 63.3 63.3
    "a thousand classes of one image each": thousand,  # 45.0 43.3
    "a hundred pairs of digits": pairs,  # 56.7 56.7
    "five classes": Grown(partial(convs, nn.SELU, classes=5), "linf:0.1", eps=0.1, task=halved),  # 40.0 38.3
    # 86.7 86.7
    "one logit for even and odd": Grown(partial(mlp, classes=2), "linf:0.05", eps=0.05, then=OneLogit, task=parity),
    "a dict of answers": Grown(mlp, "l2:1", eps=0.05, then=Named, attack=MARGIN),  # 58.3 55.0
    "logits in the hundreds": Grown(mlp, "linf:0.03", then=partial(Scaled, scale=40.0), attack=MARGIN),  # 76.7 76.7
    # 53.3 53.3
    "logits in thousandths": Grown(partial(mlp, nn.Softsign), "linf:0.04", then=THOUSANDTHS, attack=MARGIN),
    "images of 22 by 20": Grown(partial(mlp, nn.PReLU, inputs=440), "linf:0.04", task=cropped),  # 75.0 75.0
    # 38.3 36.7
    "two classes more for what is no digit": Grown(partial(mlp, nn.ELU, classes=12), "linf:0.05", task=dirtied),
    "machines or animals": photographs,  # 75.0 75.0
}
