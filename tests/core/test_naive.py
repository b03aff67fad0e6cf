"""The naive column: crafted without the defense, judged with it; and the adaptive cell, which can only be lower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.config.plugins import find_defense
from robustbench_local.core.defense import Deployed, Preprocess, undefended
from robustbench_local.core.draws import Draws
from robustbench_local.core.training import NoTraining
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation import search
from robustbench_local.report.render import markdown
from robustbench_local.report.table import robust_tables, shares_in
from robustbench_local.storage.store import Store


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    return rbl.load_data("mnist", n=30, source="bundled")


def wrapped(defense: str, **settings: Any) -> nn.Module:
    return find_defense(defense, settings).build(
        rbl.load_model("zoo:mnist/none"), NoTraining(), Draws(0, torch.arange(1))
    )


def pgd(model: nn.Module, data: tuple[Tensor, Tensor], threat: str = "linf:0.2", **settings: Any) -> Verdict:
    return rbl.evaluate(model, *data, "pgd", threat, steps=10, **settings)


def test_naive_is_crafted_on_the_bare_network_and_judged_on_the_deployed(data: tuple[Tensor, Tensor]) -> None:
    model = wrapped("bit_depth", bits=1)
    bare = undefended(model)
    naive = pgd(model, data, adaptive=False)
    assert bare is not None
    alone = pgd(bare, data, count="last")
    assert torch.equal(naive.x_adv[naive.clean], alone.x_adv[naive.clean])
    with torch.no_grad():
        assert torch.equal(naive.robust, naive.clean & (model(naive.x_adv).argmax(1) == data[1]))
    assert naive.robust_accuracy > alone.robust_accuracy + 0.3  # so it seems to defend


@pytest.mark.parametrize(
    "defense, settings",
    [("bit_depth", {"bits": 1}), ("median", {}), ("noise_fusion", {"amplitude": 0.3, "training": False})],
)
def test_adaptive_is_lower(data: tuple[Tensor, Tensor], defense: str, settings: dict[str, object]) -> None:
    model = wrapped(defense, **settings)
    threat = "linf:0.3" if defense == "bit_depth" else "linf:0.1"
    naive, adaptive = (pgd(model, data, threat, adaptive=knows, eot=4) for knows in (False, True))
    assert adaptive.robust_accuracy < naive.robust_accuracy
    if adaptive.bits is None:
        assert not (adaptive.robust & ~naive.robust).any()


class Misled(Preprocess):
    """Half the grey levels, and a surrogate that turns every gradient round."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 255).floor() / 255

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return -x


def test_an_adaptive_attack_that_is_misled_contains_the_naive_one(
    data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Deployed(rbl.load_model("zoo:mnist/none"), [Misled()]).eval()
    naive, adaptive = (pgd(model, data, adaptive=knows) for knows in (False, True))
    assert naive.robust_accuracy < 0.5 and not (adaptive.robust & ~naive.robust).any()
    assert (adaptive.forwards > naive.forwards).any()  # both searches are on the meter
    monkeypatch.setattr(search, "undefended", lambda model: None)  # the broken twin: adaptive alone
    assert pgd(model, data).robust_accuracy > 0.9


def test_minimum_norm_attacks_keep_the_nearer_success(data: tuple[Tensor, Tensor]) -> None:
    model = wrapped("median")
    naive, adaptive = (
        rbl.evaluate(model, *data, "deepfool", "l2:3", steps=10, adaptive=knows) for knows in (False, True)
    )
    broken = naive.clean & ~naive.robust
    assert broken.any() and (adaptive.distance[broken] <= naive.distance[broken] + 1e-6).all()


def test_nothing_is_left_out_of_what_was_only_trained() -> None:
    assert undefended(rbl.load_model("zoo:mnist/adversarial_training")) is None
    assert undefended(rbl.load_model("zoo:mnist/none")) is None


def test_the_part_without_defense_of_every_kind() -> None:
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    net = rbl.load_model("zoo:mnist/none")
    with torch.no_grad():
        plain = net(x)
        inner = Deployed(Deployed(net, [Misled()]), [Misled()])
        for model in (wrapped("jpeg"), wrapped("multi_jpeg", mode="vote"), wrapped("resize_pad"), inner):
            bare = undefended(model)
            assert bare is not None and torch.allclose(bare(x), plain, atol=1e-5)


def test_a_grid_shows_naive_beside_adaptive_and_leaves_it_out_of_the_worst_case(tmp_path: Path) -> None:
    rows = rbl.run_grid(
        "quickstart",
        n=20,
        results=str(tmp_path),
        data="mnist",
        models=["mnist_small"],
        threats=["linf:0.3"],
        defenses=["none", {"bit_depth": {"bits": 1}}],
        attacks=[{"pgd": {"steps": 5}}, {"square": {"steps": 20}}],
        adaptive=[False, True],
    )
    assert len(rows) == 5  # square asks what is deployed, and none has nothing to leave out
    folder = next(path.parent for path in tmp_path.rglob("table.md"))
    (table,) = robust_tables(rows, shares_in(Store(folder)))
    assert [attack.name for attack in table.attacks] == ["square", "naive pgd", "pgd"]
    line = next(line for line in table.lines if str(line.defense) == "bit_depth")
    _, naive, adaptive = (cell.value for cell in line.robust if cell)
    assert naive > adaptive and line.worst[-1] is not None and line.worst[-1].value <= adaptive
    undefended_line = next(line for line in table.lines if str(line.defense) == "none")
    assert undefended_line.rows[1] is None and undefended_line.worst[-1] is not None
    assert "naive pgd" in markdown([table]) and "Naive: crafted" in markdown([table])
    assert all("few_classes" in note for note in table.notes)
