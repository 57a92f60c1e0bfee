"""A group coordinator over a log in a list, with verbs to talk to it.

Requests get replies by token. `join`, `sync` and so on expect theirs at once; `begin_join` and `begin_sync` return a
token whose reply `reply_to` takes later. `advance` moves both clocks and lets deadlines pass one by one. The log
commits at once unless `holding_commits`, and refuses appends while `append_error` is set.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.commit_pattern import CommitPattern, request_holes
from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.group.machine import GroupMachine
from ottla.coordinator.shard import CoordinatorRecord, Instant, LoadedRecord, Outcome, Producer, Reply, Shard
from ottla.errors import ErrorCode
from ottla.protocol.codec import decode_request, encode_request
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from ottla.protocol.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponseGroup,
)
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse
from ottla.protocol.versions import ApiKey
from tests.unit.coordinator.group.standing import Key, StandingBeats
from tests.unit.coordinator.group.standing_writes import Asked, StandingWrites, Stands

WALL_START_MS = 1_750_000_000_000
WRITE_TIMEOUT_MS = 5_000
SESSION_MS = 10_000
REBALANCE_MS = 30_000
GROUP = "group"


def subscription(*topics: str) -> bytes:
    """A consumer's metadata, as version 0 of its protocol."""
    return (
        b"\0\0"
        + len(topics).to_bytes(4, "big")
        + b"".join(len(t).to_bytes(2, "big") + t.encode() for t in topics)
        + b"\xff\xff\xff\xff"
    )


def protocols(**named: bytes) -> tuple[JoinGroupRequestProtocol, ...]:
    return tuple(JoinGroupRequestProtocol(name=n, metadata=m) for n, m in named.items())


RANGE = protocols(range=subscription("topic"))


class GroupContext:
    def __init__(self, log: Iterable[CoordinatorRecord] = (), *, config: GroupConfig | None = None) -> None:
        self.log = list(log)
        self.config = config or GroupConfig()
        self.now_ms = 1_000
        self.wall_ms = WALL_START_MS
        self.holding = False
        self.high_watermark = len(self.log)
        self.append_error: ErrorCode | None = None
        self.appends = 0
        self.batch_ends: list[int] = []
        """Where each append ended: it is one batch, which is committed or lost as a whole."""
        self.replies: dict[int, Reply] = {}
        self.answered: set[int] = set()
        self._tokens = 0
        self.machine = GroupMachine(self.config)
        self.standing = StandingBeats(self.machine)
        self.writes = StandingWrites(self.machine)
        self._to_stand: dict[int, tuple[Key, Asked]] = {}
        """Commits that are to stand once they are answered, by token."""
        self.shard = Shard(self.machine, write_timeout_ms=WRITE_TIMEOUT_MS)
        self.shard.load(
            [LoadedRecord(offset, r.key, r.value) for offset, r in enumerate(self.log)],
            end_offset=len(self.log),
            high_watermark=len(self.log),
        )
        self._take(self.shard.finish_loading(self.now))

    @property
    def now(self) -> Instant:
        return Instant(self.now_ms, self.wall_ms)

    # Time, log

    def advance(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while (deadline_ms := self.shard.next_deadline_ms()) is not None and deadline_ms <= end_ms:
            self._move_to(max(self.now_ms, deadline_ms))
            self.standing.hear()
            self.catch_up()
            self._take(self.shard.on_tick(self.now))
        self._move_to(end_ms)

    def _move_to(self, now_ms: int) -> None:
        self.wall_ms += now_ms - self.now_ms
        self.now_ms = now_ms

    def restarted(self) -> GroupContext:
        """Another broker that loads what was committed."""
        other = GroupContext(self.log[: self.high_watermark], config=self.config)
        other.wall_ms = self.wall_ms
        return other

    @contextmanager
    def holding_commits(self) -> Iterator[None]:
        self.holding = True
        yield
        self.holding = False
        self.commit()

    def commit(self, up_to: int | None = None) -> None:
        before = self.high_watermark
        self.high_watermark = len(self.log) if up_to is None else up_to
        if self._settle_writes() == self.high_watermark - before > 0:
            return  # nobody is told
        self.catch_up()
        self._take(self.shard.on_high_watermark(self.high_watermark, self.now))

    def commit_batches(self, count: int) -> None:
        """Commit so many of the batches that wait, or all."""
        waiting = [end for end in self.batch_ends if self.high_watermark < end < len(self.log)]
        self.commit([*waiting, len(self.log)][:count][-1])

    def lose_uncommitted(self, error: ErrorCode = ErrorCode.KAFKA_STORAGE_ERROR) -> None:
        del self.log[self.high_watermark :]
        self.batch_ends = [end for end in self.batch_ends if end <= self.high_watermark]
        handed_back = self.writes.lose()
        self.catch_up()
        self._take(self.shard.on_rolled_back(self.high_watermark, error, self.now))
        for request, caller in handed_back:
            self.catch_up()
            self.run(self.machine.offsets.commit(request, caller, self.now))

    def catch_up(self) -> None:
        """Have the machine take in what was appended without it, as `CoordinatorRuntime.catch_up` does."""
        taken = self.writes.take()
        if taken:
            self.shard.on_appended_elsewhere(taken)
            self._take(self.shard.on_high_watermark(self.high_watermark, self.now))

    def withdraw_all(self) -> None:
        """Something happens that may concern any group."""
        self.standing.withdraw_all()
        self.writes.withdraw_all()

    def _settle_writes(self) -> int:
        """Answer what was appended without the machine; returns how many offsets it has heard nothing of."""
        answers, unknown = self.writes.settle(self.high_watermark)
        for token, response in answers:
            self._note_reply(Reply(token, response))
        return unknown

    def _note_reply(self, reply: Reply) -> None:
        assert reply.token not in self.answered, "a request was answered twice"
        self.answered.add(reply.token)
        self.replies[reply.token] = reply

    def _take(self, replies: list[Reply]) -> None:
        answered: list[Reply] = []
        while True:
            for reply in replies:
                self._note_reply(reply)
                answered.append(reply)
            records = self.shard.next_append()
            if records is None:
                changed = self.machine.table.take_changed()
                self.standing.withdraw(changed)
                self.writes.withdraw(changed)
                for reply in answered:
                    self._let_commit_stand(reply)
                return
            if self.append_error is not None:
                replies = self.shard.on_append_failed(self.append_error, self.now)
                continue
            base_offset = self._append(records, self.shard.next_producer())
            self.appends += 1
            replies = self.shard.on_appended(base_offset, self.now)
            if not self.holding:
                self.high_watermark = len(self.log)
                replies += self.shard.on_high_watermark(self.high_watermark, self.now)

    def _append(self, records: Sequence[CoordinatorRecord], producer: Producer | None = None) -> int:
        """Append a batch; returns its base offset."""
        base_offset = len(self.log)
        self.log += records
        self.batch_ends.append(len(self.log))
        return base_offset

    def run(self, outcome: Outcome) -> None:
        self._take(self.shard.submit(outcome, self.now))

    # Requests

    def caller(self, *, version: int, client_id: str = "client") -> Caller:
        self.catch_up()
        self._tokens += 1
        return Caller(
            token=self._tokens,
            api_version=version,
            client_id=client_id,
            client_host="/127.0.0.1",
            unique_id=f"uuid{self._tokens}",
        )

    def is_parked(self, token: int) -> bool:
        return token not in self.replies

    def reply_to(self, token: int) -> Any:
        reply = self.replies.pop(token)
        assert reply.error is ErrorCode.NONE, reply
        return reply.response

    def error_of(self, token: int) -> ErrorCode:
        """The error with which a write was lost, for the caller to put into a response."""
        return self.replies.pop(token).error

    def begin_join(
        self,
        member_id: str = "",
        *,
        group_id: str = GROUP,
        instance_id: str | None = None,
        using: tuple[JoinGroupRequestProtocol, ...] = RANGE,
        protocol_type: str = "consumer",
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
        version: int = 9,
        client_id: str = "client",
    ) -> int:
        caller = self.caller(version=version, client_id=client_id)
        request = JoinGroupRequest(
            group_id=group_id,
            member_id=member_id,
            group_instance_id=instance_id,
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=rebalance_ms,
            protocol_type=protocol_type,
            protocols=using,
        )
        self.run(self.machine.membership.join(request, caller, self.now))
        return caller.token

    def join(self, member_id: str = "", **options: Any) -> JoinGroupResponse:
        response = self.reply_to(self.begin_join(member_id, **options))
        assert isinstance(response, JoinGroupResponse)
        return response

    def ask_for_id(self, **options: Any) -> str:
        """Join as a dynamic member without an id, and return the id that is handed out."""
        response = self.join(**options)
        assert response.error_code is ErrorCode.MEMBER_ID_REQUIRED
        return response.member_id

    def begin_joining(self, **options: Any) -> tuple[str, int]:
        """Ask for an id and join with it; returns the id and the token of the parked request."""
        member_id = self.ask_for_id(**options)
        return member_id, self.begin_join(member_id, **options)

    def begin_sync(
        self,
        member_id: str,
        generation_id: int,
        assignments: Mapping[str, bytes] | None = None,
        *,
        group_id: str = GROUP,
        instance_id: str | None = None,
        protocol_type: str | None = None,
        protocol_name: str | None = None,
        version: int = 5,
    ) -> int:
        caller = self.caller(version=version)
        request = SyncGroupRequest(
            group_id=group_id,
            member_id=member_id,
            group_instance_id=instance_id,
            generation_id=generation_id,
            protocol_type=protocol_type,
            protocol_name=protocol_name,
            assignments=tuple(
                SyncGroupRequestAssignment(member_id=m, assignment=a) for m, a in (assignments or {}).items()
            ),
        )
        self.run(self.machine.membership.sync(request, caller, self.now))
        return caller.token

    def sync(self, member_id: str, generation_id: int, *args: Any, **options: Any) -> SyncGroupResponse:
        response = self.reply_to(self.begin_sync(member_id, generation_id, *args, **options))
        assert isinstance(response, SyncGroupResponse)
        return response

    def heartbeat(
        self, member_id: str, generation_id: int, *, group_id: str = GROUP, instance_id: str | None = None
    ) -> ErrorCode:
        self.catch_up()
        return self.machine.membership.heartbeat(group_id, member_id, instance_id, generation_id, self.now)

    def standing_heartbeat(
        self, member_id: str, generation_id: int, *, group_id: str = GROUP, instance_id: str | None = None
    ) -> ErrorCode:
        """As `heartbeat`, but where the answer stands the machine does not see it."""
        key = Key("classic", (group_id, member_id, instance_id, generation_id))
        if self.standing.answer(key, self.now_ms):
            return ErrorCode.NONE
        error = self.heartbeat(member_id, generation_id, group_id=group_id, instance_id=instance_id)

        def is_right() -> bool:
            group = self.machine.table.groups.get(group_id)
            return (
                group is not None
                and self.machine.membership.is_settled(group_id)
                and group.check_member(member_id, instance_id) is ErrorCode.NONE
                and group.generation_id == generation_id
            )

        if error is ErrorCode.NONE and self.machine.membership.is_settled(group_id):
            self.standing.let_stand(key, group_id, member_id, is_right)
        return error

    def begin_leave(self, *members: str | MemberIdentity, group_id: str = GROUP, version: int = 5) -> int:
        caller = self.caller(version=version)
        identities = tuple(MemberIdentity(member_id=m) if isinstance(m, str) else m for m in members)
        request = LeaveGroupRequest(group_id=group_id, members=identities)
        if version < 3:
            request = LeaveGroupRequest(group_id=group_id, member_id=identities[0].member_id)
        self.run(self.machine.membership.leave(request, caller, self.now))
        return caller.token

    def leave(self, *members: str | MemberIdentity, **options: Any) -> LeaveGroupResponse:
        response = self.reply_to(self.begin_leave(*members, **options))
        assert isinstance(response, LeaveGroupResponse)
        return response

    def begin_commit(
        self,
        offsets: Mapping[tuple[str, int], int],
        *,
        member_id: str = "",
        generation_id: int = -1,
        group_id: str = GROUP,
        instance_id: str | None = None,
        metadata: str | None = "",
        leader_epoch: int = -1,
        retention_ms: int = -1,
        topic_id: uuid.UUID | None = None,
        version: int = 9,
        stands: bool = False,
    ) -> int:
        """Args: stands: Where commits like this one stand the machine does not see it; else they may from then on."""
        topics: dict[str, list[OffsetCommitRequestPartition]] = {}
        for (topic, partition), offset in offsets.items():
            topics.setdefault(topic, []).append(
                OffsetCommitRequestPartition(
                    partition_index=partition,
                    committed_offset=offset,
                    committed_metadata=metadata,
                    committed_leader_epoch=leader_epoch,
                )
            )
        request = OffsetCommitRequest(
            group_id=group_id,
            member_id=member_id,
            group_instance_id=instance_id,
            generation_id_or_member_epoch=generation_id,
            retention_time_ms=retention_ms,
            topics=tuple(
                OffsetCommitRequestTopic(name=t, topic_id=topic_id, partitions=tuple(p)) for t, p in topics.items()
            ),
        )
        key = Key("commit", (version, group_id, member_id, generation_id, instance_id, metadata, tuple(offsets)))
        found = self.writes.find(key) if stands and self.append_error is None else None
        if found is not None:
            return self._write(key, found, request, version)
        caller = self.caller(version=version)
        if stands:
            self._to_stand[caller.token] = key, Asked(request, caller)
        self.run(self.machine.offsets.commit(request, caller, self.now))
        return caller.token

    def _write(self, key: Key, stands: Stands, request: OffsetCommitRequest, version: int) -> int:
        """Carry a commit out without the machine; returns its token."""
        self._tokens += 1
        caller = Caller(self._tokens, version, "client", "/127.0.0.1", "")
        body = encode_request(ApiKey.OFFSET_COMMIT, version, request)
        holes = request_holes(version, decode_request(ApiKey.OFFSET_COMMIT, version, body), body)
        assert holes is not None
        said = b"".join(body[hole.at : hole.at + hole.size_bytes] for hole in holes)
        records = stands.pattern.records(said, self.wall_ms)
        base_offset = self._append(records)
        self.writes.note(key, stands, Asked(request, caller), base_offset, records, heard_ms=self.now_ms)
        if not self.holding:
            self.high_watermark = len(self.log)
            self._settle_writes()
        return caller.token

    def _let_commit_stand(self, reply: Reply) -> None:
        key, asked = self._to_stand.pop(reply.token, (None, None))
        if key is None or asked is None or reply.error is not ErrorCode.NONE:
            return
        request, caller = asked
        assert isinstance(reply.response, OffsetCommitResponse)
        errors = {p.error_code for t in reply.response.topics for p in t.partitions}

        def is_right() -> bool:
            return self.machine.offsets.is_settled(request, caller)

        if errors == {ErrorCode.NONE} and is_right():
            pattern = CommitPattern(caller.api_version, request)
            stands = Stands(request.group_id, request.member_id, pattern, reply.response, is_right)
            self.writes.let_stand(key, stands)

    def commit_offsets(self, offsets: Mapping[tuple[str, int], int], **options: Any) -> set[ErrorCode]:
        """Commit; returns the errors of the partitions."""
        response = self.reply_to(self.begin_commit(offsets, **options))
        assert isinstance(response, OffsetCommitResponse)
        return {p.error_code for t in response.topics for p in t.partitions}

    def fetch_offsets(self, *partitions: tuple[str, int], group_id: str = GROUP) -> dict[tuple[str, int], int]:
        """Committed offsets; without partitions, all of the group's."""
        self.catch_up()
        return _offsets(self.machine.offsets.fetch(_fetch_request(group_id, partitions)))

    def begin_fetch_stable(self, *partitions: tuple[str, int], group_id: str = GROUP) -> int:
        caller = self.caller(version=9)
        self.run(self.machine.offsets.fetch_stable(_fetch_request(group_id, partitions), caller))
        return caller.token

    def delete_offsets(self, *partitions: tuple[str, int], group_id: str = GROUP) -> OffsetDeleteResponse:
        caller = self.caller(version=0)
        request = OffsetDeleteRequest(
            group_id=group_id,
            topics=tuple(
                OffsetDeleteRequestTopic(name=t, partitions=(OffsetDeleteRequestPartition(partition_index=p),))
                for t, p in partitions
            ),
        )
        self.run(self.machine.offsets.delete(request, caller))
        response = self.reply_to(caller.token)
        assert isinstance(response, OffsetDeleteResponse)
        return response

    def delete_groups(self, *group_ids: str) -> dict[str, ErrorCode]:
        caller = self.caller(version=2)
        self.run(self.machine.directory.delete(group_ids, caller))
        return {r.group_id: r.error_code for r in self.reply_to(caller.token)}

    def state(self, group_id: str = GROUP) -> str:
        return self.machine.directory.describe(group_id, api_version=5).group_state

    def list(self, *, states: Iterable[str] = (), types: Iterable[str] = ()) -> dict[str, str]:
        return {g.group_id: g.group_state for g in self.machine.directory.list(list(states), list(types))}

    # Whole stories

    def stable_group(self, size: int, **options: Any) -> tuple[int, list[str]]:
        """A group of `size` members in one stable generation; returns it and the ids, the leader's first."""
        ids = [self.ask_for_id(**options) for _ in range(size)]
        tokens = [self.begin_join(member_id, **options) for member_id in ids]
        self.advance(self.config.group_initial_rebalance_delay_ms)
        joined = [self.reply_to(token) for token in tokens]
        generation_id = joined[0].generation_id
        leader = joined[0].leader
        ids.sort(key=lambda member_id: member_id != leader)
        syncs = [self.begin_sync(m, generation_id, {i: i.encode() for i in ids} if m == leader else {}) for m in ids]
        for member_id, token in zip(ids, syncs, strict=True):
            assert self.reply_to(token).assignment == member_id.encode() or "group_id" in options
        return generation_id, ids

    def durable(self) -> tuple[dict[str, Any], dict[str, dict[tuple[str, int], Any]]]:
        """The committed state: group metadata, and offsets."""
        self.catch_up()
        table = self.machine.table
        return (
            dict(table.metadata.committed_items()),
            {
                group_id: committed
                for group_id in table.offsets.group_ids() | set(table.offsets._groups)
                if (committed := dict(table.offsets.committed_items(group_id)))
            },
        )


def _fetch_request(group_id: str, partitions: tuple[tuple[str, int], ...]) -> OffsetFetchRequestGroup:
    if not partitions:
        return OffsetFetchRequestGroup(group_id=group_id, topics=None)
    return OffsetFetchRequestGroup(
        group_id=group_id,
        topics=tuple(OffsetFetchRequestTopics(name=t, partition_indexes=(p,)) for t, p in partitions),
    )


def _offsets(response: OffsetFetchResponseGroup) -> dict[tuple[str, int], int]:
    assert response.error_code is ErrorCode.NONE
    return {(t.name, p.partition_index): p.committed_offset for t in response.topics for p in t.partitions}
