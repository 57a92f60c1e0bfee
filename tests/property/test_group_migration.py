"""One group with consumers of both protocols, coming and going in any order (KIP-848: online migration).

What must hold whatever happens: a group is of one kind at a time, no two members of a consumer group have one
partition, the log says the same as the memory of whoever wrote it, every request is answered, and the group is empty
once everybody is silent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ottla.coordinator.group import records
from ottla.coordinator.group.config import MigrationPolicy
from ottla.coordinator.group.consumer import ConsumerGroup
from ottla.coordinator.group.subscription import encode_assignment, parse_assignment
from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse
from ottla.protocol.messages.join_group import JoinGroupResponse
from ottla.protocol.messages.leave_group import MemberIdentity
from ottla.protocol.messages.sync_group import SyncGroupResponse
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext, with_config
from tests.unit.coordinator.group.context import GROUP, protocols

PARTITIONS = 4


@dataclass
class Classic:
    """A cooperative consumer of the classic protocol."""

    instance_id: str | None = None
    member_id: str = ""
    generation_id: int = -1
    owned: tuple[int, ...] = ()
    joining: int | None = None
    syncing: int | None = None
    assigns: tuple[str, ...] = ()
    is_synced: bool = False

    def reset(self) -> None:
        self.member_id, self.generation_id, self.owned, self.is_synced = "", -1, (), False
        self.joining = self.syncing = None

    def metadata(self) -> bytes:
        owned = struct.pack(f">ih5si{len(self.owned)}i", 1, 5, b"topic", len(self.owned), *self.owned)
        return struct.pack(">hih5si", 1, 1, 5, b"topic", -1) + owned


class GroupMigrationModel(RuleBasedStateMachine):
    @initialize(policy=st.sampled_from(MigrationPolicy), quiet_ms=st.sampled_from([0, 2]))
    def start(self, policy: MigrationPolicy, quiet_ms: int) -> None:
        self.group = ConsumerContext(config=with_config(migration_policy=policy, targets_quiet_ms=quiet_ms))
        self.modern = [Consumer(self.group, "b"), Consumer(self.group, "s", instance_id="static")]
        self.classic = [Classic(), Classic(), Classic(instance_id="static")]
        self.waiting: dict[int, Consumer] = {}
        self.checked = 0

    # What consumers do

    def poll_modern(self, client: Consumer) -> None:
        if client.epoch == 0:
            client.owned = {}
            token = self.group.begin_beat(
                client.member_id,
                0,
                instance_id=client.instance_id,
                rebalance_timeout_ms=20_000,
                owned={},
                subscribed_topic_names=("topic",),
            )
        else:
            token = self.group.begin_beat(
                client.member_id, client.epoch, instance_id=client.instance_id, owned=client.owned
            )
        self.waiting[token] = client
        self.collect()

    def poll_classic(self, client: Classic) -> None:
        self.collect()
        if client.joining is not None or client.syncing is not None:
            return
        if client.generation_id >= 0 and client.is_synced:
            error = self.group.standing_heartbeat(
                client.member_id, client.generation_id, instance_id=client.instance_id
            )
            if error is ErrorCode.NONE:
                return
            if error is not ErrorCode.REBALANCE_IN_PROGRESS:
                client.reset()
            client.generation_id = -1
        if client.generation_id < 0:
            client.joining = self.group.begin_join(
                client.member_id, instance_id=client.instance_id, using=protocols(range=client.metadata())
            )
        else:
            parts = {
                m: encode_assignment({"topic": range(i, PARTITIONS, len(client.assigns))}, version=1)
                for i, m in enumerate(client.assigns)
            }
            client.syncing = self.group.begin_sync(
                client.member_id, client.generation_id, parts, instance_id=client.instance_id
            )
        self.collect()

    def collect(self) -> None:
        replies = self.group.replies
        for token, consumer in [w for w in self.waiting.items() if w[0] in replies]:
            del self.waiting[token]
            reply = replies.pop(token)
            if reply.error is ErrorCode.NONE:
                assert isinstance(reply.response, ConsumerGroupHeartbeatResponse)
                assert reply.response.error_code is not ErrorCode.UNKNOWN_SERVER_ERROR
                consumer.take(reply.response)
        for client in self.classic:
            if client.joining in replies:
                token, client.joining = client.joining, None
                reply = replies.pop(token)
                if reply.error is ErrorCode.NONE:
                    assert isinstance(reply.response, JoinGroupResponse)
                    self.on_joined(client, reply.response)
            if client.syncing in replies:
                token, client.syncing = client.syncing, None
                reply = replies.pop(token)
                client.is_synced = False
                if reply.error is ErrorCode.NONE:
                    assert isinstance(reply.response, SyncGroupResponse)
                    self.on_synced(client, reply.response)

    @staticmethod
    def on_joined(client: Classic, response: JoinGroupResponse) -> None:
        client.is_synced = False
        match response.error_code:
            case ErrorCode.NONE:
                client.member_id, client.generation_id = response.member_id, response.generation_id
                leads = response.leader == response.member_id and not response.skip_assignment
                client.assigns = tuple(m.member_id for m in response.members) if leads else ()
            case ErrorCode.MEMBER_ID_REQUIRED:
                client.member_id = response.member_id
            case ErrorCode.REBALANCE_IN_PROGRESS | ErrorCode.NOT_COORDINATOR:
                return
            case _:
                client.reset()

    @staticmethod
    def on_synced(client: Classic, response: SyncGroupResponse) -> None:
        if response.error_code is not ErrorCode.NONE:
            if response.error_code is not ErrorCode.REBALANCE_IN_PROGRESS:
                client.reset()
            client.generation_id = -1
            return
        assigned = parse_assignment(response.assignment)
        assert assigned is not None
        client.owned = assigned.partitions.get("topic", ())
        client.is_synced = True

    modern_at = st.integers(0, 1)
    classic_at = st.integers(0, 2)

    @rule(at=modern_at)
    def poll_a_modern_one(self, at: int) -> None:
        self.poll_modern(self.modern[at])

    @rule(at=classic_at, times=st.integers(1, 4))
    def poll_a_classic_one(self, at: int, times: int) -> None:
        for _ in range(times):
            self.poll_classic(self.classic[at])
            self.group.advance(0)

    @rule(rounds=st.integers(1, 4), modern=st.sets(modern_at), classic=st.sets(classic_at))
    def poll_some(self, rounds: int, modern: set[int], classic: set[int]) -> None:
        for _ in range(rounds):
            for at in sorted(modern):
                self.poll_modern(self.modern[at])
            for at in sorted(classic):
                self.poll_classic(self.classic[at])
            self.group.advance(2_000)

    @rule(at=modern_at, times=st.integers(1, 3))
    def stay_modern(self, at: int, times: int) -> None:
        client = self.modern[at]
        for _ in range(times):
            if client.epoch and client not in self.waiting.values():
                response = self.group.stay(client.member_id, client.epoch, client.instance_id)
                if response is not None:
                    client.take(response)
            self.group.advance(5_000)

    @rule(at=modern_at, epoch=st.sampled_from([-1, -2]))
    def leave_modern(self, at: int, epoch: int) -> None:
        client = self.modern[at]
        if client.epoch:
            epoch = epoch if client.instance_id else -1
            token = self.group.begin_beat(client.member_id, epoch, instance_id=client.instance_id)
            self.group.replies.pop(token, None)
            client.epoch, client.owned = 0, {}

    @rule(at=classic_at)
    def leave_classic(self, at: int) -> None:
        client = self.classic[at]
        if client.member_id:
            self.group.begin_leave(MemberIdentity(member_id=client.member_id, group_instance_id=client.instance_id))
            self.collect()
            client.reset()

    @rule(at=classic_at)
    def restart_classic(self, at: int) -> None:
        self.classic[at].reset()

    # What the world does

    @rule(ms=st.sampled_from([0, 5_000, 10_000, 30_000, 45_000]))
    def advance(self, ms: int) -> None:
        self.group.advance(ms)
        self.collect()

    @rule(ms=st.sampled_from([0, 5_000, 30_000, 45_000]), at=st.sets(modern_at))
    def advance_while_the_disk_is_full(self, ms: int, at: set[int]) -> None:
        self.group.append_error = ErrorCode.KAFKA_STORAGE_ERROR
        for modern in sorted(at):
            self.poll_modern(self.modern[modern])
        self.group.advance(ms)
        self.group.append_error = None
        self.collect()

    @rule()
    def hold_commits(self) -> None:
        self.group.holding = True

    @rule(some=st.integers(1, 5))
    def commit_some(self, some: int) -> None:
        self.group.commit_batches(some)
        self.group.holding = self.group.high_watermark < len(self.group.log)
        self.collect()

    @precondition(lambda self: self.group.high_watermark < len(self.group.log))
    @rule()
    def lose_uncommitted(self) -> None:
        self.group.lose_uncommitted()
        self.group.advance(0)
        self.collect()

    @rule()
    def restart_broker(self) -> None:
        tokens = self.group._tokens
        self.group = self.group.restarted()
        self.group._tokens = tokens
        self.waiting.clear()
        for consumer in self.modern:
            consumer.group = self.group
        for client in self.classic:
            client.joining = client.syncing = None
        self.checked = 0

    # What must hold

    @property
    def consumers(self) -> ConsumerGroup | None:
        return self.group.machine.table.consumers.get(GROUP)

    @invariant()
    def nobody_shares_a_partition(self) -> None:
        group = self.consumers
        if group is not None:
            held = [at for _, member in group.members.items() for at in member.partitions()]
            assert len(held) == len(set(held))
            assert set(held) == set(group.owners)
            assert group.classic_count == sum(member.is_classic for _, member in group.members.items())

    @invariant()
    def a_group_is_of_one_kind(self) -> None:
        table = self.group.machine.table
        assert self.consumers is None or GROUP not in table.metadata
        assert not table.superseded()

    @invariant()
    def everybody_has_an_end(self) -> None:
        group = self.group.machine.table.groups.get(GROUP)
        if self.group.holding or group is None:
            return
        for member in group.members.values():
            assert member.session.at_ms is not None or member.is_excused, "it would stay for ever"

    @invariant()
    def what_stands_is_what_the_machine_would_say(self) -> None:
        self.group.standing.check()

    @invariant()
    def a_restart_finds_what_is_committed(self) -> None:
        assert self.group.restarted().durable() == self.group.durable()

    @invariant()
    def records_say_what_was_replayed(self) -> None:
        for record in self.group.log[self.checked :]:
            assert records.decode(record.key, record.value) == record.content
        self.checked = len(self.group.log)

    def teardown(self) -> None:
        if not hasattr(self, "group"):
            return
        self.group.holding = False
        self.group.commit()
        for _ in range(10):
            for consumer in self.modern:
                if consumer.epoch:
                    self.poll_modern(consumer)
            for client in self.classic:
                self.poll_classic(client)
            self.group.advance(3_000)
        for _ in range(20):
            self.group.advance(60_000)
        self.collect()
        assert not self.group.shard._parked
        assert not self.waiting
        assert all(client.joining is None and client.syncing is None for client in self.classic)
        group = self.group.machine.table.groups.get(GROUP)
        assert group is None or not group.members
        assert self.consumers is None or not len(self.consumers.members)


TestGroupMigration = GroupMigrationModel.TestCase
TestGroupMigration.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
