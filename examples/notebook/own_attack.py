# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An attack of your own
#
# An attack is a class with a few lines of its own. The loop, the counting and the judging are inherited. It takes some
# seconds on a CPU.

# %%
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import robustbench_local as rbl

# %% [markdown]
# ## The attack
#
# Random corners of the ball, one per step. It needs labels only. `init` is where a round begins, `step` asks and moves.


# %%
@dataclass(frozen=True)
class Corners(rbl.IterativeAttack):
    """One random corner of the ball after the other. Cost: a forward pass each."""

    access: ClassVar[rbl.Access] = rbl.Access.LABELS
    norms: ClassVar[frozenset[rbl.Norm]] = frozenset({rbl.Norm.LINF})
    summary: ClassVar[str] = "random corners of the ball"

    steps: int = 20

    def init(
        self, oracle: rbl.Oracle, x: Tensor, y: Tensor, threat: rbl.ThreatModel, draws: rbl.Draws, restart: int
    ) -> dict[str, Tensor]:
        return {"x_adv": x}

    def step(
        self,
        state: dict[str, Tensor],
        oracle: rbl.Oracle,
        x: Tensor,
        y: Tensor,
        threat: rbl.ThreatModel,
        draws: rbl.Draws,
        i: int,
    ) -> dict[str, Tensor]:
        x_adv = threat.project(x + threat.eps * draws.normal(*x.shape[1:]).sign(), x)
        oracle.labels(x_adv)
        return {"x_adv": x_adv}

    def cost(self, classes: int, norm: rbl.Norm = rbl.Norm.LINF) -> tuple[int, int]:
        return self.steps + 1, 0


# %% [markdown]
# ## Is it a sound attack?
#
# `check_attack` holds it to the rules that every verdict relies on, and says all that is wrong at once.

# %%
rbl.testing.check_attack(Corners(steps=5))
print("Corners keeps the rules")

# %% [markdown]
# One that moves by torch's own random numbers would not: its result would depend on what ran before it.


# %%
@dataclass(frozen=True)
class Careless(Corners):
    """The same, with global random numbers and no cost."""

    def step(
        self,
        state: dict[str, Tensor],
        oracle: rbl.Oracle,
        x: Tensor,
        y: Tensor,
        threat: rbl.ThreatModel,
        draws: rbl.Draws,
        i: int,
    ) -> dict[str, Tensor]:
        x_adv = threat.project(x + threat.eps * torch.randn_like(x).sign(), x)
        oracle.labels(x_adv)
        return {"x_adv": x_adv}

    def cost(self, classes: int, norm: rbl.Norm = rbl.Norm.LINF) -> tuple[int, int]:
        return 0, 0


try:
    rbl.testing.check_attack(Careless(steps=5))
except rbl.RobustBenchError as error:
    print(error)

# %% [markdown]
# ## What it finds
#
# Beside one that sees gradients, on the same images.

# %%
x, y = rbl.load_data("mnist", n=40, source="bundled")
model = rbl.load_model("zoo:mnist/none")
for attack in (Corners(steps=50), "fgsm", "pgd"):
    verdict = rbl.evaluate(model, x, y, attack=attack, threat="linf:0.2")
    name = attack if isinstance(attack, str) else "corners"
    print(f"{name}: {verdict.robust_accuracy:.1%} robust, {verdict.forwards.double().mean():.0f} queries an image")
