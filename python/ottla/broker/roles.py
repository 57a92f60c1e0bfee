"""What of a configuration this broker cannot be: refused at start, in words, rather than served as something else.

A listener that says SSL must never speak plain text, and a node of a larger quorum must never decide alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ottla.common.config import BrokerConfig, InvalidConfig
from ottla.common.endpoints import Endpoint, parse_endpoints

PLAINTEXT: Final = "PLAINTEXT"
PROTOCOLS: Final = (PLAINTEXT, "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def client_listeners(config: BrokerConfig) -> tuple[Endpoint, ...]:
    """The listeners that clients connect to; those of controllers are for other voters, of which there are none.

    Raises: InvalidEndpoint, InvalidConfig (none, or one that does not speak plain text).
    """
    controllers = config.names("controller.listener.names")
    listeners = [e for e in parse_endpoints(config.text("listeners") or "") if e.name not in controllers]
    if not listeners:
        raise InvalidConfig("listeners names nothing that clients could connect to.")
    _check_protocols(listeners, _protocol_map(config.text("listener.security.protocol.map") or ""))
    return tuple(listeners)


def advertised_listeners(config: BrokerConfig) -> dict[str, Endpoint]:
    """What clients of a listener are told to connect to, by its name; those that are not in it need no telling.

    Raises: InvalidEndpoint, InvalidConfig (a listener that there is none of, an address that nobody can connect to).
    """
    names = [e.name for e in parse_endpoints(config.text("listeners") or "")]
    advertised = parse_endpoints(config.text("advertised.listeners") or "", ports_shared=True)
    for endpoint in advertised:
        if endpoint.name not in names:
            raise InvalidConfig(
                f"advertised.listeners names {endpoint.name}, which is none of the listeners: {', '.join(names)}."
            )
        if endpoint.host == "0.0.0.0":
            raise InvalidConfig(f"advertised.listeners says {endpoint}, which no client can connect to.")
    return {endpoint.name: endpoint for endpoint in advertised}


def _protocol_map(text: str) -> Mapping[str, str]:
    pairs = (part.partition(":") for part in text.split(",") if part.strip())
    return {name.strip().upper(): protocol.strip().upper() for name, _, protocol in pairs}


def _check_protocols(listeners: Iterable[Endpoint], protocols: Mapping[str, str]) -> None:
    for listener in listeners:
        protocol = protocols.get(listener.name)
        if protocol not in PROTOCOLS:
            raise InvalidConfig(f"listener.security.protocol.map gives no protocol for listener {listener.name}.")
        if protocol != PLAINTEXT:
            raise InvalidConfig(f"Listener {listener} speaks {protocol}; only {PLAINTEXT} is served so far.")


def check_roles(config: BrokerConfig, *, node_id: int) -> None:
    """Raises: InvalidConfig, unless this node is the broker and the only controller of its cluster."""
    roles = config.names("process.roles")
    if roles and "broker" not in roles:
        raise InvalidConfig("process.roles has no broker: a controller without a broker is not served so far.")
    voters = [voter.partition("@")[0].strip() for voter in config.names("controller.quorum.voters")]
    if voters and voters != [str(node_id)]:
        raise InvalidConfig(
            f"controller.quorum.voters names {', '.join(voters)}; only a quorum of this node, {node_id}, is served."
        )
