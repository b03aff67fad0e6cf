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
# # A first evaluation
#
# How many images does a model still classify correctly when somebody changes them a little? Some seconds on a CPU, with
# the MNIST images and networks that come with the package.

# %%
import robustbench_local as rbl

THREAT = "linf:0.2"  # no pixel of [0, 1] is changed by more than 0.2
x, y = rbl.load_data("mnist", n=40, source="bundled")
plain = rbl.load_model("zoo:mnist/none")
hardened = rbl.load_model("zoo:mnist/adversarial_training")

# %% [markdown]
# ## One attack on two models
#
# The two networks have the same shape. The first was trained as usual, the second on adversarial images.

# %%
verdicts = {
    name: rbl.evaluate(model, x, y, attack="pgd", threat=THREAT, steps=20)
    for name, model in (("plain", plain), ("hardened", hardened))
}
for name, verdict in verdicts.items():
    print(f"{name}: {verdict.clean_accuracy:.1%} without an attack, {verdict.robust_accuracy:.1%} under PGD")

# %% [markdown]
# Without an attack nobody could tell them apart. Robust accuracy is an upper bound: a stronger attack may break more.
#
# ## Image by image
#
# A verdict has an answer for every image: was it robust, and how often was the model asked?

# %%
verdict = verdicts["plain"]
for place in range(5):
    state = "robust" if verdict.robust[place] else "broken" if verdict.clean[place] else "wrong anyway"
    print(f"#{place}, {int(y[place])}: {state}, {int(verdict.forwards[place])} queries")

# %% [markdown]
# ## How much is needed
#
# An attack that looks for the nearest adversarial image needs no ball. Its distances say how much change each image
# takes, for every radius at once.

# %%
nearest = rbl.evaluate(plain, x, y, attack="deepfool", threat="l2:1")
distance = nearest.distance[nearest.clean]
print(f"half of the images fall within {distance.median():.2f} in L2, the last within {distance.max():.2f}")
for eps in (0.5, 1.0, 2.0):
    print(f"l2:{eps}: {(distance > eps).float().mean():.1%} of them stand")
