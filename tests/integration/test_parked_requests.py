"""Requests that wait for other members, or for time to pass, on connections of a real broker."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.header import decode_response_frame
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import EmbeddedBroker
from tests.integration.wire import Wire

JOIN = 3
"""The last version in which members need no id before they join."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    settings = {"group.initial.rebalance.delay.ms": "0"}
    directory: Path = tmp_path_factory.mktemp("data") / "d"
    with EmbeddedBroker(directory, settings=settings) as running, Wire(running.port) as wire:
        wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("any",)))
        yield running


def join_request(group_id: str, member_id: str = "", *, rebalance_ms: int = 60_000) -> JoinGroupRequest:
    return JoinGroupRequest(
        group_id=group_id,
        member_id=member_id,
        session_timeout_ms=30_000,
        rebalance_timeout_ms=rebalance_ms,
        protocol_type="consumer",
        protocols=(JoinGroupRequestProtocol(name="range", metadata=b""),),
    )


def join(wire: Wire, *args: str, rebalance_ms: int = 60_000) -> JoinGroupResponse:
    joined: JoinGroupResponse = wire.ask(ApiKey.JOIN_GROUP, JOIN, join_request(*args, rebalance_ms=rebalance_ms))
    assert joined.error_code is ErrorCode.NONE
    return joined


def test_what_stands_behind_a_parked_request_is_answered_after_it(broker: EmbeddedBroker, wire: Wire) -> None:
    first = join(wire, "order")
    with Wire(broker.port) as other:
        other.send(ApiKey.JOIN_GROUP, JOIN, join_request("order"))
        other.send(ApiKey.API_VERSIONS, 0, ApiVersionsRequest())
        other.send(ApiKey.API_VERSIONS, 0, ApiVersionsRequest())
        beat = HeartbeatRequest(group_id="order", generation_id=first.generation_id, member_id=first.member_id)
        while wire.ask(ApiKey.HEARTBEAT, 2, beat).error_code is ErrorCode.NONE:
            pass
        assert join(wire, "order", first.member_id).generation_id == 2
        answers = [other.receive_frame() for _ in range(3)]
    assert [struct.unpack_from(">i", answer)[0] for answer in answers] == [1, 2, 3]
    assert decode_response_frame(ApiKey.JOIN_GROUP, JOIN, answers[0]).message.generation_id == 2


def test_a_parked_request_is_answered_when_the_time_of_those_it_waits_for_is_up(
    broker: EmbeddedBroker, wire: Wire
) -> None:
    first = join(wire, "time", rebalance_ms=300)
    with Wire(broker.port) as other:
        second = join(other, "time", rebalance_ms=300)
    assert (second.generation_id, second.leader) == (2, second.member_id)
    assert [member.member_id for member in second.members] == [second.member_id]
    beat = HeartbeatRequest(group_id="time", generation_id=first.generation_id, member_id=first.member_id)
    assert wire.ask(ApiKey.HEARTBEAT, 2, beat).error_code is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_client_that_left_is_not_answered_and_holds_nobody_up(broker: EmbeddedBroker, wire: Wire) -> None:
    first = join(wire, "gone")
    beat = HeartbeatRequest(group_id="gone", generation_id=first.generation_id, member_id=first.member_id)
    with Wire(broker.port) as other:
        other.send(ApiKey.JOIN_GROUP, JOIN, join_request("gone"))
        while wire.ask(ApiKey.HEARTBEAT, 2, beat).error_code is ErrorCode.NONE:
            pass
    rejoined = join(wire, "gone", first.member_id)
    assert rejoined.generation_id == 2
    assert len(rejoined.members) == 2, "it is a member until its session ends"
