"""Listener addresses as Kafka writes them: `PLAINTEXT://host:port`, several separated by commas. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ENDPOINT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9_.-]+)://(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:/\[\]\s]*)):(?P<port>-?\d+)/?"
)


class InvalidEndpoint(ValueError):
    """A text that is no listener."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A listener: its name, the host ("" is every interface) and the port (0: any free one)."""

    name: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}://{host}:{self.port}"


def parse_endpoints(text: str, *, ports_shared: bool = False) -> tuple[Endpoint, ...]:
    """Parse a comma-separated list. Raises InvalidEndpoint; a name may appear once, and a port of a host, too.

    Args:
        ports_shared: Several may have one address, as one that is only told to clients.
    """
    found: list[Endpoint] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _ENDPOINT.fullmatch(part)
        if match is None or not 0 <= int(match["port"]) <= 65_535:
            raise InvalidEndpoint(f"{part!r} is no listener: NAME://host:port is expected")
        endpoint = Endpoint(name=match["name"].upper(), host=match["v6"] or match["host"], port=int(match["port"]))
        if any(other.name == endpoint.name for other in found):
            raise InvalidEndpoint(f"two listeners are named {endpoint.name}")
        address = (endpoint.host, endpoint.port)
        if endpoint.port and not ports_shared and any((other.host, other.port) == address for other in found):
            raise InvalidEndpoint(f"two listeners have port {endpoint.port}")
        found.append(endpoint)
    return tuple(found)
