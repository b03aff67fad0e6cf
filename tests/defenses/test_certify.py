"""certify: the model it asks is the deployed one, no bad argument gets a radius, and every radius is a true one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, DataError, ModelError, RobustBenchError
from robustbench_local.defenses.randomized_smoothing import certified_accuracy, certify

SIGMA = 0.25


class Plane(nn.Module):
    """Class 1 where w . x + b > 0: the smoothed class holds up to the distance from the plane (Cohen et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.register_buffer("w", weights / weights.norm())
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.w, Tensor)
        self.asked += len(x)
        along = (x.flatten(1) - 0.5) @ self.w.to(x)
        return torch.stack([-along, along], 1)


def points(distances: list[float]) -> tuple[Tensor, Tensor]:
    """Images at signed distances from the plane, labelled 1."""
    w = Plane().w
    assert isinstance(w, Tensor)
    x = 0.5 + torch.tensor(distances, dtype=torch.float64)[:, None] * w
    return x.view(-1, 3, 4, 4).float(), torch.ones(len(distances), dtype=torch.int64)


def test_radii_of_a_linear_model_are_the_distances_as_far_as_the_bound_goes() -> None:
    """The votes are binomial with P(right) = Phi(d / sigma); the radius is sigma Phi^-1 of their lower bound."""
    distances = [0.1, 0.3, 0.5, -0.2]
    x, y = points(distances)
    n, alpha = 20_000, 0.01
    radii = certify(Plane(), x, y, SIGMA, n0=50, n=n, alpha=alpha, batch=20_000)
    for found, distance in zip(radii.tolist()[:3], distances, strict=False):
        share = stats.norm.cdf(distance / SIGMA)
        low, high = (stats.binom.ppf(part, n, share) for part in (1e-4, 1 - 1e-4))
        nearest = [SIGMA * stats.norm.ppf(stats.beta.ppf(alpha, k, n - k + 1)) for k in (low, high)]
        assert nearest[0] <= found <= nearest[1] and found < distance
    assert math.isnan(radii[3])  # the answer is 0, not 1


class Deployed(nn.Module):
    """A plane behind batch norm and dropout, which in training mode say something else."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.plane = nn.BatchNorm2d(3), nn.Dropout(0.9), Plane()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.plane(self.drop(self.norm(x)))
        return out


def test_the_model_is_asked_in_evaluation_mode_and_given_back_as_it_was() -> None:
    x, y = points([0.3, 0.5])
    model = Deployed().eval()
    wanted = certify(model, x, y, SIGMA, n0=20, n=500)
    assert (wanted > 0.15).all()
    model.train()
    model.drop.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = certify(model, x, y, SIGMA, n0=20, n=500)
    assert torch.equal(found, wanted)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.requires_grad for parameter in model.parameters())


class Answers(nn.Module):
    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


@pytest.mark.parametrize("logits", [(torch.nan, 0.0), (0.0, torch.nan), (torch.nan,) * 3, (1.0, 1.0), (torch.inf,) * 2])
def test_no_answer_votes_for_nothing(logits: tuple[float, ...]) -> None:
    x, y = points([0.1, 0.2])
    for label in (0, 1):
        assert certify(Answers(*logits), x, torch.full_like(y, label), SIGMA, n0=10, n=50).isnan().all()
    assert (certify(Answers(1.0, 0.0), x, 0 * y, SIGMA, n0=10, n=50) > 0).all()  # the test can fail


def test_copies_without_an_answer_count_against_the_class() -> None:
    class Half(nn.Module):
        """Right, but for NaN on every other side of the first pixel."""

        def forward(self, x: Tensor) -> Tensor:
            first = x[:, 0, 0, 0]
            logits = torch.stack([first * 0, first * 0 + 1], 1)
            return torch.where((first > 0.5 + SIGMA)[:, None], torch.nan, logits)

    x, y = torch.full((1, 1, 2, 2), 0.5), torch.ones(1, dtype=torch.int64)
    found = float(certify(Half(), x, y, SIGMA, n0=50, n=5000))
    assert 0.9 * SIGMA < found < SIGMA  # Phi^-1(P(no NaN)) = 1


def test_radii_do_not_depend_on_order_selection_or_batch() -> None:
    x, y = points([0.02, 0.05, 0.1, 0.3, 0.4])
    whole = certify(Plane(), x, y, SIGMA, n0=10, n=60)
    assert len(whole.unique()) > 2
    for rows in ([4, 3, 2, 1, 0], [3, 1], [2, 2], [0]):
        part = certify(Plane(), x[rows], y[rows], SIGMA, n0=10, n=60, batch=7)
        assert torch.equal(part.nan_to_num(-1), whole[rows].nan_to_num(-1))


X, Y = points([0.2, 0.3])
WRONG: list[tuple[dict[str, Any], type[RobustBenchError], str]] = [
    ({"sigma": -0.25}, ConfigError, "sigma is -0.25: it must be a number above 0"),
    ({"sigma": 0}, ConfigError, "sigma is 0"),
    ({"sigma": math.nan}, ConfigError, "sigma is nan"),
    ({"sigma": math.inf}, ConfigError, "sigma is inf"),
    ({"sigma": "big"}, ConfigError, "sigma is 'big'"),
    ({"alpha": 1.5}, ConfigError, r"alpha is 1.5: it must be a number in \(0, 1\)"),
    ({"alpha": 0}, ConfigError, "alpha is 0"),
    ({"alpha": 1}, ConfigError, "alpha is 1"),
    ({"alpha": -0.1}, ConfigError, "alpha is -0.1"),
    ({"alpha": math.nan}, ConfigError, "alpha is nan"),
    ({"n0": 0}, ConfigError, r"n0 is 0: it must be a whole number in \[1, 1000000000\]"),
    ({"n": 10**10}, ConfigError, "n is 10000000000: it must be"),
    ({"batch": 10**40}, ConfigError, r"batch is .* below 2\*\*63"),
    ({"n0": -5}, ConfigError, "n0 is -5"),
    ({"n0": 10.5}, ConfigError, "n0 is 10.5"),
    ({"n": 0}, ConfigError, "n is 0"),
    ({"n": True}, ConfigError, "n is True"),
    ({"n": 9}, ConfigError, r"n is 9: even where all agree, .* above 0.46 at alpha 0.001, .* give 10 or more"),
    ({"batch": 0}, ConfigError, "batch is 0"),
    ({"draws": Draws(0, torch.arange(3))}, ConfigError, "draws are for 3 images, and there are 2"),
    ({"model": "net"}, ConfigError, "model is 'net': it must be an nn.Module"),
    ({"x": 255 * X}, DataError, r"x spans \[.*\]: give pixels in \[0, 1\]"),
    ({"x": X[0]}, DataError, r"x is torch.float32 of shape \(3, 4, 4\)"),
    ({"x": X * torch.nan}, DataError, "96 NaN values"),
    ({"x": X[:0], "y": Y[:0]}, DataError, "no images"),
    ({"x": X.numpy()}, DataError, "x is an array"),
    ({"y": Y[:1]}, DataError, r"shape \(1,\) for 2 images"),
    ({"y": Y.float()}, DataError, "y is torch.float32"),
    ({"y": Y + 1}, DataError, r"labels span 2 \.\. 2, the model knows 0 \.\. 1"),
    ({"y": Y - 2}, DataError, r"labels span -1"),
    ({"model": nn.Linear(5, 2)}, ModelError, r"cannot read images of shape \(3, 4, 4\): RuntimeError"),
    ({"model": nn.Identity()}, ModelError, r"returned \(1000, 3, 4, 4\)"),
]


@pytest.mark.parametrize(("changes", "error", "says"), WRONG)
def test_what_means_nothing_gets_no_radius(changes: dict[str, Any], error: type[RobustBenchError], says: str) -> None:
    given: dict[str, Any] = {"model": Plane(), "x": X, "y": Y, "sigma": SIGMA, "n0": 500, "n": 500, **changes}
    with pytest.raises(error, match=says):
        certify(**given)


def test_certified_accuracy() -> None:
    radii = torch.tensor([0.1, torch.nan, 0.5])
    assert certified_accuracy(radii, [0, 0.2, 9]) == pytest.approx([2 / 3, 1 / 3, 0])
    for at in ([-0.1], [math.nan], 0.5):
        with pytest.raises(ConfigError, match="at is"):
            certified_accuracy(radii, at)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least one image"):
        certified_accuracy(radii[:0], [0])
