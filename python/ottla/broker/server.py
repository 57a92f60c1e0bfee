"""A broker as one tree of tasks: data directories, quorum, controller, coordinators, listeners.

`Server.run` opens everything, reports that it is ready, and serves until it is told to stop. Tasks never outlive it.
Stopping goes the other way round: no new connections, connections end, logs are flushed and closed.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ottla._native import DataPlane
from ottla.broker.broker_lifecycle import BrokerLifecycle
from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.connection import Connection
from ottla.broker.context import Broker
from ottla.broker.controller_runtime import ControllerRuntime
from ottla.broker.data_dirs import DataDirs, lock_directory, open_data_dirs, same_directory
from ottla.broker.dispatch import Dispatcher
from ottla.broker.event_log import EventLog
from ottla.broker.exposition import families
from ottla.broker.group_coordinator import GroupCoordinator
from ottla.broker.held_partitions import HeldPartitions
from ottla.broker.http import Page, serve_pages
from ottla.broker.janitor import close_idle_connections
from ottla.broker.listener import ConnectionLimits, open_listener, serve_listener
from ottla.broker.log_maintenance import MaintenanceSettings, log_complaints, maintain_logs
from ottla.broker.metadata_publisher import MetadataPublisher
from ottla.broker.metrics import Metrics, render
from ottla.broker.pace import Pace
from ottla.broker.poller import Poller
from ottla.broker.producer_ids import ProducerIds
from ottla.broker.quorum_runtime import QuorumSettings
from ottla.broker.replica_directories import DirectoryAssignments, OfflineReplicas
from ottla.broker.roles import advertised_listeners, check_roles, client_listeners
from ottla.broker.share_coordinator import ShareCoordinator
from ottla.broker.share_fetches import ShareFetches
from ottla.broker.share_groups import ShareGroups
from ottla.broker.share_partitions import SharePartitions
from ottla.broker.share_settings import ShareSettingsTable
from ottla.broker.strays import set_strays_aside
from ottla.broker.transaction_coordinator import TransactionCoordinator
from ottla.broker.transaction_markers import TransactionMarkers
from ottla.broker.transaction_verifier import AddPartitions, TransactionVerifier
from ottla.broker.worker import close_in_thread, in_thread, not_closed
from ottla.common.config import BrokerConfig, check_broker_config
from ottla.common.endpoints import Endpoint, parse_endpoints
from ottla.common.topics import METADATA_PARTITION
from ottla.metadata.records import Endpoint as RegisteredEndpoint

if TYPE_CHECKING:
    from ottla._native import Request

log = EventLog("server")

LOADING_PATIENCE_S: Final = 1
"""How long opening the listeners may wait for groups and transactions to be loaded."""
CLOSING_S: Final = 15.0
"""How long a stop waits for a log directory: much may have to be synced."""
DISK_THREADS: Final = 4
"""For each log directory, of those that read in it for Python."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How long the event loop may have to wait for the GIL when a worker thread runs Python."""


def the_error(error: BaseException) -> BaseException:
    """The one error that ended a tree of tasks, out of the groups that nurseries wrap it in."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A broker that serves."""

    node_id: int
    cluster_id: str
    listeners: Mapping[str, Endpoint]
    """By name, with the ports that were bound."""
    http: Endpoint | None
    """Where the first of the pages' listeners is."""

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return next(iter(self.listeners.values())).port


def _registered(endpoint: Endpoint) -> RegisteredEndpoint:
    """A listener as the metadata keeps it. No host: clients are told what they connected to, others this machine."""
    return RegisteredEndpoint(name=endpoint.name, host=endpoint.host or "localhost", port=endpoint.port)


class Server:
    """One broker."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Args: settings: Configuration by Kafka's keys, as text. Raises: InvalidConfig."""
        self.config = BrokerConfig.load(settings)
        check_broker_config(self.config)
        self.add_partitions: AddPartitions | None = None
        """Asked about transactional writes instead of this broker's coordinator: a test's own."""
        self.connections: dict[int, Connection] = {}
        self._pace = Pace()
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self._is_ready = False

    def stop(self) -> None:
        """Ask for a clean stop; `run` returns when it is done. From the event loop's thread."""
        self._stop.set()

    async def wait_stopped(self) -> None:
        await self._stopped.wait()

    async def run(self, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`.

        Raises: OSError (an address, a directory), InvalidConfig, InvalidEndpoint, InvalidDataDirectory, KafkaError (a
        directory that is damaged or in use), QuorumDamagedError.
        """
        with contextlib.ExitStack() as resources:
            await self._run(resources, task_status)
        if left := not_closed():
            log.error("stopped", not_closed=", ".join(left))
        else:
            log.info("stopped")
        self._stopped.set()

    async def _run(self, resources: contextlib.ExitStack, task_status: trio.TaskStatus[Ready]) -> None:
        config = self.config
        advertised = advertised_listeners(config)
        sockets, listeners = self._open_listeners(resources)
        log_dirs = list(config.names("log.dirs") or config.names("log.dir"))
        node_id = config.integer("node.id") if "node.id" in config.static else None
        metadata_dir = same_directory(config.text("metadata.log.dir") or log_dirs[0], log_dirs)
        identity = await in_thread(partial(open_data_dirs, log_dirs, node_id=node_id, metadata_dir=metadata_dir))
        if metadata_dir not in log_dirs:
            resources.enter_context(await in_thread(partial(lock_directory, metadata_dir)))
        check_roles(config, node_id=identity.node_id)
        plane, identity = await in_thread(partial(self._open_plane, identity, metadata_dir))
        for log_dir, reason in identity.offline.items():
            log.error("log_dir_offline", log_dir=log_dir, reason=reason)
        found = plane.log_dirs()
        held = await in_thread(partial(HeldPartitions.look, found))
        publisher = MetadataPublisher(
            plane,
            node_id=identity.node_id,
            config=config,
            held=held,
            offline=OfflineReplicas(identity.node_id, identity, held),
            was_clean=all(log_dir["was_clean"] for log_dir in found),
        )
        controller = self._controller(identity, publisher, metadata_dir)
        lifecycle = BrokerLifecycle(
            controller,
            publisher,
            node_id=identity.node_id,
            cluster_id=identity.cluster_id,
            directory_ids=tuple(identity.directory_ids.values()),
            endpoints=[_registered(advertised.get(e.name, e)) for e in listeners.values()],
            heartbeat_interval_ms=config.integer("broker.heartbeat.interval.ms"),
        )
        assignments = DirectoryAssignments(
            plane,
            lifecycle.assign_replicas_to_dirs,
            node_id=identity.node_id,
            directory_ids=identity.directory_ids,
        )
        coordinator = GroupCoordinator(
            plane,
            node_id=identity.node_id,
            image=lambda: publisher.image,
            create_topics=controller.handle,
            config=config,
            is_alone=True,
        )
        markers = TransactionMarkers(plane, coordinator.runtime.end_transaction)
        producer_ids = ProducerIds(lifecycle.allocate_producer_ids)
        transactions = TransactionCoordinator(
            plane,
            markers,
            producer_ids,
            node_id=identity.node_id,
            image=lambda: publisher.image,
            create_topics=controller.handle,
            config=config,
            is_alone=True,
        )

        share_coordinator = ShareCoordinator(
            plane,
            node_id=identity.node_id,
            image=lambda: publisher.image,
            create_topics=controller.handle,
            config=config,
            is_alone=True,
        )

        share_settings = ShareSettingsTable(config, lambda: publisher.image)
        share_partitions = SharePartitions(plane, share_coordinator, image=lambda: publisher.image)
        share_groups = ShareGroups(
            plane,
            coordinator,
            share_coordinator,
            image=lambda: publisher.image,
            on_moved=share_partitions.forget_moved,
        )
        metrics = Metrics()
        disk_threads = [trio.CapacityLimiter(DISK_THREADS) for _ in identity.directory_ids]
        share_fetches = ShareFetches(
            share_partitions,
            settings=share_settings,
            disk_threads=disk_threads,
            sessions_max=config.integer("group.share.max.share.sessions"),
            fetch_bytes_max=lambda: publisher.broker_config.integer("fetch.max.bytes"),
            counters=metrics.share,
        )

        def on_high_watermark(topic: str, partition: int) -> None:
            coordinator.on_high_watermark(topic, partition)
            transactions.on_high_watermark(topic, partition)
            share_coordinator.on_high_watermark(topic, partition)
            share_partitions.on_high_watermark(topic, partition)
            markers.on_high_watermark(topic, partition)

        def on_news(session_id: int, is_over: bool, owed: list[Request]) -> None:
            connection = self.connections.get(session_id)
            if connection is not None:
                connection.on_polled(is_over=is_over, owed=owed)

        verifier = TransactionVerifier(
            plane,
            self.add_partitions or transactions.add_partitions,
            config=lambda: publisher.broker_config,
            on_news=on_news,
        )
        publisher.follow(assignments.on_published)
        publisher.follow(coordinator.on_published)
        publisher.follow(transactions.on_published)
        publisher.follow(share_coordinator.on_published)
        publisher.follow(share_settings.on_published)
        publisher.follow(share_partitions.on_published)
        publisher.follow(markers.on_published)
        publisher.follow(lambda published: verifier.configure(published.config))
        broker = Broker(
            node_id=identity.node_id,
            cluster_id=identity.cluster_id,
            plane=plane,
            log_dirs=tuple(identity.directory_ids),
            offline_log_dirs=tuple(identity.offline),
            disk_threads=disk_threads,
            space_threads=[trio.CapacityLimiter(1) for _ in identity.directory_ids],
            metadata=publisher,
            controller=controller,
            quorum_status=controller.quorum_status,
            coordinator=coordinator,
            producer_ids=producer_ids,
            transactions=transactions,
            transaction_markers=markers,
            share_coordinator=share_coordinator,
            share_groups=share_groups,
            share_partitions=share_partitions,
            share_fetches=share_fetches,
            metrics=metrics,
            listeners=listeners,
            advertised=advertised,
        )
        try:
            async with trio.open_nursery() as services:
                poller = Poller(plane, self.connections, on_high_watermark, verifier.start, self._pace)
                services.start_soon(poller.run)
                await services.start(coordinator.run)
                await services.start(transactions.run)
                await services.start(share_coordinator.run)
                await services.start(share_groups.run)
                await services.start(share_partitions.run)
                await services.start(controller.run)
                # All of the metadata log is known now, so what it does not name is not merely unread.
                await in_thread(partial(set_strays_aside, plane, publisher.topic, held))
                services.start_soon(publisher.run)
                await services.start(verifier.run)
                await lifecycle.start()
                services.start_soon(lifecycle.run)
                services.start_soon(assignments.run)
                # Clients that find their coordinator loading sleep before they ask again: most are loaded in no time.
                with trio.move_on_after(LOADING_PATIENCE_S):
                    await coordinator.wait_loaded()
                    await transactions.wait_loaded()
                    await share_coordinator.wait_loaded()
                services.start_soon(
                    maintain_logs,
                    plane,
                    lambda: MaintenanceSettings.of(publisher.broker_config),
                    share_partitions.on_log_start,
                    on_high_watermark,
                )
                http = self._open_http(broker, services, resources)
                async with trio.open_nursery() as connections:
                    self._serve_clients(broker, sockets, connections)
                    self._is_ready = True
                    for endpoint in listeners.values():
                        log.info("listener_opened", listener=endpoint.name, host=endpoint.host, port=endpoint.port)
                    task_status.started(
                        Ready(node_id=identity.node_id, cluster_id=identity.cluster_id, listeners=listeners, http=http)
                    )
                    await self._stop.wait()
                    self._is_ready = False
                    log.info("stopping", connections=len(self.connections))
                    connections.cancel_scope.cancel()
                services.cancel_scope.cancel()
        finally:
            for connection in list(self.connections.values()):
                connection.close()
            with trio.CancelScope(shield=True):
                await self._close(plane, tuple(identity.directory_ids))
            log_complaints(plane)

    def _open_plane(self, identity: DataDirs, metadata_dir: str) -> tuple[DataPlane, DataDirs]:
        """Open and lock the directories; return those that are online then. SLOW."""
        plane = DataPlane(
            broker_id=identity.node_id, log_dirs=tuple(identity.directory_ids), options=self.config.static
        )
        failed = dict(plane.offline_log_dirs())
        if metadata_dir in failed:
            plane.close(now_ms(), wall_ms())
            raise OSError(failed[metadata_dir])
        return plane, identity.without(failed)

    async def _close(self, plane: DataPlane, log_dirs: Sequence[str]) -> None:
        """Close all directories at once, so that none waits for another's disk. Raises: the first error there was."""
        errors: list[Exception] = []

        async def close(index: int) -> None:
            try:
                closing = partial(plane.close, now_ms(), wall_ms(), index)
                await close_in_thread(log_dirs[index], closing, patience_s=CLOSING_S)
            except Exception as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for index in range(len(log_dirs)):
                nursery.start_soon(close, index)
        if errors:
            raise errors[0]

    def _controller(self, identity: DataDirs, publisher: MetadataPublisher, directory: str) -> ControllerRuntime:
        settings = QuorumSettings(
            directory=str(Path(directory) / METADATA_PARTITION),
            node_id=identity.node_id,
            voters=[identity.node_id],
            segment_bytes=self.config.integer("metadata.log.segment.bytes"),
            snapshot_bytes=self.config.integer("metadata.log.max.record.bytes.between.snapshots"),
            snapshot_interval_ms=self.config.integer("metadata.log.max.snapshot.interval.ms"),
        )
        return ControllerRuntime(
            settings, publisher, config=self.config, cluster_id=identity.cluster_id, random=random.SystemRandom()
        )

    def _open_listeners(
        self, resources: contextlib.ExitStack
    ) -> tuple[list[tuple[str, socket.socket]], dict[str, Endpoint]]:
        sockets, listeners = [], {}
        for endpoint in client_listeners(self.config):
            sock = resources.enter_context(open_listener(endpoint))
            sockets.append((endpoint.name, sock))
            port = sock.getsockname()[1]
            listeners[endpoint.name] = Endpoint(name=endpoint.name, host=endpoint.host, port=port)
        return sockets, listeners

    def _serve_clients(
        self,
        broker: Broker,
        sockets: list[tuple[str, socket.socket]],
        nursery: trio.Nursery,
    ) -> None:
        limits = ConnectionLimits()
        limits.configure(self.config)
        broker.metadata.follow(lambda published: limits.configure(published.config))
        dispatch = Dispatcher(broker)

        def start(handle: Callable[..., Awaitable[None]], *arguments: object) -> None:
            """Nothing is begun any more while those that are at work are cancelled: the nursery is about to close."""
            if not self._stop.is_set():
                nursery.start_soon(handle, *arguments)

        def on_closed(connection: Connection) -> None:
            del self.connections[connection.session_id]
            limits.give_back(connection.peer[0])
            broker.share_fetches.on_connection_closed(connection.session_id)

        for name, listening in sockets:

            def accepted(sock: socket.socket, peer: tuple[str, int], name: str = name) -> None:
                connection = Connection(
                    broker.plane,
                    sock,
                    peer=peer,
                    listener_name=name,
                    dispatch=dispatch,
                    start=start,
                    on_closed=on_closed,
                    pace=self._pace,
                )
                broker.metrics.connections_accepted += 1
                self.connections[connection.session_id] = connection

            nursery.start_soon(serve_listener, listening, accepted, limits)
        idle_ms_max = self.config.integer("connections.max.idle.ms")
        nursery.start_soon(close_idle_connections, broker.plane, self.connections, idle_ms_max)

    def _open_http(self, broker: Broker, nursery: trio.Nursery, resources: contextlib.ExitStack) -> Endpoint | None:
        pages: dict[str, Page] = {
            "/metrics": lambda: (200, render(families(broker, connections=len(self.connections)))),
            "/livez": lambda: (200, "ok\n"),
            "/readyz": lambda: (200, "ok\n") if self._is_ready else (503, "not ready\n"),
        }
        opened = []
        for endpoint in parse_endpoints(self.config.text("ottla.http.listeners") or ""):
            sock = resources.enter_context(open_listener(endpoint))
            bound = Endpoint(name=endpoint.name, host=endpoint.host, port=sock.getsockname()[1])
            log.info("http_opened", host=bound.host, port=bound.port)
            nursery.start_soon(serve_pages, sock, pages)
            opened.append(bound)
        return opened[0] if opened else None
