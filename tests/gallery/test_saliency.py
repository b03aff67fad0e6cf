"""Saliency is the gradient of the answer, and no edge detector passes for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.core.defense import Defended
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ModelError
from robustbench_local.gallery.randomisation import parameter_randomisation
from robustbench_local.gallery.saliency import saliency
from robustbench_local.models.black_box import BlackBox


class Linear(nn.Module):
    """Two classes; the weights of the first are w, of the second none."""

    def __init__(self, w: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.w = nn.Parameter(scale * w)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x * self.w).flatten(1).sum(1), torch.zeros(len(x))], 1)


@pytest.fixture
def w() -> Tensor:
    return torch.linspace(-1, 1, 48).view(3, 4, 4).cos() * torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)


@pytest.mark.parametrize("scale", [1.0, 1000.0])  # of the second log p is 0 in float32, and so is its gradient
def test_of_a_linear_model_it_is_the_weights(w: Tensor, scale: float) -> None:
    x = torch.full((2, 3, 4, 4), 0.5)
    found = saliency(Linear(w, scale), x)
    assert found.shape == (2, 4, 4)
    assert torch.allclose(found / found.amax(), (w.abs().amax(0) / w.abs().max()).expand(2, 4, 4), atol=1e-5)
    plain = x.clone().requires_grad_()
    logits = Linear(w, scale)(plain).log_softmax(1)
    logits.amax(1).sum().backward()
    assert plain.grad is not None and bool(plain.grad.any()) == (scale == 1.0)  # the twin: the log-probability itself


def test_the_class_that_is_asked_about_counts_and_nothing_is_left_behind() -> None:
    x, _ = rbl.load_data("mnist", n=4, source="bundled")
    model = rbl.load_model("zoo:mnist/none")
    before = torch.random.get_rng_state()
    answers = model(x).argmax(1)
    assert torch.equal(saliency(model, x), saliency(model, x, answers))
    assert not torch.allclose(saliency(model, x), saliency(model, x, (answers + 1) % 10))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


class Noisy(Defended):
    """Weights that are right in the mean over its draws."""

    stochastic = True

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = w

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        noise = 4 * (draws.uniform(*x.shape[1:]) - 0.5)
        return torch.stack([(x * (self.w + noise)).flatten(1).sum(1), torch.zeros(len(x))], 1)


def test_a_random_models_is_the_mean_over_its_draws(w: Tensor) -> None:
    x, ids = torch.full((1, 3, 4, 4), 0.5), torch.tensor([7])
    y = torch.zeros(1, dtype=torch.int64)
    found = saliency(Noisy(w), x, y, draws=Draws(0, ids))
    again = saliency(Noisy(w), x.expand(3, 3, 4, 4), y.expand(3), draws=Draws(0, torch.tensor([1, 7, 2])))
    assert torch.equal(found[0], again[1]) and not torch.equal(found[0], again[0])  # addressed by the image


def test_who_shows_no_gradient_has_no_saliency() -> None:
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AccessError, match="needs gradients, and the model grants scores"):
        saliency(BlackBox(lambda images: images.reshape(len(images), -1)[:, :3], what="a function"), x)

    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)[:, :3]

    with pytest.raises(ModelError, match="no gradient passes"):
        saliency(Detached(), x)


def edges(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What looks like saliency, and asks no model: the absolute differences of neighbouring pixels."""
    grey = x.mean(1)
    found = torch.zeros_like(grey)
    found[:, :, 1:] += (grey[:, :, 1:] - grey[:, :, :-1]).abs()
    found[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    return found


@pytest.mark.parametrize("name", ["mnist/none", "mnist/adversarial_training", "cifar10/none"])
def test_the_gradient_changes_with_the_parameters_and_an_edge_detector_does_not(name: str) -> None:
    x, _ = rbl.load_data(name.partition("/")[0], n=16, source="bundled")
    model = rbl.load_model(f"zoo:{name}")
    before = {key: values.clone() for key, values in model.state_dict().items()}
    found = parameter_randomisation(model, x)
    assert found.depends and found.layers[-1].correlation < 0.4
    assert found == parameter_randomisation(model, x)
    assert all(torch.equal(before[key], values) for key, values in model.state_dict().items())
    twin = parameter_randomisation(model, x, maps=edges)
    assert not twin.depends and {round(each.correlation, 6) for each in twin.layers} == {1.0}


def test_layers_are_shuffled_from_the_top_and_there_must_be_some() -> None:
    x, _ = rbl.load_data("mnist", n=4, source="bundled")
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.ReLU(), nn.Linear(5, 3))
    assert [each.layer for each in parameter_randomisation(net, x).layers] == ["3", "1"]
    with pytest.raises(ModelError, match="no parameters"):
        parameter_randomisation(nn.Flatten(), x)
