"""SHELL. One connection to one broker: negotiates versions, then many callers share it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc

from ottla.client.core.wire import Wire, WireError
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.codec import MalformedMessage
from ottla.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from ottla.protocol.versions import API_VERSIONS, ApiKey

RECV_BYTES_MAX = 256 * 1024
SOFTWARE_NAME, SOFTWARE_VERSION = "ottla", "0.1.0"


class ConnectionLost(KafkaError):
    """The broker went away, or never was there. A request under way may or may not have been carried out."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.NETWORK_EXCEPTION, message)


class _Answer:
    __slots__ = ("error", "event", "value")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.value: Any = None
        self.error: Exception | None = None


class Connection:
    """Use `connect`. `request` may be called by many tasks at once: answers come in the order of sending."""

    def __init__(self, stream: anyio.abc.SocketStream, wire: Wire, name: str) -> None:
        self._stream, self._wire, self._name = stream, wire, name
        self._answers: dict[int, _Answer] = {}
        self._send_lock = anyio.Lock()
        self.versions: dict[int, tuple[int, int]] = {}
        self.is_closed = False

    def version(self, api: ApiKey, *, at_most: int | None = None) -> int:
        """The highest version that both sides speak. Raises KafkaError UNSUPPORTED_VERSION."""
        low, high = API_VERSIONS[api]
        peer_low, peer_high = self.versions.get(api, (0, -1))
        best = min(high, peer_high) if at_most is None else min(high, peer_high, at_most)
        if best < max(low, peer_low):
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, f"{self._name} does not serve {api.name}")
        return best

    async def request(
        self, api: ApiKey, message: Any, *, version: int | None = None, expect_response: bool = True
    ) -> Any:
        """Send one request and return its response. Raises ConnectionLost, KafkaError."""
        if self.is_closed:
            raise ConnectionLost(f"the connection to {self._name} is closed")
        answer = _Answer()
        async with self._send_lock:
            chosen = self.version(api) if version is None else version
            correlation_id, frame = self._wire.request(api, chosen, message, expect_response=expect_response)
            if expect_response:
                self._answers[correlation_id] = answer
            try:
                # Half a frame on the wire would shift all that follows: cancelled here, the connection is spent.
                await self._stream.send(frame)
            except BaseException as error:
                self._fail(ConnectionLost(f"sending to {self._name} failed"))
                if isinstance(error, (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)):
                    raise ConnectionLost(f"{self._name}: {error}") from error
                raise
        if not expect_response:
            return None
        await answer.event.wait()
        if answer.error is not None:
            raise answer.error
        return answer.value

    async def run(self) -> None:
        """Read answers until the peer closes. Never raises for a lost peer: the callers are told."""
        reason = "was given up"
        try:
            while True:
                for correlation_id, response in self._wire.receive(await self._stream.receive(RECV_BYTES_MAX)):
                    answer = self._answers.pop(correlation_id)
                    answer.value = response
                    answer.event.set()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            reason = "closed the connection"
        except (OSError, anyio.BrokenResourceError, WireError, MalformedMessage) as error:
            reason = str(error)
        finally:
            self._fail(ConnectionLost(f"{self._name} {reason}"))
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await anyio.aclose_forcefully(self._stream)

    def _fail(self, error: ConnectionLost) -> None:
        self.is_closed = True
        for answer in self._answers.values():
            answer.error = error
            answer.event.set()
        self._answers.clear()

    async def negotiate(self) -> None:
        """Learn the versions that the broker speaks (ApiVersions, down to version 0 for an old one)."""
        message = ApiVersionsRequest(client_software_name=SOFTWARE_NAME, client_software_version=SOFTWARE_VERSION)
        response: ApiVersionsResponse = await self.request(ApiKey.API_VERSIONS, message, version=4)
        if response.error_code is ErrorCode.UNSUPPORTED_VERSION:
            response = await self.request(ApiKey.API_VERSIONS, message, version=0)
        if response.error_code is not ErrorCode.NONE:
            raise KafkaError(response.error_code, f"{self._name}: ApiVersions")
        self.versions = {k.api_key: (k.min_version, k.max_version) for k in response.api_keys}

    async def aclose(self) -> None:
        self._fail(ConnectionLost(f"the connection to {self._name} was closed here"))
        await anyio.aclose_forcefully(self._stream)


@asynccontextmanager
async def connect(host: str, port: int, *, client_id: str, timeout_ms: int) -> AsyncIterator[Connection]:
    """Open a connection for the length of a block. Raises ConnectionLost."""
    async with anyio.create_task_group() as tasks:
        connection = await open_connection(host, port, client_id=client_id, timeout_ms=timeout_ms, tasks=tasks)
        yield connection
        tasks.cancel_scope.cancel()


async def open_connection(
    host: str, port: int, *, client_id: str, timeout_ms: int, tasks: anyio.abc.TaskGroup
) -> Connection:
    """Connect, start the reader in `tasks`, negotiate. Raises ConnectionLost."""
    name = f"{host}:{port}"
    connection: Connection | None = None
    try:
        with anyio.fail_after(timeout_ms / 1000):
            stream = await anyio.connect_tcp(host, port)
            connection = Connection(stream, Wire(client_id=client_id), name)
            tasks.start_soon(connection.run)
            await connection.negotiate()
    except BaseException as error:
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await connection.aclose()
        if not isinstance(error, (OSError, TimeoutError)):
            raise
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise ConnectionLost(f"{name} cannot be reached: {_text(reason)}") from error
    return connection


def _text(error: BaseException) -> str:
    """What the system says, without Python's number in front of it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "timed out"
