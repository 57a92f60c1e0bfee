"""A broker in the foreground of a process: signals stop it cleanly, what cannot start says why in one line."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

import trio

from ottla._native import QuorumDamagedError, keep_freed_memory
from ottla.broker.data_dirs import InvalidDataDirectory
from ottla.broker.event_log import EventLog, configure_logging
from ottla.broker.server import SWITCH_INTERVAL_S, Ready, Server, the_error
from ottla.broker.worker import has_left_threads, not_closed
from ottla.common.config import BrokerConfig, InvalidConfig
from ottla.common.endpoints import InvalidEndpoint
from ottla.errors import KafkaError

log = EventLog("foreground")

_EXPLAINED: Final = (OSError, InvalidConfig, InvalidDataDirectory, InvalidEndpoint, KafkaError, QuorumDamagedError)
"""Errors whose text tells the operator what is wrong; any other is a bug and keeps its traceback."""


COLLECTED_AFTER: Final = (2_000, 20, 20)
"""New containers before the youngest are looked through for cycles, and such rounds before the next older ones are:
the first takes tenths of a millisecond, and there are hardly any cycles."""
STARTING_S: Final = 15.0
"""How long a stop waits for a start that is under way: a disk may not answer."""


async def serve(settings: Mapping[str, str], on_started: Callable[[], None] = lambda: None) -> int:
    """Serve until SIGTERM or SIGINT, which stop cleanly; a second one ends the process. Returns the exit status.

    Args:
        on_started: Called when the broker has started.
    """
    server = Server(dict(settings))
    is_started = False

    async def stop_on_signal(nursery: trio.Nursery, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                server.stop()
                break
        await trio.sleep(STARTING_S)
        if not is_started:
            log.error("start_given_up", waited_s=STARTING_S)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, nursery)
            ready: Ready = await nursery.start(server.run)
            is_started = True
            on_started()
            print(f"listening on {', '.join(map(str, ready.listeners.values()))}", flush=True)
            await server.wait_stopped()
            nursery.cancel_scope.cancel()
    except BaseException as raised:
        error = the_error(raised)
        if not isinstance(error, _EXPLAINED):
            raise
        print(f"{'failed' if is_started else 'cannot start'}: {error}", file=sys.stderr)
        return 1
    return 0 if is_started and not not_closed() else 1


def spare_what_is_there() -> None:
    """Have the garbage collector leave alone what is there by now: nearly all of it stays until the end, and looking
    through it takes 20 ms in which nobody is served. For a process that is a broker and nothing else."""
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


def _allow_open_files() -> None:
    """Take as many descriptors as the system grants: the soft limit is often meant for programs that use select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run(settings: Mapping[str, str]) -> int:
    """Run a broker with these settings, by Kafka's keys, to its end; returns the exit status."""
    try:
        config = BrokerConfig.load(settings)
    except InvalidConfig as invalid:
        print(f"cannot start: {invalid}", file=sys.stderr)
        return 1
    configure_logging(level=config.string("ottla.log.level"), as_json=config.string("ottla.log.format") == "json")
    if unknown := sorted(config.unknown()):
        log.warning("unknown_configurations", keys=", ".join(unknown))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _allow_open_files()
    keep_freed_memory()
    status = trio.run(serve, settings, spare_what_is_there)
    if has_left_threads():
        _end_at_once(status)
    return status


def _end_at_once(status: int) -> NoReturn:
    """End the process without the interpreter's own end, which may wait for a disk that does not answer."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
