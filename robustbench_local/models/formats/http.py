"""A model behind HTTP, by the v2 inference protocol of KServe, Triton and others."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Literal

from robustbench_local.core.access import Access
from robustbench_local.core.errors import ConfigError, ModelError
from robustbench_local.models.description import Description
from robustbench_local.models.format import UNKNOWN, Asked, Format, Loaded
from robustbench_local.models.http.address import Address
from robustbench_local.models.http.client import Client, warn_if_readable
from robustbench_local.models.http.datatypes import NUMBERS
from robustbench_local.models.http.endpoint import Endpoint
from robustbench_local.models.http.journal import Journal, journal_file
from robustbench_local.models.http.metadata import (
    ModelInfo,
    TensorInfo,
    choose,
    class_count,
    image_shape,
    newest,
    read_model,
)
from robustbench_local.models.http.patience import Patience
from robustbench_local.models.http.protocol import Protocol
from robustbench_local.models.http.settings import EndpointSettings, endpoint_settings


class HTTP(Format):
    prefixes = ("https", "http", "https+labels", "http+labels")
    summary = (
        "a server that speaks KServe v2: https://HOST/v2/models/NAME; https+labels:// where only classes come back"
    )

    def load(self, asked: Asked) -> Loaded:
        address = Address.parse(asked.spec)
        asked.refuse_weights("is a server with weights of its own")
        if asked.said.outputs == "labels" and not address.labels:
            raise ModelError(f'outputs: labels of a server is its address: write "{_with_labels(asked.spec)}"')
        settings = endpoint_settings(asked.said.endpoint)
        keys = settings.header_values()
        if keys and address.readable_on_the_way:
            warn_if_readable(address.server)
        client = Client(keys, timeout=settings.timeout, concurrent=settings.concurrent)
        patience = Patience(settings.retries, settings.longest_wait)
        info = patience.until_answered(lambda: read_model(client.get, address.server, address.model), address.model)
        if address.version is None and len(info.versions) > 1:
            address = replace(address, version=newest(info.versions))
        return _loaded(asked, address, info, settings, client)


def _loaded(asked: Asked, address: Address, info: ModelInfo, settings: EndpointSettings, client: Client) -> Loaded:
    """The model whose metadata were read."""
    source = choose(info.inputs, asked.said.input, "input")
    output = choose(info.outputs, asked.said.output, "output")
    own = _own(source, None if address.labels else class_count(output), address.labels)
    said = asked.said.over(own, f'"{asked.spec}"')
    needed = [key for key, there in (("input", source), ("output", output)) if there is None]
    said.check_says([*needed, "shape", "classes"], asked.spec)
    classes = said.class_count
    assert classes is not None
    if own.classes is not None and own.class_count != classes:
        raise ModelError(f'"{asked.spec}" answers {own.class_count} classes, and {classes} are said of it')
    version = address.version or newest(info.versions)
    identity = UNKNOWN
    if version is not None or said.version is not None:
        server = client.shown(info.server or "a server without a name")
        identity = f"{address.model} version {version} of {server}, metadata {info.digest}"
    protocol = _protocol(said, source, output, info.binary, settings, version)
    fixed = source.shape[0] if source is not None and protocol.batched and source.shape[0] > 0 else None
    model = Endpoint(
        f"{address.model}/infer",
        protocol,
        client,
        _journal(identity, said, protocol, address.labels, settings.queries),
        settings,
        what=asked.spec,
        classes=classes,
        access=Access.LABELS if address.labels else Access.SCORES,
        names=said.names,
        width=source.shape[-1] if source is not None and len(source.shape) == 2 else None,
        exactly=fixed,
    )
    return Loaded(model, own, identity)


def _journal(identity: str, said: Description, protocol: Protocol, labels: bool, most: int | None) -> Journal:
    """Of everything that answers depend on, besides the image as it is sent. How it is sent, as JSON or binary, is no
    part of it. Of a model that nothing identifies no later process has a use for what it answered.
    """
    known = uuid.uuid4().hex if identity == UNKNOWN else f"said version {said.version}"
    kind = f", labels of {said.names or said.class_count}" if labels else ""
    text = f"{identity}; {known}; {protocol.input} -> {protocol.output}{kind}"
    return Journal(journal_file(text), text, most)


def _own(source: TensorInfo | None, classes: int | None, labels: bool) -> Description:
    """What the server says."""
    access: Literal["labels", "scores"] = "labels" if labels else "scores"
    shape = image_shape(source)
    if shape is None:
        return Description(classes=classes, access=access)
    sides, layout = shape
    return Description(shape=sides, layout="NCHW" if layout == "NCHW" else "NHWC", classes=classes, access=access)


def _protocol(
    said: Description,
    source: TensorInfo | None,
    output: TensorInfo | None,
    binary: bool,
    settings: EndpointSettings,
    version: str | None,
) -> Protocol:
    datatype = "FP32" if source is None else source.datatype
    if datatype not in NUMBERS:
        raise ModelError(f"the model takes {datatype}, and images are numbers: ask for a model that takes FP32")
    if NUMBERS[datatype][1] in "iu" and said.range[1] - said.range[0] < 2:
        raise ConfigError(f"the model takes whole numbers ({datatype}): say the range of its pixels, expects: 0-255")
    if settings.protocol != "auto":
        binary = settings.protocol == "binary"
    batched = source is None or len(source.shape) in (2, 4)
    taken, given = (said.input if source is None else source.name), (said.output if output is None else output.name)
    assert taken is not None and given is not None  # check_says has seen to it
    return Protocol(taken, datatype, given, binary, batched, version)


def _with_labels(spec: str) -> str:
    scheme, _, rest = spec.partition("://")
    return f"{scheme}+labels://{rest}"
