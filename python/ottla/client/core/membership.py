"""A member of a classic consumer group: what to send to the coordinator next, and what its answers mean.

    UNJOINED --join--> JOINING --joined--> SYNCING --synced--> STABLE --rebalance--> UNJOINED

The machine says `next_request`; the shell sends it and feeds the answer to the `on_*` of its kind. Member ids
survive a rejoin; they are dropped when the coordinator no longer knows them. Source: Kafka's
`ConsumerCoordinator` and `AbstractCoordinator`, KIP-394 (member id first), KIP-345 (static members).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from ottla.client.core.assignors import (
    Assignor,
    MalformedSubscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse

COORDINATOR_LOST = frozenset({ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE})
_REJOIN = frozenset({ErrorCode.REBALANCE_IN_PROGRESS})
_FORGOTTEN = frozenset({ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION})


class MemberState(Enum):
    UNJOINED = auto()
    JOINING = auto()
    SYNCING = auto()
    STABLE = auto()


class Outcome(Enum):
    """What the shell has to do after an answer."""

    CONTINUE = auto()
    ASSIGNED = auto()
    BACK_OFF = auto()
    FIND_COORDINATOR = auto()


@dataclass(slots=True, kw_only=True)
class Membership:
    group_id: str
    assignors: tuple[Assignor, ...]
    session_timeout_ms: int
    rebalance_timeout_ms: int
    heartbeat_interval_ms: int
    group_instance_id: str | None = None
    topics: list[str] = field(default_factory=list)
    state: MemberState = MemberState.UNJOINED
    member_id: str = ""
    generation_id: int = -1
    assignment: list[TopicPartition] = field(default_factory=list)
    _protocol: str = ""
    _assignments: tuple[SyncGroupRequestAssignment, ...] = ()
    _heartbeat_due_ms: int = 0

    def join_request(self) -> JoinGroupRequest:
        assert self.state in (MemberState.UNJOINED, MemberState.JOINING)
        self.state = MemberState.JOINING
        metadata = encode_subscription(self.topics, self.assignment)
        return JoinGroupRequest(
            group_id=self.group_id,
            session_timeout_ms=self.session_timeout_ms,
            rebalance_timeout_ms=self.rebalance_timeout_ms,
            member_id=self.member_id,
            group_instance_id=self.group_instance_id,
            protocol_type="consumer",
            protocols=tuple(JoinGroupRequestProtocol(name=a.name, metadata=metadata) for a in self.assignors),
        )

    def on_join(
        self, response: JoinGroupResponse, counts: Callable[[set[str]], Mapping[str, int]], *, now_ms: int
    ) -> Outcome:
        """Take the answer in. `counts` gives the partition counts of topics; only a leader asks for them."""
        if response.error_code is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
            return Outcome.CONTINUE
        if response.error_code is not ErrorCode.NONE:
            return self._on_error(response.error_code)
        self.member_id, self.generation_id = response.member_id, response.generation_id
        self._protocol = response.protocol_name or ""
        self._assignments = ()
        if response.leader == response.member_id and not response.skip_assignment:
            self._assignments = self._assign(response, counts)
        self.state = MemberState.SYNCING
        self._heartbeat_due_ms = now_ms + self.heartbeat_interval_ms
        return Outcome.CONTINUE

    def _assign(
        self, response: JoinGroupResponse, counts: Callable[[set[str]], Mapping[str, int]]
    ) -> tuple[SyncGroupRequestAssignment, ...]:
        assignor = next((a for a in self.assignors if a.name == self._protocol), None)
        if assignor is None:
            raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, f"the group chose {self._protocol!r}")
        subscriptions: dict[str, list[str]] = {}
        for member in response.members:
            try:
                subscriptions[member.member_id] = decode_subscription(member.metadata)
            except MalformedSubscription as error:
                text = f"member {member.member_id} sent a subscription that does not parse: {error}"
                raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, text) from error
        shares = assignor.assign(subscriptions, counts({t for topics in subscriptions.values() for t in topics}))
        return tuple(
            SyncGroupRequestAssignment(member_id=member, assignment=encode_assignment(partitions))
            for member, partitions in shares.items()
        )

    def sync_request(self) -> SyncGroupRequest:
        assert self.state is MemberState.SYNCING
        return SyncGroupRequest(
            group_id=self.group_id,
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=self.group_instance_id,
            protocol_type="consumer",
            protocol_name=self._protocol,
            assignments=self._assignments,
        )

    def on_sync(self, response: SyncGroupResponse) -> Outcome:
        if response.error_code is not ErrorCode.NONE:
            return self._on_error(response.error_code)
        self.assignment = decode_assignment(response.assignment)
        self.state = MemberState.STABLE
        return Outcome.ASSIGNED

    def heartbeat_due_ms(self) -> int | None:
        """When `heartbeat_request` is to be sent next; None while the member has no generation to keep."""
        return self._heartbeat_due_ms if self.state in (MemberState.SYNCING, MemberState.STABLE) else None

    def heartbeat_request(self, *, now_ms: int) -> HeartbeatRequest:
        self._heartbeat_due_ms = now_ms + self.heartbeat_interval_ms
        return HeartbeatRequest(
            group_id=self.group_id,
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=self.group_instance_id,
        )

    def on_heartbeat(self, response: HeartbeatResponse, *, generation_id: int) -> Outcome:
        """`generation_id` is the one that the heartbeat was sent with: an answer to an older one says nothing."""
        if response.error_code is ErrorCode.NONE or generation_id != self.generation_id:
            return Outcome.CONTINUE
        if self.state is MemberState.SYNCING and response.error_code in _REJOIN:
            return Outcome.CONTINUE  # SyncGroup will say the same
        return self._on_error(response.error_code)

    def on_commit_error(self, code: ErrorCode) -> Outcome:
        """A commit was refused: the membership may be lost with it."""
        return self._on_error(code) if code in _REJOIN | _FORGOTTEN | COORDINATOR_LOST else Outcome.BACK_OFF

    def request_rejoin(self) -> None:
        """Join again, keeping the member id: the subscription or its topics' partitions changed."""
        self.state = MemberState.UNJOINED

    def leave_request(self) -> LeaveGroupRequest | None:
        """What says goodbye. None for a member that never joined, or a static one (it may come back)."""
        if not self.member_id or self.group_instance_id is not None:
            return None
        member = MemberIdentity(member_id=self.member_id, reason="the consumer is being closed")
        return LeaveGroupRequest(group_id=self.group_id, member_id=self.member_id, members=(member,))

    def on_left(self) -> None:
        self.state, self.member_id, self.generation_id = MemberState.UNJOINED, "", -1
        self.assignment = []

    def _on_error(self, code: ErrorCode) -> Outcome:
        if code in COORDINATOR_LOST:
            if self.state in (MemberState.JOINING, MemberState.SYNCING):
                self.state = MemberState.UNJOINED
            return Outcome.FIND_COORDINATOR
        if code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
            if self.state is not MemberState.STABLE:
                self.state = MemberState.UNJOINED
            return Outcome.BACK_OFF
        if code in _REJOIN:
            self.state = MemberState.UNJOINED
            return Outcome.CONTINUE
        if code in _FORGOTTEN:
            if code is ErrorCode.UNKNOWN_MEMBER_ID:
                self.member_id = ""
            self.state, self.generation_id = MemberState.UNJOINED, -1
            return Outcome.CONTINUE
        raise KafkaError(code)

    def on_disconnect(self) -> None:
        """The connection to the coordinator broke: what was under way is asked again elsewhere."""
        if self.state in (MemberState.JOINING, MemberState.SYNCING):
            self.state = MemberState.UNJOINED
