"""Accept connections, as `trio.serve_listeners` does, with Kafka's connection limits.

Errors of `accept` fall into three kinds. The connection died before it was taken: go on. The process or machine is out
of descriptors or memory: log, wait a moment, go on; those that are served keep being served. Anything else is a
bug or the end of the socket and propagates.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Callable
from typing import Final

import trio

from ottla.broker.event_log import EventLog
from ottla.common.config import BrokerConfig
from ottla.common.endpoints import Endpoint

log = EventLog("listener")

ACCEPT_BACKOFF_S: Final = 0.1
ACCEPTS_A_TURN: Final = 16
"""Connections that are taken before other tasks may run: a turn for each would cost as much again."""
BACKLOG_MAX: Final = 1024
UNLIMITED: Final = 2**31 - 1
DESCRIPTORS_RESERVED: Final = 512
"""File descriptors that connections leave to logs, but at most half of what the process may have."""
_OUT_OF_CAPACITY: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_CONNECTION_IS_GONE: Final = {
    errno.EPERM,  # a firewall rule forbids it
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
}

Accepted = Callable[[socket.socket, tuple[str, int]], None]
"""Takes over a connection: closes the socket in the end, and then gives its place back to the limits.

The socket does not block, and is none of Trio's, which would look after it although nothing of Trio ever waits for it.
"""


class ConnectionLimits:
    """`max.connections` and `max.connections.per.ip` over all listeners of a broker.

    At the first, accepting stops until a connection ends; past the second, a new connection is closed at once. Both
    may be changed while the broker runs; connections that are open stay.
    """

    def __init__(self) -> None:
        self.connections_max = UNLIMITED
        self.connections_per_ip_max = UNLIMITED
        self.open_count = 0
        self._per_ip: dict[str, int] = {}
        self._freed = trio.Event()

    def configure(self, config: BrokerConfig) -> None:
        self.connections_max = config.integer("max.connections")
        self.connections_per_ip_max = config.integer("max.connections.per.ip")
        self._wake()

    async def wait_for_room(self) -> None:
        while self.open_count >= self.connections_max:
            await self._freed.wait()

    def take(self, ip: str) -> bool:
        """Count a connection. False: this address has too many."""
        count = self._per_ip.get(ip, 0)
        if count >= self.connections_per_ip_max:
            return False
        self._per_ip[ip] = count + 1
        self.open_count += 1
        return True

    def give_back(self, ip: str) -> None:
        self.open_count -= 1
        count = self._per_ip[ip] - 1
        if count:
            self._per_ip[ip] = count
        else:
            del self._per_ip[ip]
        self._wake()

    def _wake(self) -> None:
        self._freed.set()
        self._freed = trio.Event()


def descriptors_left(newest: int) -> int:
    """How many more descriptors connections may take, `newest` being the lowest that was free."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return DESCRIPTORS_RESERVED
    return limit - min(DESCRIPTORS_RESERVED, limit // 2) - newest


def open_listener(endpoint: Endpoint) -> socket.socket:
    """Bind and listen; the socket does not block.

    An empty host is every interface, by IPv6 and IPv4 where the machine has both; port 0 picks one.

    Raises: OSError, with the address in it.
    """
    try:
        if endpoint.host:
            family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
            sock = socket.create_server((endpoint.host, endpoint.port), family=family, backlog=BACKLOG_MAX)
        else:
            dual = socket.has_dualstack_ipv6()
            sock = socket.create_server(
                ("", endpoint.port),
                family=socket.AF_INET6 if dual else socket.AF_INET,
                dualstack_ipv6=dual,
                backlog=BACKLOG_MAX,
            )
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {endpoint}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


async def serve_listener(listening: socket.socket, accepted: Accepted, limits: ConnectionLimits) -> None:
    """Accept until cancelled, then close."""
    with listening:
        while True:
            await trio.lowlevel.wait_readable(listening)
            for _ in range(ACCEPTS_A_TURN):
                await limits.wait_for_room()
                try:
                    sock, address = listening.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _OUT_OF_CAPACITY:
                        log.error("accept_failed", reason=error.strerror, retry_s=ACCEPT_BACKOFF_S)
                        await trio.sleep(ACCEPT_BACKOFF_S)
                    elif error.errno not in _CONNECTION_IS_GONE:
                        raise
                    continue
                _take(sock, (str(address[0]).removeprefix("::ffff:"), int(address[1])), accepted, limits)


def _take(sock: socket.socket, peer: tuple[str, int], accepted: Accepted, limits: ConnectionLimits) -> None:
    if descriptors_left(sock.fileno()) <= 0:
        log.warning("connection_refused", peer=peer[0], limit="open files")
        sock.close()
    elif not limits.take(peer[0]):
        log.warning("connection_refused", peer=peer[0], limit="max.connections.per.ip")
        sock.close()
    else:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a peer that lost power while it waited
        accepted(sock, peer)
