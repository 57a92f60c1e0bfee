"""What a handler is given: the request's circumstances and the parts of the broker it may use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ottla.protocol.versions import ApiKey

if TYPE_CHECKING:
    from ottla._native import DataPlane
    from ottla.broker.connection import Connection
    from ottla.broker.metadata_publisher import MetadataPublisher
    from ottla.broker.metrics import Metrics
    from ottla.broker.producer_ids import ProducerIds
    from ottla.broker.quorum_runtime import QuorumStatus
    from ottla.broker.share_coordinator import ShareCoordinator
    from ottla.broker.share_fetches import ShareFetches
    from ottla.broker.share_groups import ShareGroups
    from ottla.broker.share_partitions import SharePartitions
    from ottla.broker.standing_commits import Committing
    from ottla.broker.standing_heartbeats import Beating
    from ottla.broker.transaction_coordinator import TransactionCoordinator
    from ottla.broker.transaction_markers import TransactionMarkers
    from ottla.common.endpoints import Endpoint


class Controller(Protocol):
    """Where requests that change metadata are decided (`controller_runtime`)."""

    async def handle(self, request: Any) -> Any:
        """Return the response to a request of the admin APIs, once what it rests on is committed and applied here.

        Raises: KafkaError with NOT_CONTROLLER.
        """


@dataclass(slots=True, kw_only=True)
class Broker:
    """The parts of a running broker."""

    node_id: int
    cluster_id: str
    plane: DataPlane
    log_dirs: Sequence[str]
    """In the data plane's order."""
    offline_log_dirs: Collection[str]
    """Those that could not be used when the broker started."""
    disk_threads: Sequence[trio.CapacityLimiter]
    """Threads for reading in each log directory: where one disk stalls, the others have theirs."""
    space_threads: Sequence[trio.CapacityLimiter]
    """A thread for asking each of them how full it is, which waits for nobody who reads there."""
    metadata: MetadataPublisher
    controller: Controller
    quorum_status: Callable[[], QuorumStatus]
    coordinator: Any
    producer_ids: ProducerIds
    transactions: TransactionCoordinator
    transaction_markers: TransactionMarkers
    share_coordinator: ShareCoordinator
    share_groups: ShareGroups
    share_partitions: SharePartitions
    share_fetches: ShareFetches
    metrics: Metrics
    listeners: dict[str, Endpoint]
    """What is listened on, by listener name, with the ports that were bound."""
    advertised: dict[str, Endpoint]
    """What clients of a listener are told to connect to; a listener without entry, or one without host or port, tells
    them what they connected to."""


@dataclass(slots=True)
class RequestContext:
    """One request that Python owes."""

    broker: Broker
    connection: Connection
    api: ApiKey
    version: int
    client_id: str | None
    now_ms: int
    wall_ms: int
    stands: Beating | Committing | None = None
    """What the request is, where the data plane may deal with the next ones that are like it."""

    def advertised_endpoint(self) -> tuple[str, int]:
        """The address at which this client reaches the broker."""
        endpoint = self.broker.advertised.get(self.connection.listener_name)
        host, port = self.connection.local
        return (host, port) if endpoint is None else (endpoint.host or host, endpoint.port or port)
