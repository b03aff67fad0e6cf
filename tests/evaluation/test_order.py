"""From Python a verdict is about an image, whatever comes before it, beside it or twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local import evaluate, load_data, load_model
from robustbench_local.audit.subject import Subject
from robustbench_local.core import losses
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.evaluation.evaluate import named_by_content
from tests.helpers.small_networks import Jittered

COUNT = 24
BACK, SHUFFLED = torch.arange(COUNT - 1, -1, -1), torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
TWICE = torch.tensor([3, 3, 7, 0, 3, 7])
BITS = ("clean", "robust", "robust_8bit", "forwards", "backwards")


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)).double().eval()


def pictures(model: nn.Module, count: int = COUNT, seed: int = 5) -> tuple[Tensor, Tensor]:
    # 9 pixels a side: the convolution sees every one of them, so that no two squares are worth the same
    x = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.no_grad():
        return x, model(x).argmax(1)


def same(part: Verdict, whole: Verdict, rows: Tensor) -> None:
    for name in (*BITS, "ids"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name
    assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)
    if whole.bits is not None:
        assert part.bits is not None and torch.equal(part.bits, whole.bits[rows])


@pytest.mark.parametrize("kind", ["deterministic", "random"])
@pytest.mark.parametrize(
    ("attack", "settings"),
    [
        ("noise", {}),
        ("pgd", {"steps": 3, "restarts": 2}),
        ("apgd", {"steps": 5}),
        ("square", {"steps": 20}),
        ("one_pixel", {"population": 10, "generations": 2}),
        ("pgd", {"steps": 3, "targets": "random"}),
    ],
)
def test_order_selection_company_and_duplicates_change_nothing(
    attack: str, settings: dict[str, Any], kind: str
) -> None:
    net = network()
    x, y = pictures(net)
    model = Jittered(net) if kind == "random" else net
    threat = "l0:2" if attack == "one_pixel" else "linf:0.03"

    def verdict(rows: Tensor, batch: int) -> Verdict:
        return evaluate(
            model,
            x[rows],
            y[rows],
            attack,
            threat,
            seed=1,
            precision="float64",
            batch_size=batch,
            eot=2,
            draws=3,
            **settings,
        )

    whole = verdict(torch.arange(COUNT), COUNT)
    for rows, batch in ((BACK, COUNT), (SHUFFLED, 7), (SHUFFLED[:5], 3), (TWICE, 4), (BACK[:1], 1)):
        same(verdict(rows, batch), whole, rows)


def test_in_float32_300_images_reversed_have_their_verdicts_but_for_near_ties() -> None:
    x, y = load_data("mnist", 300, source="bundled")
    model = load_model("zoo:mnist/adversarial_training")
    first = evaluate(model, x, y, "pgd", "linf:0.33", steps=5)
    back = evaluate(model, x.flip(0), y.flip(0), "pgd", "linf:0.33", steps=5)
    differ = first.robust != back.robust.flip(0)
    with torch.no_grad():
        ends = [losses.margin(model(verdict.x_adv), verdict.labels).abs() for verdict in (first, back)]
    assert 0.5 < first.robust_accuracy < 0.95
    assert not (differ & (ends[0] > 1e-3) & (ends[1].flip(0) > 1e-3)).any()
    assert (first.x_adv - back.x_adv.flip(0)).flatten(1).abs().amax(1).median() < 1e-6


def test_seeds_still_decide() -> None:
    x, y = pictures(network())
    first, other = (evaluate(network(), x, y, "noise", "linf:0.1", precision="float64", seed=s) for s in (0, 1))
    assert not (first.x_adv == other.x_adv).flatten(1).all(1).any()


@dataclass(frozen=True)
class Taught(Attack):
    """Moves every image by what it learnt, in the order in which it learnt it."""

    by: float = 0.0

    @property
    def own_images(self) -> int:
        return 5

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        weights = torch.arange(1, 6).to(x)
        return Taught(float((x.mean((1, 2, 3)) * weights).sum() / 15 * 0.03))

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.project(x + self.by, x)


def test_an_attacker_learns_the_same_from_its_images_in_any_order() -> None:
    net = network()
    (x, y), (own, labels) = pictures(net), pictures(net, 20, seed=6)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    verdicts = [
        evaluate(net, x, y, Taught(), "linf:0.03", precision="float64", attacker=(own[rows], labels[rows]))
        for rows in (torch.arange(20), order)
    ]
    same(verdicts[1], verdicts[0], torch.arange(COUNT))


def test_an_audit_asks_about_images_and_not_about_places() -> None:
    net = Jittered(network().float())
    x = torch.rand(6, 3, 9, 9, generator=torch.Generator().manual_seed(2))
    y = net.net(x).argmax(1)
    ahead, back = (Subject(net, x[r], y[r], ThreatModel.parse("linf:0.03")) for r in (slice(None), BACK[-6:]))
    assert torch.allclose(ahead.ask(x), back.ask(x.flip(0)).flip(0), atol=1e-6)
    assert torch.allclose(ahead.perturbed, back.perturbed.flip(0), atol=1e-6)


def test_what_an_image_is_known_by() -> None:
    """By its values alone: not by type, layout, company, sign of a zero; and one pixel's last bit is another image."""
    x = torch.rand(5, 3, 4, 6)
    x[:, 0, 0, 0] = 0.0
    known = fingerprint(x)
    assert len(known.unique()) == 5
    for other in (
        x.double(),
        x.to(memory_format=torch.channels_last),
        x.clone().requires_grad_(),
        torch.where(x == 0, -0.0, x),
        torch.stack([x, x], 4)[..., 0],
        x.repeat(2, 1, 1, 1)[:5],
    ):
        assert torch.equal(fingerprint(other), known)
    assert torch.equal(fingerprint(x[3:4]), known[3:4]) and len(fingerprint(x[:0])) == 0
    changed = x.flatten(1).repeat(72, 1)
    places = torch.arange(72).repeat_interleave(5)
    changed[torch.arange(360), places] = changed[torch.arange(360), places].nextafter(torch.tensor(2.0))
    assert len(torch.cat([fingerprint(changed.view(-1, 3, 4, 6)), known]).unique()) == 365
    grey = (torch.arange(256) / 255).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    assert len(fingerprint(grey).unique()) == 256
    assert torch.equal(named_by_content(x, torch.zeros(5, dtype=torch.int64)).ids, known)
