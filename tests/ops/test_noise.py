from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.ops.noise import Kind, check_noise, noisy

KINDS = ("gaussian", "uniform", "laplace", "salt_pepper", "speckle")
SIZE = 0.2


def draws(n: int = 20, seed: int = 0, **more: Any) -> Draws:
    return Draws(seed, torch.arange(n), **more)


def grey(n: int = 20, channels: int = 3, value: float = 0.5, **more: Any) -> Tensor:
    return torch.full((n, channels, 20, 20), value, **more)


@pytest.mark.parametrize(
    "kind, law",
    [
        ("gaussian", stats.norm(0, SIZE)),
        ("uniform", stats.uniform(-SIZE, 2 * SIZE)),
        ("laplace", stats.laplace(0, SIZE)),
        ("speckle", stats.norm(0, SIZE * 0.5)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_added_values_follow_their_law(kind: Kind, law: Any, channels: int) -> None:
    x = grey(channels=channels, dtype=torch.float64)
    added = (noisy(x, kind, SIZE, draws(dtype=torch.float64)) - x).flatten().numpy()
    assert stats.ks_1samp(added, law.cdf).pvalue > 1e-3
    wrong = added * 1.1 + 0.1 * SIZE  # the test can fail
    assert stats.ks_1samp(wrong, law.cdf).pvalue < 1e-3


def test_salt_and_pepper_replace_a_share_of_values_half_by_white() -> None:
    found = noisy(grey(100), "salt_pepper", SIZE, draws(100))
    salt, pepper = (found == 1).double().mean().item(), (found == 0).double().mean().item()
    assert salt == pytest.approx(SIZE / 2, abs=0.005) and pepper == pytest.approx(SIZE / 2, abs=0.005)
    assert ((found == 0.5) | (found == 0) | (found == 1)).all()
    each = found.ne(0.5)  # channel by channel
    assert (each.any(1) & ~each.all(1)).any()


def test_salt_and_pepper_are_as_many_as_scikit_images() -> None:
    skimage = pytest.importorskip("skimage.util")
    theirs = skimage.random_noise(grey(100).numpy(), mode="s&p", amount=SIZE, rng=np.random.default_rng(0))
    ours = noisy(grey(100), "salt_pepper", SIZE, draws(100)).numpy()
    for value in (0, 1):
        assert (ours == value).mean() == pytest.approx((theirs == value).mean(), abs=0.005)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_depends_on_the_sample_and_the_seed_and_not_on_the_batch(kind: Kind) -> None:
    x = torch.rand(20, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    found = noisy(x, kind, SIZE, draws())
    rows = torch.tensor([7, 3, 11])
    assert torch.equal(noisy(x[rows], kind, SIZE, draws()[rows]), found[rows])
    assert torch.equal(noisy(x, kind, SIZE, draws()), found)
    assert not torch.equal(noisy(x, kind, SIZE, draws(seed=1)), found)
    assert torch.isfinite(found).all() and found.dtype == x.dtype
    same = noisy(grey(), kind, SIZE, draws())
    assert not torch.equal(same[0], same[1]) and not torch.equal(same[0, 0], same[0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: Kind) -> None:
    x = grey(2, 1, 0.4, dtype=torch.float64)[..., :3, :3].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: noisy(x, kind, SIZE, draws(2, dtype=torch.float64)), (x,))


@pytest.mark.parametrize("kind", KINDS)
def test_no_amplitude_is_no_noise(kind: Kind) -> None:
    assert torch.equal(noisy(grey(), kind, 0.0, draws()), grey())


@pytest.mark.parametrize(
    "kind, amplitude, message",
    [
        ("gausian", 0.1, 'did you mean "gaussian"'),
        ("gaussian", -0.1, "amplitude is -0.1"),
        ("uniform", float("nan"), "amplitude is nan"),
        ("salt_pepper", 1.5, r"in \[0, 1\], a share of the pixels"),
        ("speckle", 1e300, r"in \[0, 1e\+06\], where white is 1"),  # infinite in float32: black times it is no number
    ],
)
def test_a_noise_that_means_nothing_is_refused(kind: Kind, amplitude: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_noise(kind, amplitude)
