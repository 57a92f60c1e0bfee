"""The wall clock jumps by a year, forth and back: sessions, waits and rebalances do not notice."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ottla._native import decode_batches
from ottla.errors import ErrorCode
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.wire import Wire

YEAR_S = 365 * 24 * 3600
WRONG_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    const char *path = getenv("WRONG_CLOCK_FILE");
    FILE *file = clock == CLOCK_REALTIME && path ? fopen(path, "r") : 0;
    long long wrong_by_s = 0;
    if (file) {
        if (fscanf(file, "%lld", &wrong_by_s) == 1) now->tv_sec += wrong_by_s;
        fclose(file);
    }
    return result;
}
"""


@pytest.fixture
def wrong_by_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the seconds by which the clock of brokers started from now on is wrong."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source, library, file = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "wrong_by_s"
    source.write_text(WRONG_CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    file.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("WRONG_CLOCK_FILE", str(file))
    return file


def timestamps(wire: Wire, topic: str) -> list[int]:
    found: list[int] = []
    while batches := decode_batches(wire.fetch(topic, len(found)).records or b""):  # of one segment at a time
        found += [record[1] for batch in batches for record in batch.records]
    return found


def joined(wire: Wire) -> HeartbeatRequest:
    """A member of a group of its own; returns its heartbeat."""
    wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("g",)))
    join = JoinGroupRequest(
        group_id="g",
        session_timeout_ms=6_000,
        rebalance_timeout_ms=6_000,
        protocol_type="consumer",
        protocols=(JoinGroupRequestProtocol(name="range", metadata=b"\0" * 10),),
    )
    answer = wire.ask(ApiKey.JOIN_GROUP, 3, join)
    sync = SyncGroupRequest(
        group_id="g",
        member_id=answer.member_id,
        generation_id=answer.generation_id,
        assignments=(SyncGroupRequestAssignment(member_id=answer.member_id, assignment=b"all"),),
    )
    assert wire.ask(ApiKey.SYNC_GROUP, 3, sync).error_code is ErrorCode.NONE
    return HeartbeatRequest(group_id="g", generation_id=answer.generation_id, member_id=answer.member_id)


def test_a_clock_that_jumps_disturbs_nobody(tmp_path: Path, wrong_by_s: Path) -> None:
    settings = {"group.initial.rebalance.delay.ms": "0", "log.retention.check.interval.ms": "50"}
    with BrokerProcess(tmp_path / "data", settings=settings) as broker, Wire(broker.port) as wire:
        wire.create_with("stamped", message_timestamp_type="LogAppendTime", retention_ms="-1")
        heartbeat = joined(wire)
        count = 0
        for wrong in (0, YEAR_S, -YEAR_S, 0):
            wrong_by_s.write_text(str(wrong))
            began_s = time.monotonic()
            parked = wire.fetch("stamped", count, max_wait_ms=300)
            assert parked.error_code is ErrorCode.NONE
            assert 0.2 < time.monotonic() - began_s < 2, "a wait is as long as it was asked for"
            for _ in range(5):
                assert wire.produce("stamped", b"x").error_code is ErrorCode.NONE
                count += 1
                assert wire.ask(ApiKey.HEARTBEAT, 3, heartbeat).error_code is ErrorCode.NONE
            newest = timestamps(wire, "stamped")[-1]
            assert abs(newest / 1000 - (time.time() + wrong)) < 60, "records carry the clock's time, wrong as it is"
        assert len(timestamps(wire, "stamped")) == count
        broker.kill()
        broker.start()
        with Wire(broker.port) as again:
            assert len(timestamps(again, "stamped")) == count
            deadline_s = time.monotonic() + 5
            while again.ask(ApiKey.HEARTBEAT, 3, heartbeat).error_code is not ErrorCode.NONE:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        assert "Traceback" not in broker.output_path.read_text()
