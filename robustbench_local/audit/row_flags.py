"""What a row must say of itself, and what the flags on it mean."""

from __future__ import annotations

from robustbench_local.audit.finding import Status

# flags without a number, as preflight and judge raise them
SET_UP = {
    "undeclared_randomness": (
        Status.BROKEN,
        "five forward passes gave different answers, which the model did not declare",
    ),
    "changed": (Status.BROKEN, "after the attack the model answers clean images differently than before"),
    "probabilities": (Status.BROKEN, "the model returns probabilities: cross-entropy of them is flat"),
    "nan_logits": (Status.SUSPICIOUS, "NaN among the logits of clean images"),
    "extra_classes": (Status.SUSPICIOUS, "most clean images are answered with classes that the data do not have"),
    "at_chance": (Status.BROKEN, "the model is at chance on clean images"),
    "input_range": (Status.BROKEN, "with another range of pixels the model is right on many more clean images"),
    "class_order": (Status.SUSPICIOUS, "with its classes numbered otherwise the model is right on many more images"),
}

MISSING = (
    ("definition", "data_digest"),
    ("definition", "ids"),
    ("definition", "weights_digest"),
    ("definition", "attack_settings"),
    ("definition", "threat"),
    ("definition", "eps"),
    ("definition", "seed"),
    ("definition", "attack_version"),
    ("definition", "precision"),
    ("definition", "count"),
    ("environment", "robustbench_local"),
    ("environment", "torch"),
    ("environment", "device"),
    ("results", "forwards_mean"),
    ("results", "backwards_mean"),
    ("results", "seconds"),
)
