"""SIGTERM while everybody is busy: a clean stop within seconds, nothing lost, and a next start that scans nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path

from ottla._native import build_batch
from ottla.protocol.header import encode_request_frame
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.wire import Wire
from tests.integration.workload import SETTINGS, Churn, clients

STOP_S = 5.0


def framed(api: ApiKey, version: int, message: object) -> bytes:
    frame = encode_request_frame(api, version, message, correlation_id=1, client_id="waits")
    return struct.pack(">i", len(frame)) + frame


def requests_that_take_long() -> list[bytes]:
    """A fetch that waits, members that wait for each other, records that expand far, half a frame."""
    wanted = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    fetch = FetchRequest(max_wait_ms=2**31 - 1, min_bytes=1, topics=(FetchTopic(topic="empty", partitions=(wanted,)),))
    join = JoinGroupRequest(
        group_id="g",
        session_timeout_ms=60_000,
        rebalance_timeout_ms=60_000,
        protocol_type="consumer",
        protocols=(JoinGroupRequestProtocol(name="range", metadata=b"\0" * 10),),
    )
    bomb = build_batch([(None, bytes(60 << 20), int(time.time() * 1000), ())], compression="zstd")
    data = TopicProduceData(name="empty", partition_data=(PartitionProduceData(index=9, records=bomb),) * 200)
    produce = ProduceRequest(acks=1, timeout_ms=60_000, topic_data=(data,))
    return [
        framed(ApiKey.FETCH, 12, fetch),
        framed(ApiKey.JOIN_GROUP, 3, join),
        framed(ApiKey.PRODUCE, 9, produce),
        struct.pack(">ihhi", 1000, ApiKey.METADATA, 9, 1),
        b"",
    ]


def test_a_stop_under_load_is_clean_and_quick(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with BrokerProcess(data_dir, settings=SETTINGS) as broker:
        everybody = clients(broker)
        with Wire(broker.port) as wire:
            wire.create("empty")
            for client in everybody:
                client.prepare(wire)
        for client in everybody:
            client.start()
        with contextlib.ExitStack() as stack:
            for request in requests_that_take_long() * 20:
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", broker.port)))
                sock.sendall(request)
            time.sleep(1)
            began_s = time.monotonic()
            assert broker.terminate() == 0
            assert time.monotonic() - began_s < STOP_S
        assert (data_dir / ".kafka_cleanshutdown").exists()
        broker.start()
        time.sleep(0.5)
        for client in everybody:
            client.stop()
        assert [client.failure for client in everybody if client.failure] == []
        with Wire(broker.port) as wire:
            for client in everybody:
                client.check(wire)
        assert all(client.promises > 0 for client in everybody if not isinstance(client, Churn))
        assert "Traceback" not in broker.output_path.read_text()
