"""Addresses and what is said of an endpoint: what is read, and what is refused without showing a key."""

from __future__ import annotations

import pytest

from robustbench_local.core.errors import ConfigError, ModelError
from robustbench_local.models.description import described
from robustbench_local.models.http.address import Address
from robustbench_local.models.http.settings import EndpointSettings, endpoint_settings
from robustbench_local.models.load import load_model

KEY = "s3cr3t-k3y"


@pytest.mark.parametrize(
    ("spec", "server", "name", "version", "labels"),
    [
        ("https://host/v2/models/net", "https://host/v2", "net", None, False),
        ("http://127.0.0.1:80/v2/models/net/", "http://127.0.0.1:80/v2", "net", None, False),
        ("https://host:8443/a/b/v2/models/net/versions/3", "https://host:8443/a/b/v2", "net", "3", False),
        ("https+labels://host/v2/models/net", "https://host/v2", "net", None, True),
        ("http://[::1]:5/v2/models/net", "http://[::1]:5/v2", "net", None, False),
    ],
)
def test_an_address_is_read(spec: str, server: str, name: str, version: str | None, labels: bool) -> None:
    assert Address.parse(spec) == Address(server, name, version, labels)
    at = f"{server}/models/{name}" + (f"/versions/{version}" if version else "")
    assert Address.parse(spec).model == at


@pytest.mark.parametrize(
    "spec",
    [
        f"https://user:{KEY}@host/v2/models/net",
        f"https://{KEY}@host/v2/models/net",
        f"https://host/v2/models/net?key={KEY}",
        f"https://host/v2/models/net#{KEY}",
    ],
)
def test_a_key_in_an_address_is_refused_and_not_repeated(spec: str) -> None:
    with pytest.raises(ModelError) as refused:
        Address.parse(spec)
    assert KEY not in str(refused.value) and "the address holds a" in str(refused.value)


@pytest.mark.parametrize(
    "spec",
    ["https://host/net", "https://host/v2/models/", "https:///v2/models/net", "https+x://host/v2/models/net", "http:"],
)
def test_what_is_no_address_is_an_error_that_shows_one(spec: str) -> None:
    with pytest.raises(ModelError, match="v2/models/NAME"):
        Address.parse(spec)
    with pytest.raises(ModelError, match="cannot be read"):
        Address.parse("https://host:port/v2/models/net")


def test_only_http_to_another_machine_is_readable_on_the_way() -> None:
    readable = [f"http://{host}/v2/models/n" for host in ("host", "10.0.0.1")]
    others = [f"http://{host}/v2/models/n" for host in ("localhost", "127.0.0.1:8", "[::1]")] + [
        "https://h/v2/models/n"
    ]
    assert all(Address.parse(spec).readable_on_the_way for spec in readable)
    assert not any(Address.parse(spec).readable_on_the_way for spec in others)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"querys": 5}, 'did you mean "queries"'),
        ({"queries": 0}, "queries of endpoint"),
        ({"price": -1}, "price of endpoint"),
        ({"protocol": "grpc"}, "json or binary|protocol of endpoint"),
        ({"headers": {"Bad header": "KEY"}}, "can be no header"),
        ({"concurrent": 1000}, "concurrent of endpoint"),
    ],
)
def test_a_mistake_in_what_is_said_of_an_endpoint_is_named(said: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        endpoint_settings(said)
    with pytest.raises(ConfigError, match=match):
        described({"endpoint": said}, "model.yaml")


def test_header_values_come_from_the_environment_and_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EndpointSettings(headers={"Authorization": "MY_KEY"})
    monkeypatch.setenv("MY_KEY", f"Bearer {KEY}\n")
    assert settings.header_values() == {"Authorization": f"Bearer {KEY}"}
    for bad in ("", "  ", f"{KEY}\nX: y", f"{KEY}é"):
        monkeypatch.setenv("MY_KEY", bad)
        with pytest.raises(ModelError, match="MY_KEY") as refused:
            settings.header_values()
        assert KEY not in str(refused.value)
    with pytest.raises(ConfigError, match="environment variable") as literal:
        EndpointSettings(headers={"Authorization": f"Bearer {KEY}"})
    assert KEY not in str(literal.value)


def test_what_is_said_of_an_endpoint_is_refused_of_other_models() -> None:
    with pytest.raises(ModelError, match='endpoint is said of "zoo:mnist/none", which is no server'):
        load_model("zoo:mnist/none", about={"endpoint": {"price": 0.1}})


def test_what_an_endpoint_costs_names_no_row() -> None:
    said = described({"endpoint": {"price": 0.1, "queries": 7}, "classes": 3}, "model.yaml")
    assert said.behaviour() == {"classes": 3}
