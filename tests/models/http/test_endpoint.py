"""A model on a real server: the network's answers, whatever its inputs and outputs; what does not fit is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from robustbench_local.core.access import Access, granted
from robustbench_local.core.errors import ConfigError, ModelError
from robustbench_local.models.load import load_model
from tests.helpers.endpoints import QUICK, endpoint, images, opened
from tests.helpers.model_server import Served, serving, small_net


@pytest.mark.parametrize("protocol", ["json", "binary", "auto"])
@pytest.mark.parametrize("concurrent", [1, 3])
def test_its_logits_are_the_networks_to_the_last_bit(served: Served, protocol: str, concurrent: int) -> None:
    model, x = opened(served, protocol=protocol, concurrent=concurrent), images()
    assert torch.equal(model(x), served.net(x)) and granted(model) is Access.SCORES
    assert served.transports == {"JSON" if protocol == "json" else "binary": 3}  # of 4, 4 and 2 images
    assert served.images == endpoint(model).journal.spent == len(endpoint(model).journal) == 10
    assert model(x[:0]).shape == (0, 10)


def test_a_server_without_binary_data_is_asked_in_json() -> None:
    with serving(binary=False) as served:
        opened(served)(images())
        assert set(served.transports) == {"JSON"}


@pytest.mark.parametrize(
    "how",
    [
        {"datatype": "FP64"},
        {"output_datatype": "FP64"},
        {"shape": [1, 1, 28, 28]},  # made for one image
        {"shape": [4, 1, 28, 28]},  # made for four
        {"shape": [1, 28, 28]},  # no axis of images
        {"shape": [-1, 28, 28, 1]},
    ],
)
@pytest.mark.parametrize("protocol", ["json", "binary"])
def test_inputs_and_outputs_of_every_kind(how: dict[str, Any], protocol: str) -> None:
    with serving(**how) as served:
        x = images()
        assert torch.equal(opened(served, protocol=protocol)(x), served.net(x))


def test_whole_numbers_and_flat_inputs_are_what_is_said_of_them() -> None:
    levels = (255 * images()).round() / 255
    with serving(datatype="UINT8") as served:
        with pytest.raises(ConfigError, match="expects: 0-255"):
            opened(served)
        assert torch.equal(opened(served, about={"expects": "0-255"})(levels), served.net((255 * levels).round()))
    flat = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 28, 28)), small_net())
    with serving(flat, shape=[-1, 784]) as served:
        with pytest.raises(ModelError, match="does not say its shape"):
            opened(served)
        assert torch.equal(opened(served, about={"shape": [1, 28, 28]})(levels), small_net()(levels))
        with pytest.raises(ModelError, match="takes 784 numbers"):
            opened(served, about={"shape": [1, 0, 0]})(levels[:, :, 1:])


@pytest.mark.parametrize("names", [None, [f"class {k}" for k in range(10)]])
def test_labels_are_the_classes_and_nothing_more(names: list[str] | None) -> None:
    with serving(labels=True, names=names) as served:
        x = images()
        with pytest.raises(ModelError, match="does not say its classes"):
            load_model(served.address(labels=True), about={"endpoint": QUICK})
        model = opened(served, labels=True, about={"classes": names or 10})
        assert granted(model) is Access.LABELS and endpoint(model).access is Access.LABELS
        assert torch.equal(model(x), torch.nn.functional.one_hot(served.net(x).argmax(1), 10).float())
        if names:
            with pytest.raises(ModelError, match=r'answered the class "class .*say the names'):
                load_model(served.address(True), about={"classes": ["a", "b"], "endpoint": QUICK})(x)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda served: setattr(served, "name", "other"), "answered 404"),
        (lambda served: setattr(served, "datatype", "BYTES"), "takes BYTES, and images are numbers"),
        (lambda served: setattr(served, "datatype", "COMPLEX"), "datatype COMPLEX"),
        (lambda served: setattr(served, "classes", 11), "answers 11 classes, and 10 are said"),
        (lambda served: setattr(served, "shape", [-1, 3, 28, 28]), "shape"),
        (lambda served: setattr(served, "shape", "any"), "shape of whole numbers"),
        (lambda served: setattr(served, "versions", "1"), "list of texts"),
    ],
)
def test_metadata_that_do_not_fit_are_errors(served: Served, change: Callable[[Served], object], match: str) -> None:
    address = served.address()
    change(served)
    with pytest.raises(ModelError, match=match):
        load_model(address, about={"classes": 10, "shape": [1, 28, 28], "endpoint": QUICK})


def test_names_of_inputs_and_outputs_are_checked(served: Served) -> None:
    for key, near in (("input", "images"), ("output", "scores")):
        with pytest.raises(ModelError, match=f'no {key} "{near}s".*did you mean "{near}"'):
            opened(served, about={key: f"{near}s"})
    with pytest.raises(ModelError, match=r"outputs: labels of a server.*http\+labels://"):
        opened(served, about={"outputs": "labels", "classes": 10})
    with pytest.raises(ModelError, match="weights of its own"):
        load_model(served.address(), weights="net.safetensors")
