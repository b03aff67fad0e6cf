"""Classification and calibration against scikit-learn and loops written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax
from sklearn import metrics as sk

from robustbench_local.metrics.calibration import calibration, confidence, ece
from robustbench_local.metrics.classification import answers, auc, averages, classification, confusion

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def some(n: int = 400, classes: int = 5, columns: int | None = None, seed: int = 0) -> tuple[Ints, Floats]:
    """Labels (N,) and log-probabilities (N, K) that are right more often than not."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=n)
    logits = generator.normal(size=(n, columns or classes))
    logits[np.arange(n), labels] += 1.5
    return labels, np.asarray(log_softmax(logits, axis=1))


@pytest.mark.parametrize("columns", [5, 6])  # the sixth rejects
@pytest.mark.parametrize("seed", [0, 1])
def test_precision_recall_f1_agree_with_scikit_learn(columns: int, seed: int) -> None:
    labels, scores = some(columns=columns, seed=seed)
    given = answers(scores, 5)
    assert (given == scores.argmax(1)).all()
    found = averages(confusion(labels, given, 5))
    for average in ("macro", "micro"):
        expected = sk.precision_recall_fscore_support(labels, given, labels=range(5), average=average, zero_division=0)[
            :3
        ]
        names = [f"{name}_{average}" for name in ("precision", "recall", "f1")]
        assert [found[name] for name in names] == pytest.approx(expected, abs=1e-12)
    assert found["no_class"] == pytest.approx((given == 5).mean())
    assert (found["no_class"] > 0) == (columns == 6)


def test_confusion_agrees_with_scikit_learn() -> None:
    labels, scores = some(columns=6)
    expected = sk.confusion_matrix(labels, answers(scores, 5), labels=range(6))
    assert (confusion(labels, answers(scores, 5), 5) == expected[:5]).all()


def test_micro_averages_are_the_accuracy_where_every_image_gets_a_class() -> None:
    labels, scores = some()
    found = averages(confusion(labels, answers(scores, 5), 5))
    accuracy = (scores.argmax(1) == labels).mean()
    assert [found[f"{name}_micro"] for name in ("precision", "recall", "f1")] == pytest.approx([accuracy] * 3)


def test_auc_agrees_with_scikit_learn_ties_included() -> None:
    labels, scores = some()
    scores = scores.round(1)
    expected = [sk.roc_auc_score(labels == k, scores[:, k]) for k in range(5)]
    assert auc(labels, scores) == pytest.approx(expected, abs=1e-12)
    assert classification(labels, scores, 5)["auc_macro"] == pytest.approx(np.mean(expected))


def test_auc_of_one_class_only_is_unknown_and_the_rest_is_not() -> None:
    labels, scores = some()
    found = classification(np.zeros_like(labels), scores, 5)
    assert found["auc_macro"] is None
    assert found["recall_macro"] == found["recall_micro"] == pytest.approx((scores.argmax(1) == 0).mean())
    assert found["precision_macro"] == 1.0  # of the one class that there is


def test_classes_without_images_are_left_out_of_means() -> None:
    labels, scores = some(classes=5)
    there = labels < 3
    expected = sk.f1_score(labels[there], scores[there].argmax(1), labels=range(3), average="macro")
    assert classification(labels[there], scores[there], 5)["f1_macro"] == pytest.approx(expected)


def test_a_class_never_answered_has_precision_0() -> None:
    labels = np.array([0, 0, 1, 1])
    found = averages(confusion(labels, np.zeros(4, dtype=np.int64), 2))
    assert found["precision_macro"] == 0.25
    assert found["f1_macro"] == pytest.approx(sk.f1_score(labels, np.zeros(4), average="macro"))


def test_a_nan_or_a_tie_is_no_class() -> None:
    scores = np.log([[0.7, 0.3], [0.5, 0.5], [math.nan, 1.0], [0.1, 0.9]])
    assert answers(scores, 2).tolist() == [0, 2, 2, 1]
    assert averages(confusion(np.array([0, 1, 1, 1]), answers(scores, 2), 2))["recall_micro"] == 0.5


def test_nan_scores_are_the_models_error_in_the_auc_too() -> None:
    labels, scores = np.array([0, 0, 1, 1]), np.log([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.3, 0.7]])
    assert auc(labels, scores).tolist() == [1.0, 1.0]
    scores[3] = math.nan
    assert auc(labels, scores).tolist() == [0.5, 0.5]


def test_no_answer_at_all() -> None:
    labels, scores = np.array([0, 1]), np.full((2, 2), math.nan)
    found = classification(labels, scores, 2)
    assert found["no_class"] == 1.0
    assert found["precision_micro"] == found["recall_micro"] == found["f1_macro"] == 0.0
    assert set(calibration(labels, scores).values()) == {None}


def an_ece(labels: Ints, scores: Floats, bins: int) -> float:
    """Guo et al. 2017, equation 3, bin by bin."""
    top, right = np.exp(scores.max(1)), scores.argmax(1) == labels
    total = 0.0
    for b in range(bins):
        inside = (top > b / bins) & (top <= (b + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    return total


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("columns", [5, 6])
def test_ece_agrees_with_its_definition(bins: int, columns: int) -> None:
    labels, scores = some(n=2000, columns=columns)
    assert calibration(labels, scores, bins)["ece"] == pytest.approx(an_ece(labels, scores, bins), abs=1e-12)


def test_ece_by_hand() -> None:
    # bin (0.6, 0.8]: confidence 0.7 and 0.8, one of two right; bin (0.8, 1]: 0.9, wrong
    found = ece(np.array([0.7, 0.8, 0.9]), np.array([True, False, False]), bins=5)
    assert found == pytest.approx((2 * abs(0.5 - 0.75) + 0.9) / 3)


def test_nll_and_brier_agree_with_scikit_learn() -> None:
    labels, scores = some()
    found = calibration(labels, scores)
    assert found["nll"] == pytest.approx(sk.log_loss(labels, np.exp(scores)))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(labels, np.exp(scores), scale_by_half=False))
    assert found["confidence"] == pytest.approx(np.exp(scores).max(1).mean())


def test_a_model_that_knows_its_chances_is_calibrated_and_one_that_boasts_is_not() -> None:
    generator = np.random.default_rng(1)
    chances = generator.dirichlet([0.5] * 4, 20_000)
    labels = (generator.random((20_000, 1)) > chances.cumsum(1)).sum(1)
    honest, boasting = calibration(labels, np.log(chances)), calibration(labels, log_softmax(3 * np.log(chances), 1))
    assert honest["ece"] is not None and boasting["ece"] is not None
    assert honest["ece"] < 0.015 < 0.1 < boasting["ece"]
    assert (honest["nll"] or 0) < (boasting["nll"] or 0)


def test_nan_images_are_left_out_of_calibration() -> None:
    labels, scores = some()
    holed = np.concatenate([scores, np.full((3, 5), math.nan)])
    assert calibration(np.append(labels, [0, 1, 2]), holed) == calibration(labels, scores)
    assert np.isnan(confidence(holed)).sum() == 3


def test_certain_and_wrong_has_no_finite_likelihood() -> None:
    found = calibration(np.array([0]), np.array([[-np.inf, 0.0]]))
    assert found == {"ece": 1.0, "nll": math.inf, "brier": 2.0, "confidence": 1.0}
