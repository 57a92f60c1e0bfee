"""Put the scenario to an Apache Kafka and keep its answers. usage: python -m tests.golden.admin.ask_kafka PORT

The answers that are checked in were given by Apache Kafka 4.3.1, freshly formatted with an empty directory, under the
configuration of `scenario.SETTINGS` and listeners of its own.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

from ottla.protocol.codec import decode_response, encode_request, is_flexible
from ottla.protocol.versions import API_VERSIONS, ApiKey
from tests.golden.admin.plain import plain
from tests.golden.admin.scenario import STEPS, Step

ANSWERS: Final = Path(__file__).with_name("answers.json")
_SETTLED_S: Final = 0.1
"""Kafka applies what it has decided a moment later."""


class Connection:
    """Sends one request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def ask(self, step: Step) -> Any:
        version = API_VERSIONS[step.api][1] if step.version is None else step.version
        flexible = is_flexible(step.api, version)
        header = struct.pack(">hhih", step.api, version, 1, 4) + b"ask!" + (b"\0" if flexible else b"")
        frame = header + encode_request(step.api, version, step.request)
        self._socket.sendall(struct.pack(">i", len(frame)) + frame)
        (size,) = struct.unpack(">i", self._receive(4))
        body = self._receive(size)[5 if flexible else 4 :]
        return decode_response(step.api, version, body)

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            chunk = self._socket.recv(size - len(received))
            if not chunk:
                raise EOFError("the broker closed the connection")
            received += chunk
        return received


def main(port: int) -> None:
    connection = Connection(port)
    lines = []
    for step in STEPS:
        answer = plain(connection.ask(step))
        lines.append(json.dumps({"step": step.name, "answer": answer}, sort_keys=True))
        if step.api not in (ApiKey.DESCRIBE_CONFIGS, ApiKey.LIST_CONFIG_RESOURCES):
            time.sleep(_SETTLED_S)
    ANSWERS.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
