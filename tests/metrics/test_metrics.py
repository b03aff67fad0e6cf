from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from robustbench_local.metrics.rates import wilson
from robustbench_local.metrics.summary import per_class, summarise
from tests.helpers.verdicts import a_verdict


def test_per_class_leaves_out_classes_without_images() -> None:
    labels = np.array([0, 0, 2, 2])
    clean, robust = np.array([1.0, 1.0, 1.0, 0.0]), np.array([1.0, 0.25, 0.5, 0.0])
    level = math.sqrt(0.95)  # two classes whose intervals hold together
    assert per_class(labels, clean, robust, ["a", "b", "c"]) == [
        {"class": "a", "n": 2, "clean": 1.0, "robust": 0.625, "robust_interval": list(wilson(1.25, 2, level))},
        {"class": "c", "n": 2, "clean": 0.5, "robust": 0.25, "robust_interval": list(wilson(0.5, 2, level))},
    ]


def test_summary_of_a_fixed_model() -> None:
    results = summarise(a_verdict(), ["a", "b"])
    assert results["n"] == 4
    assert (results["clean_accuracy"], results["robust_accuracy"], results["robust_accuracy_8bit"]) == (0.75, 0.25, 0.5)
    assert results["robust_interval"] == wilson(1, 4)
    assert results["distance_median"] in (pytest.approx(0.1), pytest.approx(0.2))  # of the two broken ones only
    assert (results["forwards_mean"], results["backwards_mean"]) == (12.5, 11.5)
    assert results["flags"] == ["probabilities"]
    assert results["stochastic"] is False
    assert [row["robust"] for row in results["per_class"]] == [0.5, 0.0]


def test_summary_of_a_random_model_is_of_shares_not_of_majorities() -> None:
    bits = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=torch.bool)
    results = summarise(a_verdict(bits=bits, clean_bits=torch.ones(4, 3, dtype=torch.bool), bits_8bit=bits), ["a", "b"])
    assert results["stochastic"] is True
    assert results["robust_accuracy"] == pytest.approx(0.25)
    assert results["robust_interval"] == pytest.approx(wilson(1, 4))
    assert results["clean_accuracy"] == 1.0
    assert [row["robust"] for row in results["per_class"]] == pytest.approx([1 / 3, 1 / 6], abs=1e-5)


def test_no_distance_where_nothing_fell() -> None:
    everything = torch.ones(4, dtype=torch.bool)
    assert summarise(a_verdict(clean=everything, robust=everything), ["a", "b"])["distance_median"] is None
