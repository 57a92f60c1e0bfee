"""Members of groups as a load: they join, notice rebalances by their heartbeats, take their assignment, and leave.

The same requests as real consumers send, in the same order, from one light process: what is measured is the broker,
not its clients. A member that has nothing to say sends its next heartbeat after `BEAT_S`; real ones wait for seconds,
and that would be all that there is to see of a rebalance.
"""

from __future__ import annotations

import functools
import struct
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Sequence
from typing import Any, ClassVar

from bench.lives import Life, live
from bench.wire import Template, ask, check, framed
from ottla.errors import ErrorCode
from ottla.protocol.header import decode_response_frame
from ottla.protocol.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
    ConsumerGroupHeartbeatResponse,
)
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey

BEAT_S = 0.02
SETTLE_SECONDS_MAX = 60.0
SESSION_TIMEOUT_MS = 45_000
REBALANCE_TIMEOUT_MS = 60_000
VERSIONS = {
    ApiKey.JOIN_GROUP: 5,
    ApiKey.SYNC_GROUP: 3,
    ApiKey.HEARTBEAT: 3,
    ApiKey.LEAVE_GROUP: 3,
    ApiKey.CONSUMER_GROUP_HEARTBEAT: 1,
}
REBALANCES = (ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION)
"""What sends a member of the classic protocol to join again."""


class Member(ABC):
    """A member, without I/O. `life` is what it does; the rest is what others want to know of it."""

    protocol: ClassVar[str]

    def __init__(self, group: str, topic: str) -> None:
        self.group = group
        self.topic = topic
        self.member_id = ""
        self.epoch = -1
        """The generation, or the member's epoch, in which the member has its assignment; -1: it has none."""

    @abstractmethod
    def life(self) -> Life:
        """Join, and take part in all rebalances, for ever. Raises: RuntimeError (an answer that has no place here)."""

    @abstractmethod
    def beat(self) -> bytes:
        """The heartbeat of a member that has nothing to say, as a frame."""

    @staticmethod
    @abstractmethod
    def are_settled(members: Collection[Any], partitions: int) -> bool:
        """Whether all have what they are to have in the end. Raises: RuntimeError (they never may have that)."""

    @staticmethod
    @abstractmethod
    def leave(port: int, members: Sequence[Any]) -> None:
        """Take the members out of their group, on other connections."""


def _ask(api: ApiKey, message: Any) -> Generator[bytes | float, bytes, Any]:
    """One request of a life; returns the response."""
    answer = yield framed(api, VERSIONS[api], message)
    return decode_response_frame(api, VERSIONS[api], answer).message


class ClassicMember(Member):
    """JoinGroup, SyncGroup and Heartbeat; the leader gives everybody the same few bytes.

    What fifty clients would do side by side one process does here in turn. So it makes frames out of templates, and
    reads of the answers what it needs.
    """

    protocol = "classic"

    def life(self) -> Life:
        while True:
            generation_id, assignments = yield from self._join()
            if assignments:
                sync = framed(ApiKey.SYNC_GROUP, VERSIONS[ApiKey.SYNC_GROUP], self._sync(generation_id, assignments))
            else:
                sync = _sync_template(self.group, generation_id).with_text(self.member_id)
            code = _error_code((yield sync))
            if code in REBALANCES:
                continue
            check(code, "SyncGroup")
            self.epoch = generation_id
            yield from self._beat_until_rebalance()
            self.epoch = -1

    def _join(self) -> Generator[bytes | float, bytes, tuple[int, tuple[SyncGroupRequestAssignment, ...]]]:
        """Returns the generation, and what a leader gives to whom."""
        while True:
            answer = yield _join_template(self.group, self.topic).with_text(self.member_id)
            code = _error_code(answer)
            (generation_id,) = _INT.unpack_from(answer, _AFTER_ERROR)
            _, leader, self.member_id = _strings(answer, _AFTER_ERROR + _INT.size, 3)
            if code is ErrorCode.MEMBER_ID_REQUIRED:
                continue
            check(code, "JoinGroup")
            if leader != self.member_id:
                return generation_id, ()
            joined: JoinGroupResponse = decode_response_frame(
                ApiKey.JOIN_GROUP, VERSIONS[ApiKey.JOIN_GROUP], answer
            ).message
            return generation_id, tuple(
                SyncGroupRequestAssignment(member_id=m.member_id, assignment=b"assigned") for m in joined.members
            )

    def _sync(self, generation_id: int, assignments: tuple[SyncGroupRequestAssignment, ...]) -> SyncGroupRequest:
        return SyncGroupRequest(
            group_id=self.group, generation_id=generation_id, member_id=self.member_id, assignments=assignments
        )

    def _beat_until_rebalance(self) -> Life:
        beat = self.beat()
        while True:
            yield BEAT_S
            code = _error_code((yield beat))
            if code in REBALANCES:
                return
            check(code, "Heartbeat")

    def beat(self) -> bytes:
        request = HeartbeatRequest(group_id=self.group, generation_id=self.epoch, member_id=self.member_id)
        return framed(ApiKey.HEARTBEAT, VERSIONS[ApiKey.HEARTBEAT], request)

    @staticmethod
    def are_settled(members: Collection[ClassicMember], partitions: int) -> bool:
        """All are in the same generation."""
        del partitions
        epochs = {member.epoch for member in members}
        return len(epochs) == 1 and -1 not in epochs

    @staticmethod
    def leave(port: int, members: Sequence[ClassicMember]) -> None:
        identities = tuple(MemberIdentity(member_id=member.member_id) for member in members)
        request = LeaveGroupRequest(group_id=members[0].group, members=identities)
        left = ask(port, ApiKey.LEAVE_GROUP, VERSIONS[ApiKey.LEAVE_GROUP], request)
        for member in (left, *left.members):
            check(member.error_code, "LeaveGroup")


_INT = struct.Struct(">i")
_AFTER_ERROR = 10
"""Where the body of these responses goes on: behind the correlation id, the throttle time and the error code."""


def _error_code(answer: bytes) -> ErrorCode:
    return ErrorCode(int.from_bytes(answer[_AFTER_ERROR - 2 : _AFTER_ERROR], signed=True))


def _strings(answer: bytes, position: int, count: int) -> list[str]:
    found = []
    for _ in range(count):
        end = position + 2 + int.from_bytes(answer[position : position + 2])
        found.append(answer[position + 2 : end].decode())
        position = end
    return found


@functools.cache
def _join_template(group: str, topic: str) -> Template:
    def request(member_id: str) -> JoinGroupRequest:
        return JoinGroupRequest(
            group_id=group,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            member_id=member_id,
            protocol_type="consumer",
            protocols=(JoinGroupRequestProtocol(name="range", metadata=_subscription(topic)),),
        )

    return Template(ApiKey.JOIN_GROUP, VERSIONS[ApiKey.JOIN_GROUP], request)


@functools.cache
def _sync_template(group: str, generation_id: int) -> Template:
    def request(member_id: str) -> SyncGroupRequest:
        return SyncGroupRequest(group_id=group, generation_id=generation_id, member_id=member_id)

    return Template(ApiKey.SYNC_GROUP, VERSIONS[ApiKey.SYNC_GROUP], request)


class ConsumerMember(Member):
    """ConsumerGroupHeartbeat (KIP-848). What a member is to give up it gives up at once, and says so."""

    protocol = "KIP-848"

    def __init__(self, group: str, topic: str) -> None:
        super().__init__(group, topic)
        self.member_id = str(uuid.uuid4())
        self.owned: frozenset[int] = frozenset()
        """What the member has; what it was given only counts once it has told the broker that it has it."""

    def life(self) -> Life:
        answer = yield from self._beat(
            ConsumerGroupHeartbeatRequest(
                group_id=self.group,
                member_id=self.member_id,
                member_epoch=0,
                rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
                subscribed_topic_names=(self.topic,),
                topic_partitions=(),
            )
        )
        while True:
            while answer.assignment is not None:
                answer = yield from self._take(answer.member_epoch, answer.assignment)
            self.epoch = answer.member_epoch
            yield BEAT_S
            answer = yield from self._beat(self._quiet(self.epoch))

    def _take(
        self, epoch: int, assignment: Assignment
    ) -> Generator[bytes | float, bytes, ConsumerGroupHeartbeatResponse]:
        topics = tuple(
            ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=t.topic_id, partitions=t.partitions)
            for t in assignment.topic_partitions
        )
        assigned = frozenset(partition for topic in topics for partition in topic.partitions)
        self.owned &= assigned
        answer = yield from self._beat(
            ConsumerGroupHeartbeatRequest(
                group_id=self.group, member_id=self.member_id, member_epoch=epoch, topic_partitions=topics
            )
        )
        self.owned = assigned
        return answer

    @staticmethod
    def _beat(
        request: ConsumerGroupHeartbeatRequest,
    ) -> Generator[bytes | float, bytes, ConsumerGroupHeartbeatResponse]:
        answer: ConsumerGroupHeartbeatResponse = yield from _ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, request)
        check(answer.error_code, "ConsumerGroupHeartbeat")
        return answer

    def _quiet(self, epoch: int) -> ConsumerGroupHeartbeatRequest:
        return ConsumerGroupHeartbeatRequest(
            group_id=self.group, member_id=self.member_id, member_epoch=epoch, topic_partitions=None
        )

    def beat(self) -> bytes:
        api = ApiKey.CONSUMER_GROUP_HEARTBEAT
        return framed(api, VERSIONS[api], self._quiet(self.epoch))

    @staticmethod
    def are_settled(members: Collection[ConsumerMember], partitions: int) -> bool:
        """All are in the same epoch, and have the same share of the partitions, of which each has one owner."""
        fair = partitions // len(members)
        if any(len(member.owned) < fair for member in members) or len({member.epoch for member in members}) != 1:
            return False
        owned = [partition for member in members for partition in member.owned]
        if len(set(owned)) != len(owned):
            raise RuntimeError("a partition has two owners")
        return len(owned) == partitions

    @staticmethod
    def leave(port: int, members: Sequence[ConsumerMember]) -> None:
        api = ApiKey.CONSUMER_GROUP_HEARTBEAT
        for member in members:
            left = ask(port, api, VERSIONS[api], member._quiet(-1))
            check(left.error_code, "ConsumerGroupHeartbeat")


def _subscription(topic: str) -> bytes:
    """ConsumerProtocolSubscription, version 0: one topic and no user data."""
    name = topic.encode()
    return b"\0\0" + (1).to_bytes(4) + len(name).to_bytes(2) + name + b"\xff\xff\xff\xff"


def gather(
    kind: type[Member], port: int, group: str, topic: str, *, count: int, partitions: int
) -> tuple[float, Sequence[Member]]:
    """Have members join a group at once, all connected beforehand; it needs a coordinator by then.

    Returns:
        The seconds from the first request until all were settled, and the members, whose connections are closed.
    Raises: RuntimeError.
    """
    members = [kind(group, topic) for _ in range(count)]
    seconds = live(
        port,
        [member.life() for member in members],
        lambda: kind.are_settled(members, partitions),
        seconds_max=SETTLE_SECONDS_MAX,
    )
    return seconds, members
