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
# # How robust is this classifier?
#
# A walk from one model to a check that guards it, on the MNIST images and networks that come with the package. It takes
# about half a minute on a CPU. Open this file in Jupyter with jupytext, or run it as a script.

# %%
import tempfile
from pathlib import Path

import torch

import robustbench_local as rbl

work = Path(tempfile.mkdtemp(prefix="robustness-"))
THREAT = "linf:0.2"  # no pixel of [0, 1] is changed by more than 0.2

# %% [markdown]
# ## Load and evaluate
#
# A model takes pixels in [0, 1] and gives logits. Two networks of the same shape: the first was trained as usual, the
# second on adversarial images.

# %%
x, y = rbl.load_data("mnist", n=40, source="bundled")
plain = rbl.load_model("zoo:mnist/none")
hardened = rbl.load_model("zoo:mnist/adversarial_training")
verdicts = {
    name: rbl.evaluate(model, x, y, attack="pgd", threat=THREAT, steps=20)
    for name, model in (("plain", plain), ("hardened", hardened))
}
for name, verdict in verdicts.items():
    print(f"{name}: {verdict.clean_accuracy:.1%} without an attack, {verdict.robust_accuracy:.1%} under PGD")

# %% [markdown]
# Without an attack nobody could tell them apart. Robust accuracy is an upper bound: a stronger attack may break more.
#
# ## Doubt the number
#
# The audit executes the published checklists: are gradients there, does a stronger attack break much more, do attacks
# that see less find more?

# %%
card = rbl.audit_model(hardened, x, y, THREAT)
print(card.status.name.lower(), [finding.check for finding in card.faults])

# %% [markdown]
# A model that hides its gradients is found out. This one multiplies its logits by 1,000: no image changes its class,
# but the gradient of the cross-entropy is gone.


# %%
class Loud(torch.nn.Module):
    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = 1000 * self.net(images)
        return logits


found = rbl.audit_model(Loud(plain).eval(), x, y, THREAT)
print(found.status.name.lower())
for fault in found.faults:
    print(f"- {fault.check}: {fault.evidence}")

# %% [markdown]
# ## A table
#
# A grid runs every attack on every model and keeps each cell as a row; run again, it does what is missing. The page
# `index.html` beside the rows has the table, and the audit of each row.

# %%
rows = rbl.run_grid(
    "mnist_pgd",
    results=str(work / "results"),
    models=["zoo:mnist/none", "zoo:mnist/adversarial_training"],
    defenses=["none"],
    attacks=["fgsm", {"pgd": {"steps": 20}}],
    threats=[THREAT],
    n=40,
    source="bundled",
)
for row in rows:
    print(f"{row.model} {row.attack}: {row.results['robust_accuracy']:.1%}")

# %% [markdown]
# ## Guard it
#
# A check writes what the model does on each image into a lock file. The next version of the model is held against it,
# image by image, and fails where it is significantly less robust. In a repository pytest asks the same question, see
# `examples/digits`.


# %%
def check(model: str, update: bool = False) -> rbl.regression.Outcome:
    lock = work / "robustness.lock.json"
    return rbl.regression.check(
        model, "mnist", THREAT, n=40, source="bundled", name="digits", lock_file=lock, update=update
    )


first = check("zoo:mnist/adversarial_training", update=True)
print(first.verdict, f"{first.rates['attacks'].value:.1%} robust")

# %%
later = check("zoo:mnist/none")
(comparison,) = later.comparisons
print(later.verdict)
lost = f"{len(comparison.lost)} images lost, p = {comparison.p:.2g}"
print(f"{comparison.before:.1%} before, {comparison.after:.1%} now, {lost}")

# %% [markdown]
# The verdict is *worse*: the network that was trained as usual is no successor of the hardened one.
