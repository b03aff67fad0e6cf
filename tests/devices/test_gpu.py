"""What only a GPU can show: CUDA's verdicts are the CPU's but for near-ties, and memory that runs out is met.

Skipped without one; `python -m benchmarks.gpu` runs these beside its measurements.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config.plugins import ATTACKS, DEFENSES, find_attack, find_defense, listing
from robustbench_local.core import losses
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.defense import call
from robustbench_local.core.device import hardware, kept_random_state, pick_device
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import full_float32
from robustbench_local.core.training import NoTraining
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from tests.helpers.short_attacks import ELSEWHERE, SHORT, attack, learnt_from, norms, threat
from tests.helpers.small_networks import AnySize, images, network

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def moved(data: Tensors) -> Tensors:
    return Tensors(data.x.cuda(), data.labels.cuda(), data.ids.cuda())


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in SHORT for norm in norms(name)])
def test_verdicts_are_the_cpus_but_for_near_ties(name: str, norm: str) -> None:
    data, own, made = images(network()), learnt_from(), attack(name)
    host = Judge()(network(), data, made, threat(name, norm), attacker=own)
    there = Judge()(network().cuda(), moved(data), made, threat(name, norm), attacker=moved(own))
    assert there.robust.is_cuda and torch.equal(there.clean.cpu(), host.clean)
    with torch.no_grad():
        near = losses.margin(network()(host.x_adv), data.labels).abs() < 1e-2
    assert int(((there.robust.cpu() != host.robust) & ~near).sum()) <= 2  # searches go other ways after a rounding


@pytest.mark.parametrize("name", [row.name for row in listing(ATTACKS) if row.name not in ELSEWHERE])
def test_corruptions_are_the_cpus_but_for_a_grey_level(name: str) -> None:
    corruption = find_attack(name, {"kind": "gaussian"} if name == "plain_noise" else {})
    if not isinstance(corruption, Corruption):
        assert name in SHORT
        return
    x = load_data("cifar10", n=8, source="bundled")[0]
    host = corruption.apply(x, Draws(0, torch.arange(8)))
    apart = (corruption.apply(x.cuda(), Draws(0, torch.arange(8).cuda())).cpu() - host).abs()
    assert (apart > 1e-4).double().mean() < 0.02 and apart.max() < 0.1


@pytest.mark.parametrize("name", [row.name for row in listing(DEFENSES)])
def test_defenses_answer_as_on_the_cpu(name: str) -> None:
    x = load_data("cifar10", n=8, source="bundled")[0]

    def logits(device: str) -> Tensor:
        base = copy.deepcopy(net).to(device)  # as in training there
        model: nn.Module = find_defense(name, {}).build(base, NoTraining(), Draws(0, torch.arange(1)))
        return call(model.to(device).eval(), x.to(device), Draws(0, torch.arange(8).to(device))).detach().cpu()

    torch.manual_seed(0)
    net = AnySize(3)
    assert torch.allclose(logits("cuda"), logits("cpu"), atol=2e-2)


def test_a_verdict_is_taken_in_float32() -> None:
    a, b = (torch.rand(512, 512, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    with full_float32():
        apart = (a.cuda() @ b.cuda()).cpu().double() - a.double() @ b.double()
    assert apart.abs().max() < 1e-3  # TF32 errs by 0.05


def test_memory_that_runs_out_costs_nothing_but_time() -> None:
    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 16:
                torch.empty(2**46, device=x.device)
            answer: Tensor = self.net(x)
            return answer

    data = images(network())
    verdict = evaluate(Hungry().cuda(), data.x, data.labels, "pgd", "linf:0.03", steps=3, batch_size=30)
    assert len(verdict.robust) == len(data)


def test_the_card_has_a_name_and_its_generator_is_kept() -> None:
    assert pick_device("auto").type == "cuda" and hardware(torch.device("cuda")) == torch.cuda.get_device_name()
    before = torch.cuda.get_rng_state()
    with kept_random_state(torch.device("cuda:0")):
        torch.rand(9, device="cuda")
        assert not torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(torch.cuda.get_rng_state(), before)
