"""Configurations that must not be served as something they are not."""

from __future__ import annotations

import pytest

from ottla.broker.roles import advertised_listeners, check_roles, client_listeners
from ottla.common.config import BrokerConfig, InvalidConfig

KAFKAS_QUICKSTART = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": "1@localhost:9093",
    "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "inter.broker.listener.name": "PLAINTEXT",
    "advertised.listeners": "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
}


def config(**changes: str) -> BrokerConfig:
    return BrokerConfig.load({key.replace("_", "."): value for key, value in changes.items()})


def test_kafkas_own_file_for_one_node_is_served_without_its_controller_listener() -> None:
    quickstart = BrokerConfig.load(KAFKAS_QUICKSTART)
    check_roles(quickstart, node_id=1)
    assert [(e.name, e.port) for e in client_listeners(quickstart)] == [("PLAINTEXT", 9092)]


def test_listeners_may_have_names_of_their_own() -> None:
    named = config(
        listeners="INSIDE://:1,OUTSIDE://:2", listener_security_protocol_map="INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT"
    )
    assert [e.name for e in client_listeners(named)] == ["INSIDE", "OUTSIDE"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"listeners": "SSL://:1"}, "SSL"),
        ({"listeners": "PLAINTEXT://:1,SASL_SSL://:2"}, "SASL_SSL"),
        ({"listeners": "PLAINTEXT://:1", "listener_security_protocol_map": "PLAINTEXT:SSL"}, "SSL"),
        ({"listeners": "INSIDE://:1"}, "no protocol for listener INSIDE"),
        ({"listeners": "CONTROLLER://:1", "controller_listener_names": "CONTROLLER"}, "nothing that clients"),
    ],
)
def test_a_listener_that_cannot_be_served_as_it_says_is_refused(changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        client_listeners(config(**changes))


def test_listeners_may_be_advertised_at_one_address() -> None:
    named = config(listeners="A://:1,B://:2,C://:3", advertised_listeners="A://proxy:9,B://proxy:9")
    advertised = advertised_listeners(named)
    assert {name: (e.host, e.port) for name, e in advertised.items()} == {"A": ("proxy", 9), "B": ("proxy", 9)}
    assert advertised_listeners(BrokerConfig.load(KAFKAS_QUICKSTART))["PLAINTEXT"].host == "localhost"


@pytest.mark.parametrize("text", ["OTHER://h:1", "PLAINTEXT://h:1,OTHER://h:2", "PLAINTEXT://0.0.0.0:1"])
def test_what_nobody_can_connect_to_is_not_advertised(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"advertised\.listeners"):
        advertised_listeners(config(listeners="PLAINTEXT://:1", advertised_listeners=text))


@pytest.mark.parametrize(
    "changes",
    [
        {"process_roles": "controller"},
        {"controller_quorum_voters": "1@a:9093,2@b:9093,3@c:9093"},
        {"controller_quorum_voters": "2@b:9093"},
    ],
)
def test_a_node_that_would_need_others_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig):
        check_roles(config(**changes), node_id=1)
