"""Connections, refusals and stopping, through real sockets."""

from __future__ import annotations

import struct
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ottla.broker.data_dirs import InvalidDataDirectory
from ottla.errors import ErrorCode
from ottla.protocol.header import encode_request_frame
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.describe_cluster import DescribeClusterRequest
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerFailed, BrokerProcess, EmbeddedBroker
from tests.broken_disk import break_disk
from tests.integration.wire import Closed, Wire

NAMED = ApiVersionsRequest(client_software_name="wire", client_software_version="1.0")


@pytest.mark.parametrize("version", range(5))
def test_api_versions_names_itself_in_every_version(wire: Wire, version: int) -> None:
    response = wire.ask(ApiKey.API_VERSIONS, version, NAMED)
    ranges = {v.api_key: (v.min_version, v.max_version) for v in response.api_keys}
    assert response.error_code is ErrorCode.NONE
    assert ranges[ApiKey.API_VERSIONS] == (0, 4)
    assert ranges[ApiKey.PRODUCE] == (0, 13)


@pytest.mark.parametrize("version", [5, 9, 32767])
def test_an_unsupported_api_versions_is_answered_in_version_0(wire: Wire, version: int) -> None:
    wire.send_frame(struct.pack(">hhih", ApiKey.API_VERSIONS, version, 77, -1) + b"\0anything")
    assert wire.receive_frame() == struct.pack(">ihihhh", 77, ErrorCode.UNSUPPORTED_VERSION, 1, 18, 0, 4)
    assert wire.ask(ApiKey.API_VERSIONS, 0, ApiVersionsRequest()).error_code is ErrorCode.NONE


@pytest.mark.parametrize("name", ["", "-x", "x y", "x_"])
def test_a_bad_software_name_is_an_invalid_request(wire: Wire, name: str) -> None:
    request = ApiVersionsRequest(client_software_name=name, client_software_version="1")
    assert wire.ask(ApiKey.API_VERSIONS, 3, request).error_code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(struct.pack(">hhih", 999, 0, 1, -1), id="unknown API"),
        pytest.param(struct.pack(">hhih", ApiKey.METADATA, 99, 1, -1), id="unknown version"),
        pytest.param(struct.pack(">hhih", ApiKey.METADATA, 12, 1, -1) + b"\0", id="empty body"),
        pytest.param(struct.pack(">hhihi", ApiKey.METADATA, 1, 1, -1, 2**31 - 1), id="array without end"),
        pytest.param(b"\0\3", id="no header"),
    ],
)
def test_what_cannot_be_answered_closes_the_connection(broker: EmbeddedBroker, wire: Wire, frame: bytes) -> None:
    wire.send_frame(frame)
    with pytest.raises(Closed):
        wire.receive_frame()
    with Wire(broker.port) as other:
        assert other.ask(ApiKey.API_VERSIONS, 3, NAMED).error_code is ErrorCode.NONE


@pytest.mark.parametrize("size", [-1, 2**31 - 1])
def test_an_impossible_frame_size_closes_the_connection(wire: Wire, size: int) -> None:
    wire.send_bytes(struct.pack(">i", size))
    with pytest.raises(Closed):
        wire.receive_frame()


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    for correlation_id in range(50):
        request = MetadataRequest(topics=None)
        wire.send_frame(encode_request_frame(ApiKey.METADATA, 9, request, correlation_id=correlation_id))
    assert [struct.unpack_from(">i", wire.receive_frame())[0] for _ in range(50)] == list(range(50))


def test_clients_are_told_the_address_they_connected_to(broker: EmbeddedBroker, wire: Wire) -> None:
    metadata = wire.ask(ApiKey.METADATA, 9, MetadataRequest(topics=()))
    assert [(b.node_id, b.host, b.port) for b in metadata.brokers] == [(1, "127.0.0.1", broker.port)]
    cluster = wire.ask(ApiKey.DESCRIBE_CLUSTER, 2, DescribeClusterRequest())
    assert [(b.broker_id, b.host, b.port) for b in cluster.brokers] == [(1, "127.0.0.1", broker.port)]
    assert cluster.cluster_id == metadata.cluster_id == broker.ready.cluster_id


def test_clients_are_told_the_advertised_address(data_dir: Path) -> None:
    settings = {"advertised.listeners": "PLAINTEXT://broker.example:4242"}
    with EmbeddedBroker(data_dir, settings=settings) as broker, Wire(broker.port) as wire:
        metadata = wire.ask(ApiKey.METADATA, 9, MetadataRequest(topics=()))
        assert [(b.host, b.port) for b in metadata.brokers] == [("broker.example", 4242)]


def test_an_advertised_address_may_leave_out_what_clients_know(data_dir: Path) -> None:
    settings = {"advertised.listeners": "PLAINTEXT://:0"}
    with EmbeddedBroker(data_dir, settings=settings) as broker, Wire(broker.port) as wire:
        metadata = wire.ask(ApiKey.METADATA, 9, MetadataRequest(topics=()))
        assert [(b.host, b.port) for b in metadata.brokers] == [("127.0.0.1", broker.port)]


def test_a_topic_that_nobody_made_is_unknown(wire: Wire) -> None:
    request = MetadataRequest(topics=(MetadataRequestTopic(name="nobody"),), allow_auto_topic_creation=False)
    (topic,) = wire.ask(ApiKey.METADATA, 12, request).topics
    assert (topic.error_code, topic.name) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "nobody")


def test_a_directory_keeps_its_identity(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir, settings={"node.id": "7"}) as first:
        assert first.ready.node_id == 7
    with EmbeddedBroker(data_dir) as second:
        assert (second.ready.node_id, second.ready.cluster_id) == (7, first.ready.cluster_id)
    with pytest.raises(BrokerFailed) as failure, EmbeddedBroker(data_dir, settings={"node.id": "8"}):
        pytest.fail("it started")
    assert isinstance(failure.value.__cause__, InvalidDataDirectory)


def test_idle_connections_are_closed(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir, settings={"connections.max.idle.ms": "500"}) as broker, Wire(broker.port) as wire:
        assert wire.ask(ApiKey.API_VERSIONS, 3, NAMED).error_code is ErrorCode.NONE
        with pytest.raises(Closed):
            wire.receive_frame()


def test_an_address_with_too_many_connections_is_refused(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir, settings={"max.connections.per.ip": "1"}) as broker:
        with Wire(broker.port) as first:
            first.ask(ApiKey.API_VERSIONS, 3, NAMED)
            with Wire(broker.port) as second, pytest.raises(Closed):
                second.receive_frame()


def test_accepting_stops_at_the_limit_and_goes_on_below_it(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir, settings={"max.connections": "1"}) as broker:
        first, second = Wire(broker.port), Wire(broker.port)
        first.ask(ApiKey.API_VERSIONS, 3, NAMED)
        second.send(ApiKey.API_VERSIONS, 3, NAMED)
        first.close()
        assert second.receive(ApiKey.API_VERSIONS, 3).error_code is ErrorCode.NONE
        second.close()


def page(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_pages_tell_health_and_metrics(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir, settings={"ottla.http.listeners": "HTTP://127.0.0.1:0"}) as broker:
        assert broker.ready.http is not None
        port = broker.ready.http.port
        with Wire(broker.port) as wire:
            wire.ask(ApiKey.API_VERSIONS, 3, NAMED)
        assert page(port, "/livez") == (200, "ok\n")
        assert page(port, "/readyz") == (200, "ok\n")
        assert page(port, "/nothing")[0] == 404
        assert 'ottla_requests_total{api="API_VERSIONS"} 1\n' in page(port, "/metrics")[1]


def test_metrics_name_a_data_directory_that_was_left_out(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    paths = {tmp_path / "data": 0, disk / "data": 1}
    data_dirs = Path(",".join(map(str, paths)))
    with EmbeddedBroker(data_dirs):
        pass
    break_disk(disk)
    with EmbeddedBroker(data_dirs, settings={"ottla.http.listeners": "HTTP://127.0.0.1:0"}) as broker:
        assert broker.ready.http is not None
        metrics = page(broker.ready.http.port, "/metrics")[1]
    for path, is_offline in paths.items():
        assert f'ottla_log_dir_offline{{log_dir="{path}"}} {is_offline}\n' in metrics


def test_sigterm_stops_cleanly_with_clients_connected(data_dir: Path) -> None:
    with BrokerProcess(data_dir) as broker, Wire(broker.port) as wire:
        wire.ask(ApiKey.API_VERSIONS, 3, NAMED)
        assert broker.terminate() == 0
        with pytest.raises(Closed):
            wire.receive_frame()
    assert "stopped" in broker.output_path.read_text()
