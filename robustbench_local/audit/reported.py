"""What a row must say of itself, and what the flags on it mean."""

from __future__ import annotations

from robustbench_local.audit.core import Status

# flags without a number, as preflight and judge raise them
SET_UP = {
    "undeclared_randomness": (
        Status.BROKEN, "five forward passes gave different answers, which the model did not declare"
    ),
    "changed": (Status.BROKEN, "after the attack the model answers clean images differently than before"),
    "probabilities": (Status.BROKEN, "the model returns probabilities: cross-entropy of them is flat"),
    "nan_logits": (Status.SUSPICIOUS, "NaN among the logits of clean images"),
    "extra_classes": (Status.SUSPICIOUS, "the model has more classes than the data"),
}  # fmt: skip

MISSING = (
    ("definition", "data_digest"), ("definition", "ids"), ("definition", "weights_digest"),
    ("definition", "attack_settings"), ("definition", "threat"), ("definition", "eps"), ("definition", "seed"),
    ("definition", "attack_version"), ("definition", "precision"), ("definition", "count"),
    ("environment", "robustbench_local"), ("environment", "torch"), ("environment", "device"),
    ("results", "forwards_mean"), ("results", "backwards_mean"), ("results", "seconds"),
)  # fmt: skip
