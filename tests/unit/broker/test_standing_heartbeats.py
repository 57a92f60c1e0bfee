"""Answers that stand in the data plane: who is answered, who is told that a member was heard of, and when it ends."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from ottla.broker.connection import Connection
from ottla.broker.pace import Pace
from ottla.broker.standing_heartbeats import Beating, StandingHeartbeats
from ottla.protocol.versions import ApiKey
from tests.property.native_lab import NativeLab, now_ms, wall_ms

if TYPE_CHECKING:
    from ottla._native import Request

BODY = b"body"
RESPONSE = struct.pack(">i", 1) + b"alive"
MEMBER = Beating(3, "group", "member")


class Listening:
    """Stands in for a runtime with one machine, and notes what that hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def inform(self, partition: int, act: Callable[[Any], None]) -> None:
        assert partition == MEMBER.partition
        act(self)

    def on_heard(self, group_id: str, member_id: str, heard_ms: int) -> None:
        assert 0 <= now_ms() - heard_ms < 60_000
        self.heard.append((group_id, member_id))


class World:
    def __init__(self, lab: NativeLab) -> None:
        self.lab = lab
        self.runtime = Listening()
        self.standing = StandingHeartbeats(lab.plane, cast(Any, self.runtime))
        self.connection = Connection(
            lab.plane,
            lab.server,
            peer=("127.0.0.1", 1),
            listener_name="PLAINTEXT",
            dispatch=cast(Any, None),
            start=cast(Any, None),
            on_closed=lambda _: None,
            pace=Pace(),
        )

    def send(self, correlation_id: int, body: bytes = BODY) -> None:
        header = struct.pack(">hhih", ApiKey.HEARTBEAT, 3, correlation_id, 1) + b"c"
        self.lab.client.sendall(struct.pack(">i", len(header) + len(body)) + header + body)

    def owed(self) -> list[Request]:
        polled = self.lab.plane.poll(now_ms(), wall_ms(), 0.5)[0]
        return [request for _, _, owed in polled for request in owed]

    def received(self) -> bytes:
        size = struct.unpack(">i", self.lab.client.recv(4))[0]
        return self.lab.client.recv(cast(int, size))

    def let_stand(self) -> None:
        """Answer one request in a way that stands."""
        self.send(1)
        (request,) = self.owed()
        self.standing.let_stand(MEMBER, self.connection, request, RESPONSE)
        self.lab.plane.reply(self.connection.session_id, request[0], RESPONSE, now_ms(), wall_ms())
        assert self.received() == RESPONSE

    def is_answered(self) -> bool:
        self.send(2)
        owed = self.owed()
        if owed:
            return False
        assert self.received() == struct.pack(">i", 2) + b"alive"
        return True


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with NativeLab(tmp_path / "data", {}) as lab:
        lab.plane.close_session(lab.session_id)
        lab.client.settimeout(20)
        world = World(lab)
        yield world
        world.connection.close()


def test_the_same_request_is_answered_and_counted(world: World) -> None:
    world.let_stand()
    assert world.is_answered()
    assert world.is_answered()
    assert world.lab.plane.metrics()["answered"] == {int(ApiKey.HEARTBEAT): 2}


def test_another_request_is_owed_and_ends_nothing(world: World) -> None:
    world.let_stand()
    world.send(5, b"other")
    (request,) = world.owed()
    world.lab.plane.reply(world.connection.session_id, request[0], RESPONSE, now_ms(), wall_ms())
    world.received()
    assert world.is_answered()


def test_the_machine_is_told_once_of_whom_was_heard_when_it_asks(world: World) -> None:
    world.let_stand()
    world.standing.hear(MEMBER.partition)
    assert world.runtime.heard == []
    world.is_answered()
    world.is_answered()
    world.standing.hear(MEMBER.partition + 1)
    assert world.runtime.heard == []
    world.standing.hear(MEMBER.partition)
    world.standing.hear(MEMBER.partition)
    assert world.runtime.heard == [("group", "member")]


@pytest.mark.parametrize(
    "withdraw",
    [
        lambda world: world.standing.withdraw_groups(MEMBER.partition, ["other", "group"]),
        lambda world: world.standing.withdraw_partition(MEMBER.partition),
        lambda world: world.standing.withdraw_all(),
        lambda world: world.connection.end_standing(),
    ],
    ids=["of groups", "of a partition", "all", "of a connection"],
)
def test_what_is_withdrawn_is_not_answered_and_the_machine_is_told(
    world: World, withdraw: Callable[[World], None]
) -> None:
    world.let_stand()
    assert world.is_answered()
    withdraw(world)
    assert world.runtime.heard == [("group", "member")]
    assert len(world.standing) == 0
    assert not world.is_answered()


def test_what_is_withdrawn_elsewhere_goes_on_here(world: World) -> None:
    world.let_stand()
    world.standing.withdraw_groups(MEMBER.partition, ["other"])
    world.standing.withdraw_groups(MEMBER.partition + 1, ["group"])
    world.standing.withdraw_partition(MEMBER.partition + 1)
    assert world.is_answered()


def test_a_connection_that_ends_tells_of_its_member(world: World) -> None:
    world.let_stand()
    assert world.is_answered()
    world.connection.close()
    assert world.runtime.heard == [("group", "member")]
    assert len(world.standing) == 0


def test_one_answer_stands_for_each_connection(world: World) -> None:
    world.let_stand()
    world.is_answered()
    world.send(3, b"newer")
    (request,) = world.owed()
    world.standing.let_stand(MEMBER._replace(member_id="other"), world.connection, request, RESPONSE)
    assert len(world.standing) == 1
    assert world.runtime.heard == [("group", "member")]
    world.lab.plane.reply(world.connection.session_id, request[0], RESPONSE, now_ms(), wall_ms())
    world.received()
    assert not world.is_answered()


def test_what_is_no_response_cannot_stand(world: World) -> None:
    world.send(1)
    (request,) = world.owed()
    with pytest.raises(ValueError, match="correlation id"):
        world.standing.let_stand(MEMBER, world.connection, request, b"\0")
