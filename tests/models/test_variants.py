"""Quantised and pruned models: they are what they are called, answer as what is deployed, and are attacked as such."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic

from robustbench_local.audit.checklist import audit_model
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Status
from robustbench_local.core.access import Access, granted
from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import DataError, ModelError
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.architectures import normalised
from robustbench_local.models.classifier import Classifier
from robustbench_local.models.description import Description
from robustbench_local.models.first_of_tied import FirstOfTied
from robustbench_local.models.int8 import Int8, answers, deployed_state, int8_share
from robustbench_local.models.load import load_model
from robustbench_local.models.measured import nonzero, size
from robustbench_local.models.variants import make_variant
from robustbench_local.models.wrap import wrap
from robustbench_local.storage.checkpoints import weights_digest
from tests.helpers.small_networks import layer

X, Y = load_data("mnist", n=200, source="bundled")
CALIBRATION, _ = load_data("mnist", n=128, split="train", source="bundled")
ROBUST, PLAIN = load_model("zoo:mnist/adversarial_training"), load_model("zoo:mnist/none")
SHIPPED = {name: make_variant(ROBUST, name, CALIBRATION) for name in ("int8", "int8_dynamic", "pruned:0.5")}


def same_class(a: nn.Module, b: nn.Module, x: Tensor = X) -> float:
    return float((answers(a, x).argmax(1) == answers(b, x).argmax(1)).float().mean())


def gradient(model: nn.Module, x: Tensor, y: Tensor, draws: Draws | None = None) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(nn.functional.cross_entropy(call(model, leaf, draws), y, reduction="sum"), leaf)[0]


def int8_part(model: nn.Module) -> Int8:
    (part,) = (each for each in model.modules() if isinstance(each, Int8))
    return part


class Cut(nn.Module):
    """The broken twin: int8 answers, and no surrogate."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.net(x)
        return out


class Branching(nn.Module):
    """Of which torch.fx can trace parts alone; its answer comes in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 5, stride=3), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(384, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.mean() > 0.5:
            x = 1 - x
        return {"logits": self.head(self.body(x).flatten(1))}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 6, 5, stride=3), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        x = x + self.conv(x.relu())
        return self.head(x.mean((2, 3))), x


class Bypassed(nn.Module):
    """A layer that decides nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.layer(x.flatten(1))
        return x.flatten(1)[:, :10]


class Noisy(nn.Module):
    """Random, and does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1) + torch.rand(len(x), 784))
        return out


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(10, 784))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.t()


def seeded(make: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


# int8


def test_int8_is_int8_and_a_quarter_as_large() -> None:
    made = SHIPPED["int8"]
    weights = {name: tensor for name, tensor in deployed_state(made).items() if tensor.ndim > 1}
    assert {tensor.dtype for tensor in weights.values()} == {torch.int8}
    assert sum(tensor.numel() for tensor in weights.values()) == sum(
        p.numel() for p in ROBUST.parameters() if p.ndim > 1
    )
    assert int8_share(made) == 1 and int8_share(ROBUST) == 0
    assert 0.24 < size(made) / size(ROBUST) < 0.28
    dynamic = SHIPPED["int8_dynamic"]
    assert int8_share(dynamic) == (3136 * 80 + 80 * 10) / sum(p.numel() for p in ROBUST.parameters() if p.ndim > 1)
    assert 0.3 < size(dynamic) / size(ROBUST) < 0.4


@pytest.mark.parametrize("variant", SHIPPED)
def test_a_variant_names_nearly_every_image_as_the_float_model_does(variant: str) -> None:
    made = SHIPPED[variant]
    assert same_class(made, ROBUST) >= 0.98
    assert not torch.equal(answers(made, X), answers(ROBUST, X))
    assert not made.training and granted(made) is Access.GRADIENTS


def test_answers_are_the_kernels_and_gradients_the_float_models() -> None:
    part = int8_part(SHIPPED["int8"])
    hard = part.net(X[:20])
    assert torch.equal(part(X[:20].clone().requires_grad_()), hard) and torch.equal(part(X[:20]), hard)
    made = SHIPPED["int8"]
    assert torch.allclose(made(X[:20]), hard, rtol=1e-4, atol=1e-3)
    assert len(hard.unique()) < 128 < len(ROBUST(X[:20]).unique())
    leaf, other = (X[:20].clone().requires_grad_() for _ in range(2))
    weights = torch.rand(20, 10, generator=torch.Generator().manual_seed(0))
    found, wanted = (torch.autograd.grad((m(at) * weights).sum(), at)[0] for m, at in ((made, leaf), (ROBUST, other)))
    assert torch.equal(found, wanted) and float(wanted.abs().max()) > 0


def test_pgd_through_int8_breaks_at_least_what_is_transferred_from_float() -> None:
    made, x, y = make_variant(PLAIN, "int8", CALIBRATION), X[:60], Y[:60]
    direct = evaluate(made, x, y, "pgd", threat="linf:0.1")
    transferred = answers(made, evaluate(PLAIN, x, y, "pgd", threat="linf:0.1").x_adv).argmax(1) == y
    assert direct.robust_accuracy <= float(transferred.float().mean()) < 0.5
    assert direct.clean_accuracy > 0.95 and not direct.flags
    kernels = int8_part(made).net(direct.x_adv)  # the judge asked these
    assert torch.equal(kernels.argmax(1) == y, direct.robust)


def test_without_its_surrogate_int8_is_refused_and_broken() -> None:
    made = SHIPPED["int8"]
    cut = Cut(int8_part(made).net).eval()
    with pytest.raises(ModelError, match="states no surrogate"):
        evaluate(cut, X[:20], Y[:20], "pgd", threat="linf:0.1")
    effort = Effort(process=False).scaled(0.02)
    found = {each.check: each.status for each in audit_model(cut, X[:20], Y[:20], "linf:0.3", effort=effort).findings}
    assert found["gradients are there"] is Status.BROKEN
    found = {each.check: each.status for each in audit_model(made, X[:20], Y[:20], "linf:0.3", effort=effort).findings}
    assert found["gradients are there"] is found["gradients are true"] is Status.SOUND


def test_of_tied_logits_the_first_class_is_the_answer() -> None:
    """A robust network's logits are near to one another: of 8 bits, hundreds of the largest two are equal."""
    x, y = load_data("cifar10", n=300, source="bundled")
    calibration, _ = load_data("cifar10", n=64, split="train", source="bundled")
    made = make_variant(load_model("zoo:cifar10/adversarial_training"), "int8", calibration)
    kernels = answers(int8_part(made), x)
    most = kernels.topk(2).values
    tied = most[:, 0] == most[:, 1]
    assert 10 <= int(tied.sum()) < 60
    right = kernels.argmax(1) == y
    assert evaluate(made, x, y, "fgsm", threat="linf:0").clean.equal(right)
    assert evaluate(int8_part(made), x, y, "fgsm", threat="linf:0").clean.equal(right & ~tied)  # the broken twin
    order = answers(made, x).sort(descending=True).indices
    assert torch.equal(kernels.gather(1, order), kernels.sort(descending=True).values)  # whatever differed still does


@pytest.mark.slow
@pytest.mark.parametrize("variant", SHIPPED)
@pytest.mark.parametrize("threat", ["linf:0.1", "linf:0.3"])
def test_the_audit_accuses_no_variant_of_a_robust_model(variant: str, threat: str) -> None:
    card = audit_model(SHIPPED[variant], X[:100], Y[:100], threat)
    assert [each for each in card.findings if each.status > Status.SOUND] == []
    by_name = {each.check: each.status for each in card.findings}
    assert by_name["a fresh process"] is Status.SOUND


def test_dynamic_ranges_are_those_of_one_image() -> None:
    """torch's own layer takes them from the whole batch: the broken twin."""
    made = SHIPPED["int8_dynamic"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = quantize_dynamic(copy.deepcopy(ROBUST), {nn.Linear})
    alone = torch.cat([answers(made, x[None]) for x in X[:12]])
    assert torch.equal(answers(made, X[:12]), alone)
    assert not torch.allclose(answers(twin, X[:12]), torch.cat([answers(twin, x[None]) for x in X[:12]]))


@pytest.mark.parametrize("make", [Branching, Residual])
@pytest.mark.parametrize("variant", ["int8", "int8_dynamic"])
def test_branches_residuals_and_other_outputs(make: type[nn.Module], variant: str) -> None:
    net = seeded(make)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the second little is Linear
        made = make_variant(net, variant, CALIBRATION)
    assert same_class(made, net) >= 0.9
    if variant == "int8":
        assert int8_share(made) == 1
        assert torch.equal(gradient(made, X[:5], Y[:5]) == 0, gradient(net, X[:5], Y[:5]) == 0)
        assert len([part for part in made.modules() if isinstance(part, Int8)]) == (2 if make is Branching else 1)


def test_what_stands_around_a_network_stays() -> None:
    around = normalised(PLAIN, mean=(0.0,), std=(1.0,))
    described = Classifier(PLAIN, Description(expects="0-255"))
    said = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).half(), Description())
    for model in (around, described.eval(), said.eval()):
        made = make_variant(model, "int8" if model is not said else "pruned:0.5", CALIBRATION)
        assert same_class(made, model) >= 0.5
    made = make_variant(described, "int8", CALIBRATION)
    assert isinstance(made, FirstOfTied) and isinstance(made.net, Classifier) and isinstance(made.net.net, Int8)
    assert made.net.description == described.description


def test_a_random_defense_keeps_its_draws() -> None:
    model = load_model("zoo:mnist/noise_layers")
    made = make_variant(model, "int8", CALIBRATION[:64])
    draws = Draws(3, torch.arange(20))
    first, again, other = (call(made, X[:20], each) for each in (draws[:], draws[:], draws.stream("other")))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert int8_share(made) == 1
    assert float((first.argmax(1) == call(model, X[:20], draws[:]).argmax(1)).float().mean()) >= 0.9
    assert gradient(made, X[:20], Y[:20], draws[:]).abs().sum() > 0


def test_transposed_convolutions_stay_float() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(1, 4, 4, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 5, stride=5), nn.Flatten())
    net = nn.Sequential(net, nn.Linear(484, 10)).eval()
    made = make_variant(net, "int8", CALIBRATION)
    assert 0.9 < int8_share(made) < 1 and float((answers(made, X) - answers(net, X)).abs().max()) < 0.1


# what it is named by, copies, warnings


def test_each_variant_has_a_digest_of_its_own_and_always_the_same() -> None:
    digests = [weights_digest(model) for model in (ROBUST, *SHIPPED.values())]
    assert len({*digests}) == len(digests)
    assert [weights_digest(make_variant(ROBUST, name, CALIBRATION)) for name in SHIPPED] == digests[1:]
    other = make_variant(ROBUST, "int8", CALIBRATION / 2)
    assert weights_digest(other) != weights_digest(SHIPPED["int8"])
    assert weights_digest(make_variant(ROBUST, "pruned:0.6")) != weights_digest(SHIPPED["pruned:0.5"])


def test_the_model_given_stays_what_it_was() -> None:
    net = seeded(Residual).train()
    before, names = weights_digest(net), [name for name, _ in net.named_modules()]
    for variant in ("int8", "pruned:0.5"):
        make_variant(net, variant, CALIBRATION)
    assert weights_digest(net) == before and [name for name, _ in net.named_modules()] == names and net.training


@pytest.mark.parametrize("variant", SHIPPED)
def test_a_variant_can_be_copied_and_pickled(variant: str) -> None:
    made, file = SHIPPED[variant], io.BytesIO()
    torch.save(made, file, pickle_module=cloudpickle)
    file.seek(0)
    for other in (copy.deepcopy(made), torch.load(file, weights_only=False)):
        assert torch.equal(answers(other, X[:20]), answers(made, X[:20]))
        assert weights_digest(other) == weights_digest(made)


def test_torchs_own_warnings_reach_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = make_variant(ROBUST, "int8", CALIBRATION)
        evaluate(made, X[:10], Y[:10], "fgsm", threat="linf:0.1")
    assert torch.backends.quantized.engine in torch.backends.quantized.supported_engines


# pruning


def test_pruning_leaves_exactly_the_largest_weights_of_the_whole_network() -> None:
    net = seeded(Residual)
    made = make_variant(net, "pruned:0.37")
    pairs = list(zip(net.state_dict().items(), made.state_dict().values(), strict=True))
    before = torch.cat([tensor.flatten() for (name, tensor), _ in pairs if name.endswith("weight")])
    after = torch.cat([tensor.flatten() for (name, _), tensor in pairs if name.endswith("weight")])
    assert int((after == 0).sum()) == round(0.37 * len(after)) and nonzero(made) == int((after != 0).sum()) / len(after)
    assert torch.equal(after[after != 0], before[after != 0])
    assert float(before[after == 0].abs().max()) <= float(before[after != 0].abs().min())
    assert all(torch.equal(tensor, other) for (name, tensor), other in pairs if name.endswith("bias"))
    assert size(made) == size(net) and nonzero(net) == 1
    assert not any(getattr(part, "surrogate_gradients", False) for part in made.modules())


def test_weights_that_two_layers_share_are_pruned_once_and_stay_shared() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 784), nn.ReLU(), nn.Linear(784, 784))
    layer(net, 3).weight = layer(net, 1).weight
    made = make_variant(net, "pruned:0.5")
    assert layer(made, 3).weight is layer(made, 1).weight
    assert int((layer(made, 1).weight == 0).sum()) == 784 * 392


# errors


@pytest.mark.parametrize(
    "text", ["int4", "pruned", "pruned:", "pruned:0", "pruned:1", "pruned:x", "int8:3", "INT8", ""]
)
def test_what_is_no_variant_is_told_what_is(text: str) -> None:
    with pytest.raises(ModelError, match=r"unknown variant.*int8, int8_dynamic, or pruned:SHARE"):
        make_variant(PLAIN, text, CALIBRATION)


def scripted() -> nn.Module:
    module: Any = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    return module  # type: ignore[no-any-return]


def exported() -> nn.Module:
    net: Any = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    return torch.export.export(net, (X[:8],)).module()


def function() -> nn.Module:
    return wrap(lambda images: images.reshape(len(images), -1)[:, :10])


@pytest.mark.parametrize("variant", ["int8", "int8_dynamic", "pruned:0.5"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (scripted, "TorchScript"),
        (exported, "layer"),
        (function, "another program answers"),
        (lambda: SHIPPED["int8"], "int8 already"),
        (Functional, "layer"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_changed_is_refused_with_the_reason(make: Any, why: str, variant: str) -> None:
    with pytest.raises(ModelError, match=f'no variant "{variant}" of this model: .*{why}'):
        make_variant(make(), variant, X[:8])


@pytest.mark.parametrize(("make", "why"), [(Bypassed, "stay the same to the last bit"), (Noisy, "random numbers")])
def test_no_float_model_is_called_int8(make: type[nn.Module], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        make_variant(make(), "int8", X[:8])


def test_an_onnx_file_with_gradients_is_refused(tmp_path: Path) -> None:
    """Its graph in torch has layers, but onnxruntime answers."""
    net, path = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval(), tmp_path / "net.onnx"
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["out"], "dynamic_axes": {"x": {0: "n"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (X[:2],), path, dynamo=False, **names)
    assert granted(load_model(str(path))) is Access.GRADIENTS
    for variant in ("int8", "pruned:0.5"):
        with pytest.raises(ModelError, match="another program answers"):
            load_model(str(path), variant=variant, calibration=X[:8])


def test_int8_needs_images_of_the_right_form_and_a_cpu() -> None:
    with pytest.raises(ModelError, match="need calibration images"):
        make_variant(PLAIN, "int8")
    for wrong in (X[:0], X[0, 0], (255 * X).byte()):
        with pytest.raises(ModelError, match="calibration images are"):
            make_variant(PLAIN, "int8", wrong)
    with pytest.raises(DataError):
        make_variant(PLAIN, "int8", "images")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="it lies on meta, and torch computes int8 on the CPU"):
        make_variant(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).to("meta"), "int8", X[:8])


def test_the_user_is_told_where_most_weights_stay_float() -> None:
    with pytest.warns(UserWarning, match="of the weights of the variant .* 11% are int8"):
        make_variant(seeded(Residual), "int8_dynamic")


def test_by_name() -> None:
    made = load_model("zoo:mnist/adversarial_training", variant="int8", calibration=CALIBRATION)
    assert weights_digest(made) == weights_digest(SHIPPED["int8"])
    with pytest.raises(ModelError, match="unknown variant"):
        load_model("zoo:mnist/none", variant="int3")
