"""SHELL. All connections of one client: to the bootstrap servers first, then to brokers by node id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

import anyio
import anyio.abc

from ottla.client.connection import Connection, ConnectionLost, open_connection
from ottla.client.core.cluster import ClusterView
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from ottla.protocol.versions import ApiKey

T = TypeVar("T")
BOOTSTRAP_NODE = -1
RETRY_BACKOFF_MS = 100
RETRY_BACKOFF_MAX_MS = 1_000


class InvalidServers(ValueError):
    """A text that names no bootstrap server."""


def parse_servers(servers: str | Sequence[str]) -> list[tuple[str, int]]:
    """`host:port[,host:port]` or a list of them; IPv6 in brackets. Raises InvalidServers."""
    parts = servers.split(",") if isinstance(servers, str) else list(servers)
    found = []
    for part in (p.strip() for p in parts):
        host, colon, port = part.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
            raise InvalidServers(f"{part!r} is not host:port")
        found.append((host.removeprefix("[").removesuffix("]"), int(port)))
    if not found:
        raise InvalidServers("no bootstrap server is given")
    return found


class Network:
    """Connections by node, the metadata view, and retries. Lives in a task group that its owner closes."""

    def __init__(
        self, tasks: anyio.abc.TaskGroup, servers: Sequence[tuple[str, int]], *, client_id: str, request_timeout_ms: int
    ) -> None:
        self._tasks = tasks
        self._servers = list(servers)
        self.client_id = client_id
        self.request_timeout_ms = request_timeout_ms
        self.view = ClusterView()
        self._connections: dict[int, Connection] = {}
        self._opening: dict[int, anyio.Lock] = {}
        self._coordinators: dict[tuple[int, str], int] = {}
        self.trouble: ConnectionLost | None = None
        """Why the last request was not answered; None when it was."""

    async def connection(self, node_id: int) -> Connection:
        """The connection to a node, opened on first use. Raises ConnectionLost."""
        async with self._opening.setdefault(node_id, anyio.Lock()):
            existing = self._connections.get(node_id)
            if existing is not None and not existing.is_closed:
                return existing
            if node_id == BOOTSTRAP_NODE:
                connection = await self._bootstrap()
            else:
                broker = self.view.brokers.get(node_id)
                if broker is None:
                    raise ConnectionLost(f"broker {node_id} is not known")
                connection = await self._open(broker.host, broker.port)
            self._connections[node_id] = connection
            return connection

    async def _open(self, host: str, port: int) -> Connection:
        return await open_connection(
            host, port, client_id=self.client_id, timeout_ms=self.request_timeout_ms, tasks=self._tasks
        )

    async def _bootstrap(self) -> Connection:
        candidates = [(b.host, b.port) for b in self.view.brokers.values()] + self._servers
        error: ConnectionLost | None = None
        for host, port in dict.fromkeys(candidates):
            try:
                return await self._open(host, port)
            except ConnectionLost as lost:
                error = lost
        assert error is not None
        raise error

    async def send(
        self, node_id: int, api: ApiKey, message: Any, *, version_max: int | None = None, timeout_ms: int | None = None
    ) -> Any:
        """One request to one node, once. Raises ConnectionLost (also when it times out), KafkaError."""
        try:
            answer = await self._send(node_id, api, message, version_max=version_max, timeout_ms=timeout_ms)
        except ConnectionLost as error:
            self.trouble = error
            raise
        self.trouble = None
        return answer

    async def _send(
        self, node_id: int, api: ApiKey, message: Any, *, version_max: int | None, timeout_ms: int | None
    ) -> Any:
        limit_ms = self.request_timeout_ms if timeout_ms is None else timeout_ms
        connection = await self.connection(node_id)
        version = connection.version(api, at_most=version_max)
        try:
            with anyio.fail_after(limit_ms / 1000):
                return await connection.request(api, message, version=version)
        except TimeoutError as error:
            # Answers come in order: a connection with one missing is of no use for the next.
            await connection.aclose()
            raise ConnectionLost(f"{api.name} was not answered within {limit_ms} ms") from error

    async def send_unanswered(self, node_id: int, api: ApiKey, message: Any) -> None:
        """One request that has no response (Produce with acks=0)."""
        await (await self.connection(node_id)).request(api, message, expect_response=False)

    async def send_any(self, api: ApiKey, message: Any, *, version_max: int | None = None) -> Any:
        """One request to whichever broker answers, tried again while connections fail."""
        return await self.retrying(lambda: self.send(BOOTSTRAP_NODE, api, message, version_max=version_max))

    async def retrying(self, call: Callable[[], Awaitable[T]], *, timeout_ms: int | None = None, silent: str = "") -> T:
        """Repeat while retriable errors come, for `timeout_ms` at most, also if calls retry by themselves.

        Args:
            silent: Stands before the text of the error that says that nothing at all came.
        Raises: KafkaError: the first that is not retriable, or the last one when the time is up.
        """
        limit_ms = self.request_timeout_ms if timeout_ms is None else timeout_ms
        last: KafkaError | None = None
        with anyio.move_on_after(limit_ms / 1000):
            backoff_ms = RETRY_BACKOFF_MS
            while True:
                try:
                    return await call()
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    last = error
                await anyio.sleep(backoff_ms / 1000)
                backoff_ms = min(backoff_ms * 2, RETRY_BACKOFF_MAX_MS)
        raise last or self.trouble or ConnectionLost(f"{silent}no answer came within {limit_ms} ms")

    async def reach(self, *, timeout_ms: int) -> None:
        """Connect to one of the bootstrap servers. Raises ConnectionLost."""
        servers = ", ".join(f"{host}:{port}" for host, port in self._servers)
        silent = f"{servers} cannot be reached: "
        await self.retrying(lambda: self.connection(BOOTSTRAP_NODE), timeout_ms=timeout_ms, silent=silent)

    async def refresh(self, topics: Collection[str] | None, *, auto_create: bool = False) -> None:
        """Ask for metadata: of all topics (None), or of these."""
        asked = None if topics is None else tuple(MetadataRequestTopic(name=t) for t in sorted(topics))
        message = MetadataRequest(topics=asked, allow_auto_topic_creation=auto_create)
        response: MetadataResponse = await self.send_any(ApiKey.METADATA, message)
        self.view.update(response, all_topics=topics is None)

    async def refresh_until_known(self, topics: Collection[str], *, auto_create: bool, timeout_ms: int) -> None:
        """Ask until each topic is there with leaders. Raises KafkaError of the first that stays away."""

        async def once() -> None:
            await self.refresh(topics, auto_create=auto_create)
            for topic in topics:
                if topic not in self.view.topics:
                    code = self.view.errors.get(topic, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                    raise KafkaError(code, f"topic {topic!r}: {code.name}")
                if any(p.leader_id not in self.view.brokers for p in self.view.topics[topic].partitions.values()):
                    raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {topic!r} has partitions without leader")

        await self.retrying(once, timeout_ms=timeout_ms)

    async def coordinator(self, key: str, *, key_type: int = 0) -> int:
        """The node that coordinates a group (key_type 0) or transactional id (1), found once and kept."""
        known = self._coordinators.get((key_type, key))
        if known is not None:
            return known

        async def once() -> int:
            message = FindCoordinatorRequest(key=key, key_type=key_type, coordinator_keys=(key,))
            response: FindCoordinatorResponse = await self.send(BOOTSTRAP_NODE, ApiKey.FIND_COORDINATOR, message)
            found = response.coordinators[0] if response.coordinators else None
            if found is None:
                found = Coordinator(
                    key=key,
                    node_id=response.node_id,
                    host=response.host,
                    port=response.port,
                    error_code=response.error_code,
                    error_message=response.error_message,
                )
            if found.error_code is not ErrorCode.NONE:
                raise KafkaError(found.error_code, found.error_message)
            if found.node_id not in self.view.brokers:
                await self.refresh(())
            return found.node_id

        node_id = await self.retrying(once)
        self._coordinators[(key_type, key)] = node_id
        return node_id

    def forget_coordinator(self, key: str, *, key_type: int = 0) -> None:
        self._coordinators.pop((key_type, key), None)

    async def send_to_coordinator(
        self, group_id: str, api: ApiKey, message: Any, *, timeout_ms: int | None = None
    ) -> Any:
        """One request to a group's coordinator, once. A lost connection forgets the coordinator."""
        node_id = await self.coordinator(group_id)
        try:
            return await self.send(node_id, api, message, timeout_ms=timeout_ms)
        except ConnectionLost:
            self.forget_coordinator(group_id)
            raise

    async def aclose(self) -> None:
        for connection in self._connections.values():
            await connection.aclose()
