"""A broker as one tree of tasks: data directories, quorum, controller, coordinators, listeners.

`Server.run` opens everything, reports that it is ready, and serves until it is told to stop. Tasks never outlive it.
Stopping goes the other way round: no new connections, connections end, logs are flushed and closed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import trio

from ottla._native import DataPlane
from ottla.broker.connection import Connection
from ottla.broker.context import Broker
from ottla.broker.data_dirs import open_data_dirs
from ottla.broker.dispatch import Dispatcher
from ottla.broker.event_log import EventLog
from ottla.broker.http import Page, serve_pages
from ottla.broker.janitor import look_after
from ottla.broker.listener import ConnectionLimits, open_listener, serve_listener
from ottla.broker.metadata_publisher import MetadataPublisher
from ottla.broker.metrics import Metrics, render
from ottla.broker.poller import Poller
from ottla.common.endpoints import Endpoint, parse_endpoints

log = EventLog("server")

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

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return next(iter(self.listeners.values())).port


class Server:
    """One broker."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Args: settings: Configuration by Kafka's keys, as text."""
        self.settings = settings
        self.connections: dict[int, Connection] = {}
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self._is_ready = False

    def stop(self) -> None:
        """Ask for a clean stop; `run` returns when it is done. From the event loop's thread."""
        self._stop.set()

    async def wait_stopped(self) -> None:
        await self._stopped.wait()

    async def run(self, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`. Raises: OSError (an address, a directory), InvalidDataDirectory."""
        with contextlib.ExitStack() as resources:
            await self._run(resources, task_status)
        log.info("stopped")
        self._stopped.set()

    async def _run(self, resources: contextlib.ExitStack, task_status: trio.TaskStatus[Ready]) -> None:
        settings = self.settings
        log_dirs = [d.strip() for d in (settings.get("log.dirs") or settings["log.dir"]).split(",")]
        node = settings.get("node.id") or settings.get("broker.id")
        identity = open_data_dirs(log_dirs, node_id=int(node) if node else None)
        plane = DataPlane(broker_id=identity.node_id, log_dirs=log_dirs, options=dict(settings))
        sockets, listeners = self._open_listeners(settings.get("listeners") or "PLAINTEXT://:9092", resources)
        broker = Broker(
            node_id=identity.node_id,
            cluster_id=identity.cluster_id,
            plane=plane,
            metadata=MetadataPublisher(),
            controller=None,
            coordinator=None,
            metrics=Metrics(),
            listeners=listeners,
            advertised={e.name: e for e in parse_endpoints(settings.get("advertised.listeners") or "")},
        )
        poller = Poller(plane, self.connections, on_high_watermark=lambda _topic, _partition: None)
        async with trio.open_nursery() as services:
            services.start_soon(poller.run)
            http = self._open_http(broker, services, resources)
            async with trio.open_nursery() as connections:
                self._serve_clients(broker, poller, sockets, connections)
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

    def _open_listeners(
        self, text: str, resources: contextlib.ExitStack
    ) -> tuple[list[tuple[str, trio.socket.SocketType]], dict[str, Endpoint]]:
        sockets, listeners = [], {}
        for endpoint in parse_endpoints(text):
            sock = resources.enter_context(open_listener(endpoint))
            sockets.append((endpoint.name, sock))
            port = sock.getsockname()[1]
            listeners[endpoint.name] = Endpoint(name=endpoint.name, host=endpoint.host, port=port)
        return sockets, listeners

    def _serve_clients(
        self,
        broker: Broker,
        poller: Poller,
        sockets: list[tuple[str, trio.socket.SocketType]],
        nursery: trio.Nursery,
    ) -> None:
        settings = self.settings
        limits = ConnectionLimits(
            connections_max=int(settings.get("max.connections", 2**31 - 1)),
            connections_per_ip_max=int(settings.get("max.connections.per.ip", 2**31 - 1)),
        )
        dispatch = Dispatcher(broker)

        def on_closed(connection: Connection) -> None:
            del self.connections[connection.session_id]
            limits.give_back(connection.peer[0])

        for name, listening in sockets:

            def accepted(sock: trio.socket.SocketType, peer: tuple[str, int], name: str = name) -> None:
                connection = Connection(
                    broker.plane,
                    sock,
                    peer=peer,
                    listener_name=name,
                    dispatch=dispatch,
                    after_pump=poller.arm,
                    on_closed=on_closed,
                )
                broker.metrics.connections_accepted += 1
                self.connections[connection.session_id] = connection
                nursery.start_soon(connection.run)

            nursery.start_soon(serve_listener, listening, accepted, limits)
        nursery.start_soon(self._look_after_connections)

    async def _look_after_connections(self) -> None:
        await look_after(self.connections, idle_ms_max=int(self.settings.get("connections.max.idle.ms", 600_000)))

    def _open_http(self, broker: Broker, nursery: trio.Nursery, resources: contextlib.ExitStack) -> Endpoint | None:
        text = self.settings.get("ottla.http.listeners")
        if not text:
            return None
        (endpoint,) = parse_endpoints(text)
        sock = resources.enter_context(open_listener(endpoint))
        pages: dict[str, Page] = {
            "/metrics": lambda: (200, render(broker.metrics.families())),
            "/livez": lambda: (200, "ok\n"),
            "/readyz": lambda: (200, "ok\n") if self._is_ready else (503, "not ready\n"),
        }
        nursery.start_soon(serve_pages, sock, pages)
        return Endpoint(name=endpoint.name, host=endpoint.host, port=sock.getsockname()[1])
