"""`nearest`: within its passes, nearer than its members alone for as many, wherever the ball ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks import nearest
from robustbench_local.attacks._sparser import Sparser
from robustbench_local.attacks._swaps import Swaps
from robustbench_local.attacks._transfers import Transfers
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.fmn import FMN
from robustbench_local.attacks.nearest import SPARSE, Nearest
from robustbench_local.attacks.pdpgd import PDPGD
from robustbench_local.attacks.sigma_zero import SigmaZero
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model

HUGE = {Norm.L0: 784.0, Norm.L1: 784.0, Norm.L2: 28.0, Norm.LINF: 0.49}
PASSES = 400


@dataclass(frozen=True)
class Forgetful(FMN):
    """It begins at the clean image, whatever was found before."""

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return super().init(oracle, x, y, threat, draws, restart) | {"x_adv": x}


class Apart(Nearest):
    """FMN knows nothing of what FAB has found."""

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        members = super().members(norm)
        return {name: Forgetful(steps=each.steps) if isinstance(each, FMN) else each for name, each in members.items()}


class Graded(Nearest):
    """In L0 all passes are sigma-zero's."""

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        steps = (self.passes - 5) // (2 * len(SPARSE))
        return {str(size): SigmaZero(steps=steps, step_size=size, sigma=sigma) for size, sigma in SPARSE.items()}


class Lacking(Nearest):
    """Without the member of that name."""

    lacks: ClassVar[str]

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {name: member for name, member in super().members(norm).items() if name != self.lacks}


class Searching(Lacking):
    lacks = "swaps"


class Swapping(Lacking):
    lacks = "sparser"


class Sloping(Lacking):
    """In L1 no random search."""

    lacks = "transfers"


class Shrinking(Nearest):
    """In L1 all passes are PDPGD's."""

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"pdpgd": PDPGD(steps=(self.passes - 3) // 2, polish=0.4)}


class Misleading(nn.Module):
    """Class 1 by what its bright pixels are worth, with slopes that say something else."""

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(0)
        self.worth = nn.Parameter(torch.rand(64, generator=numbers))
        self.slope = nn.Parameter(torch.rand(64, generator=numbers) / 100)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        score = (x > 0.5).to(x) @ self.worth + x @ self.slope
        return torch.stack([torch.full_like(score, 3.5), score], 1)


class Alone(Nearest):
    """In L0 the random search alone, from random colours."""

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"sparser": Sparser(steps=self.passes - 2)}


def distances(attack: Attack, norm: Norm, images: int = 8, eps: float | None = None, passes: int = PASSES) -> Tensor:
    """(N,): how far the nearest is that was found, on the zoo's robust network; infinite where none was."""
    x, y = load_data("mnist", n=images, source="bundled")
    verdict = evaluate(load_model("zoo:mnist/adversarial_training"), x, y, attack, ThreatModel(norm, eps or HUGE[norm]))
    assert int((verdict.forwards + verdict.backwards).max()) <= passes
    return verdict.distance


@pytest.mark.parametrize("norm", list(HUGE))
def test_no_image_takes_more_than_its_passes(norm: Norm, passes: int = 101) -> None:
    attack = Nearest(passes=passes)
    assert passes - 10 <= sum(attack.cost(10, norm)) <= passes
    x, y = load_data("mnist", n=2, source="bundled")
    verdict = evaluate(load_model("zoo:mnist/none"), x, y, attack, ThreatModel(norm, HUGE[norm]))
    spent = verdict.forwards + verdict.backwards
    assert passes - 20 <= int(spent.max()) <= passes


def test_each_norm_has_the_members_that_the_benchmark_found_best() -> None:
    attack = Nearest()
    thrice = [SigmaZero(steps=166, step_size=size, sigma=sigma) for size, sigma in SPARSE.items()]
    assert [*attack.members(Norm.L0).values()] == [*thrice, Swaps(steps=40), Sparser(steps=917)]
    assert attack.members(Norm.L1) == {
        "fmn": FMN(steps=50),
        "pdpgd": PDPGD(steps=100),
        "fab": FAB(steps=15, targets=3),
        "transfers": Transfers(steps=1255),
        "polish": FMN(steps=150),
    }
    assert Nearest(passes=200).members(Norm.L1)["pdpgd"] == PDPGD(steps=50)
    assert attack.members(Norm.L2) == {"fab": FAB(steps=49, targets=3, restarts=2), "fmn": FMN(steps=554)}
    assert attack.members(Norm.LINF) == {"fab": FAB(steps=79, targets=3, restarts=2), "fmn": FMN(steps=284)}
    with pytest.raises(ConfigError, match="passes is 99: at least 100"):
        Nearest(passes=99)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "nearer"), [(Norm.L2, 0.9), (Norm.LINF, 0.99)])
def test_it_comes_nearer_than_its_members_alone(norm: Norm, nearer: float) -> None:
    ours = distances(Nearest(passes=PASSES), norm).mean()
    assert ours < nearer * distances(FAB(steps=PASSES // 12 - 1), norm).mean()
    assert ours < nearer * distances(FMN(steps=PASSES // 2 - 2), norm).mean()
    assert distances(Apart(passes=PASSES), norm).mean() > 1.1 * ours


def test_the_ball_is_of_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [distances(Nearest(passes=100), Norm.L2, 2, eps) for eps in (0.5, 28.0)]
    assert torch.equal(*found)
    monkeypatch.setattr(nearest, "FAR", {})  # the twin: FAB's far starts end with the ball
    assert not torch.equal(distances(Nearest(passes=100), Norm.L2, 2, 0.5), found[0])


@pytest.mark.slow
def test_in_l0_random_search_drops_pixels_that_masked_gradients_keep() -> None:
    ours = distances(Nearest(), Norm.L0, passes=2000).mean()
    assert ours < 0.8 * distances(SigmaZero(steps=999), Norm.L0, passes=2000).mean()
    assert distances(Graded(), Norm.L0, passes=2000).mean() > 1.1 * ours  # the twin


@pytest.mark.parametrize("twin", [Graded, Swapping])
def test_in_l0_misleading_slopes_keep_it_from_no_pixel(twin: type[Nearest]) -> None:
    model = Misleading()
    x, y = torch.zeros(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64)

    def pixels(attack: Attack) -> Tensor:
        return evaluate(model, x, y, attack, ThreatModel(Norm.L0, 64)).distance

    best = model.worth.detach().sort(descending=True).values.cumsum(0)
    fewest = int((best < 3.4).sum()) + 1
    assert (best - 3.5).abs().min() > 0.1  # slopes are too small to make a difference
    assert (pixels(Nearest(passes=400)) == fewest).all()
    assert (pixels(twin(passes=400)) > fewest).all()


@pytest.mark.slow
def test_in_l0_swaps_drop_pixels_where_slopes_are_true() -> None:
    x, y = load_data("mnist", n=6, source="bundled")
    model = load_model("zoo:mnist/none")
    ours, search, graded = (
        evaluate(model, x, y, attack, ThreatModel(Norm.L0, 784)).distance.mean()
        for attack in (Nearest(passes=400), Searching(passes=400), Graded(passes=400))
    )
    assert ours < 0.96 * search and ours < 0.96 * graded  # twins: no swaps, and all passes to sigma-zero


@pytest.mark.parametrize("twin", [Sloping, Shrinking])
def test_in_l1_misleading_slopes_keep_it_from_no_coordinate(twin: type[Nearest]) -> None:
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(3)) / 100
    y = torch.zeros(3, dtype=torch.int64)

    def far(attack: Attack) -> Tensor:
        return evaluate(Misleading(), x, y, attack, ThreatModel(Norm.L1, 64)).distance

    ours = far(Nearest(passes=600))
    assert (ours > 1.9).all() and (ours < 4).all()  # four as far as 0.5 are enough
    assert (far(twin(passes=600)) > 5).all()


@pytest.mark.slow
@pytest.mark.parametrize("twin", [Sloping, Shrinking])
def test_in_l1_random_search_comes_nearer_where_gradients_are_masked(twin: type[Nearest]) -> None:
    ours, theirs = (distances(each(), Norm.L1, 16, passes=2000) for each in (Nearest, twin))
    assert ours.log().mean() < theirs.log().mean() - 0.08


def test_without_any_success_the_search_begins_with_all_pixels() -> None:
    found = distances(Alone(passes=200), Norm.L0, 4)
    assert found.isfinite().all() and (found < 100).all()


def test_the_search_ends_where_one_pixel_is_enough() -> None:
    """Class 1 needs one of two pixels to be white."""
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight.zero_()[1, [3, 8]] = 1
        layer.bias.copy_(torch.tensor([0.5, 0]))
    x, y = torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    verdict = evaluate(nn.Sequential(nn.Flatten(), layer), x, y, Sparser(steps=400), ThreatModel(Norm.L0, 16))
    assert (verdict.distance == 1).all()
    assert int(verdict.forwards.max()) < 200 and not verdict.backwards.any()


@pytest.mark.parametrize("norm", [Norm.L0, Norm.L1])
def test_each_image_is_searched_alone(norm: Norm) -> None:
    """Any batch, the same images: draws are addressed, counts are the image's own."""
    x, y = load_data("mnist", n=6, source="bundled")
    model, attack, threat = load_model("zoo:mnist/none"), Nearest(passes=101), ThreatModel(norm, 784)
    whole, parts = (evaluate(model, x, y, attack, threat, batch_size=size) for size in (6, 2))
    assert torch.equal(whole.forwards, parts.forwards)
    assert torch.equal(whole.robust, parts.robust)
    if norm is Norm.L0:  # of gradients the last digits depend on the batch
        assert torch.equal(whole.distance, parts.distance) and torch.equal(whole.x_adv, parts.x_adv)
        changed = (whole.x_adv != x).any(1).flatten(1).sum(1)
        assert torch.equal(changed[~whole.robust], whole.distance[~whole.robust].long())
    else:
        assert torch.allclose(whole.distance, parts.distance, rtol=0.01)
    assert ((whole.x_adv >= 0) & (whole.x_adv <= 1)).all()


@pytest.mark.parametrize("norm", [Norm.L0, Norm.L1])
def test_a_budget_ends_the_search(norm: Norm) -> None:
    x, y = load_data("mnist", n=4, source="bundled")
    threat = ThreatModel(norm, 784)
    verdict = evaluate(load_model("zoo:mnist/none"), x, y, Nearest(passes=400), threat, budget=150)
    assert int(verdict.forwards.max()) <= 150 and not verdict.robust[verdict.clean].any()


def test_only_rows_in_l0_and_l1_are_made_again() -> None:
    assert {norm: Nearest().version_in(norm) for norm in HUGE} == dict.fromkeys(HUGE, 1) | {Norm.L0: 3, Norm.L1: 2}
