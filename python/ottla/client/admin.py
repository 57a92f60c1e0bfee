"""SHELL. The administrator's client: one member a noun."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType

import anyio

from ottla.client.configs import ConfigsClient
from ottla.client.core.cluster import Broker
from ottla.client.groups import GroupsClient
from ottla.client.network import Network, parse_servers
from ottla.client.offsets import OffsetsClient
from ottla.client.topics import TopicsClient
from ottla.client.transactions import TransactionsClient
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.describe_cluster import DescribeClusterRequest, DescribeClusterResponse
from ottla.protocol.messages.describe_log_dirs import DescribeLogDirsRequest, DescribeLogDirsResponse
from ottla.protocol.versions import ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDescription:
    cluster_id: str
    controller_id: int
    brokers: tuple[Broker, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDirDescription:
    """`total_bytes` and `usable_bytes` of the file system are -1 where the broker does not say."""

    broker_id: int
    path: str
    error: ErrorCode
    total_bytes: int
    usable_bytes: int
    partitions_count: int
    partitions_bytes: int


class Admin:
    """`async with Admin("localhost:9092") as admin: await admin.topics.list_topics()`."""

    topics: TopicsClient
    configs: ConfigsClient
    groups: GroupsClient
    offsets: OffsetsClient
    transactions: TransactionsClient

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        client_id: str = "ottla-admin",
        request_timeout_ms: int = 30_000,
    ) -> None:
        self._servers = parse_servers(bootstrap_servers)
        self._client_id, self._request_timeout_ms = client_id, request_timeout_ms
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Admin:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self.network = Network(
            self._tasks, self._servers, client_id=self._client_id, request_timeout_ms=self._request_timeout_ms
        )
        self.topics = TopicsClient(self.network)
        self.configs = ConfigsClient(self.network)
        self.offsets = OffsetsClient(self.network)
        self.groups = GroupsClient(self.network, self.offsets)
        self.transactions = TransactionsClient(self.network)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._tasks.cancel_scope.cancel()
        await self._stack.aclose()
        return None

    async def describe_cluster(self) -> ClusterDescription:
        request = DescribeClusterRequest(endpoint_type=1)
        response: DescribeClusterResponse = await self.network.send_any(ApiKey.DESCRIBE_CLUSTER, request)
        if response.error_code is not ErrorCode.NONE:
            raise KafkaError(response.error_code, response.error_message)
        return ClusterDescription(
            cluster_id=response.cluster_id,
            controller_id=response.controller_id,
            brokers=tuple(Broker(b.broker_id, b.host, b.port, b.rack) for b in response.brokers),
        )

    async def describe_log_dirs(self) -> list[LogDirDescription]:
        """All log directories of all brokers."""
        await self.network.refresh(())
        found = []
        for node_id in sorted(self.network.view.brokers):
            request = DescribeLogDirsRequest(topics=None)
            response: DescribeLogDirsResponse = await self.network.send(node_id, ApiKey.DESCRIBE_LOG_DIRS, request)
            for r in response.results:
                sizes = [p.partition_size for t in r.topics for p in t.partitions]
                found.append(
                    LogDirDescription(
                        broker_id=node_id,
                        path=r.log_dir,
                        error=r.error_code,
                        total_bytes=r.total_bytes,
                        usable_bytes=r.usable_bytes,
                        partitions_count=len(sizes),
                        partitions_bytes=sum(sizes),
                    )
                )
        return found
