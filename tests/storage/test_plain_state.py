"""Quantised networks, ours and a user's own, are told apart by what their layers packed."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping, quantize_dynamic
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.plain_state import plain_state

X = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(change: str = "") -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.mul_(1.5 if name == change else 1.0)
    return net


def quantised(net: nn.Module, x: torch.Tensor = X) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_fx(net, get_default_qconfig_mapping("x86"), (x,))
        prepared(x)
        return convert_fx(prepared)


def dynamic(net: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_dynamic(net, {nn.Linear})  # type: ignore[no-any-return]


def test_an_ordinary_state_is_as_it_was() -> None:
    state = network().state_dict()
    plain = plain_state(state)
    assert [*plain] == [*state] and all(plain[name] is tensor for name, tensor in state.items())


@pytest.mark.parametrize("how", [quantised, dynamic])
def test_packed_weights_are_plain_tensors(how: type) -> None:
    state = plain_state(how(network()).state_dict())
    assert all(isinstance(tensor, torch.Tensor) and not tensor.is_quantized for tensor in state.values())
    wide = {name: tensor for name, tensor in state.items() if tensor.shape == (5, 144)}
    ((name, weight),) = wide.items()
    assert weight.dtype is torch.int8
    weight = weight.float() * torch.atleast_1d(state[f"{name}.scale"].float())[:, None]
    assert torch.allclose(weight, network().state_dict()["3.weight"], atol=1e-3)


@pytest.mark.parametrize("how", [quantised, dynamic])
def test_the_digest_of_a_quantised_network_follows_all_of_it(how: type) -> None:
    digests = {weights_digest(how(network(change))) for change in ("", "3.weight", "3.bias", "0.weight", "0.bias")}
    assert len(digests) == 5 and weights_digest(how(network())) in digests


def test_the_digest_follows_the_ranges_of_activations() -> None:
    assert weights_digest(quantised(network())) == weights_digest(quantised(network()))
    assert weights_digest(quantised(network())) != weights_digest(quantised(network(), X / 2))
