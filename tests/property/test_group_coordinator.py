"""The group coordinator under any sequence of clients, clocks, lost writes and restarts.

Clients behave as real ones do, but at random times and with gaps. What must hold whatever happens: one owner a
partition in each generation, generations that only rise, offsets that stay once they were acknowledged, one reply a
request, and a log that says the same as the memory of whoever wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ottla.coordinator.group import records
from ottla.coordinator.group.classic import ClassicGroup, GroupState
from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.shard import coordinator_error
from ottla.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupResponse
from ottla.protocol.messages.offset_commit import OffsetCommitResponse
from ottla.protocol.messages.sync_group import SyncGroupResponse
from tests.unit.coordinator.group.context import GROUP, GroupContext, protocols, subscription

PARTITIONS = 4
CLIENTS = 4
TOPIC = "topic"


@dataclass
class Client:
    """A consumer as the protocol sees it."""

    instance_id: str | None
    member_id: str = ""
    generation_id: int = -1
    owned: frozenset[int] = frozenset()
    joining: int | None = None
    syncing: int | None = None
    assigns: list[str] | None = None
    """As leader of a generation not yet synced: the members."""
    is_synced: bool = False
    version: int = 9
    topics: tuple[str, ...] = (TOPIC,)
    committing: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Commits not yet answered: token to (partition, offset)."""

    def reset(self) -> None:
        self.member_id, self.generation_id, self.owned, self.assigns = "", -1, frozenset(), None
        self.is_synced = False

    @property
    def is_idle(self) -> bool:
        return self.joining is None and self.syncing is None


class GroupCoordinatorModel(RuleBasedStateMachine):
    @initialize(delay_ms=st.sampled_from([0, 3_000]), size_max=st.sampled_from([3, 100]))
    def start(self, delay_ms: int, size_max: int) -> None:
        config = GroupConfig(group_initial_rebalance_delay_ms=delay_ms, group_max_size=size_max)
        self.group = GroupContext(config=config)
        # Two clients have an instance id; of one of these there are two incarnations.
        self.clients = [Client(None), Client(None), Client("one"), Client("two"), Client("one")]
        self.owners: dict[tuple[int, int], str] = {}
        self.acknowledged: dict[int, int] = {}
        self.next_offset = 1
        self.generation_seen = 0
        self.checked = 0

    clients_at = st.integers(0, CLIENTS)

    # What clients do

    @rule(at=clients_at, version=st.sampled_from([3, 5, 8, 9]), changes=st.booleans())
    def join(self, at: int, version: int, changes: bool) -> None:
        client = self.clients[at]
        if changes:
            client.topics = () if client.topics else (TOPIC,)
        client.version = max(version, 5) if client.instance_id else version
        self.begin_join(client)

    def begin_join(self, client: Client) -> None:
        if not client.is_idle:
            return
        client.is_synced = False
        client.joining = self.group.begin_join(
            client.member_id,
            instance_id=client.instance_id,
            using=protocols(range=subscription(*client.topics)),
            version=client.version,
        )
        self.collect()

    def begin_sync(self, client: Client) -> None:
        parts: dict[str, bytes] = {}
        if client.assigns is not None:
            members = client.assigns
            parts = {m: bytes(range(i, PARTITIONS, len(members))) for i, m in enumerate(members)}
        client.syncing = self.group.begin_sync(
            client.member_id, client.generation_id, parts, instance_id=client.instance_id
        )
        self.collect()

    def poll(self, client: Client) -> None:
        """What a consumer does when nothing special happens."""
        if not client.is_idle:
            return
        if client.generation_id < 0:
            self.begin_join(client)
        elif not client.is_synced:
            self.begin_sync(client)
        else:
            match self.group.standing_heartbeat(client.member_id, client.generation_id, instance_id=client.instance_id):
                case ErrorCode.NONE:
                    return
                case ErrorCode.REBALANCE_IN_PROGRESS:
                    self.begin_join(client)
                case _:
                    client.reset()

    @rule(at=clients_at)
    def poll_one(self, at: int) -> None:
        self.poll(self.clients[at])

    @rule(rounds=st.integers(1, 6), some=st.sets(clients_at), ms=st.sampled_from([0, 500, 3_000]))
    def poll_some(self, rounds: int, some: set[int], ms: int) -> None:
        for _ in range(rounds):
            for at in sorted(some):
                self.poll(self.clients[at])
            self.advance(ms)

    @rule(at=clients_at)
    def leave(self, at: int) -> None:
        client = self.clients[at]
        if client.member_id:
            self.group.begin_leave(client.member_id)
            self.collect()
            client.reset()

    @rule(
        at=clients_at,
        partition=st.integers(0, 1),
        times=st.integers(1, 4),
        end=st.sampled_from(["committed", "held", "lost"]),
    )
    def commit_offsets(self, at: int, partition: int, times: int, end: str) -> None:
        """Commits that are alike go past the machine from the second on."""
        for i in range(times):
            if end != "committed" and i == times - 1:
                self.group.holding = True
            self.commit_offset(self.clients[at], partition)
        if end == "lost" and self.group.high_watermark < len(self.group.log):
            self.group.lose_uncommitted()
            self.collect()

    def commit_offset(self, client: Client, partition: int) -> None:
        token = self.group.begin_commit(
            {(TOPIC, partition): self.next_offset},
            member_id=client.member_id,
            generation_id=client.generation_id,
            instance_id=client.instance_id if client.generation_id >= 0 else None,
            stands=True,
        )
        client.committing[token] = (partition, self.next_offset)
        self.next_offset += 1
        self.collect()

    @rule(at=clients_at)
    def restart_client(self, at: int) -> None:
        """A client loses its memory and its connection, but not what it asked for."""
        client = self.clients[at]
        client.joining = client.syncing = None
        client.reset()

    # What the world does

    @rule(ms=st.sampled_from([0, 1, 1_000, 3_000, 9_999, 30_000]))
    def advance(self, ms: int) -> None:
        self.group.advance(ms)
        self.collect()

    @rule()
    def hold_commits(self) -> None:
        self.group.holding = True

    @rule(some=st.integers(1, 3))
    def commit_some(self, some: int) -> None:
        self.group.commit_batches(some)
        self.group.holding = self.group.high_watermark < len(self.group.log)
        self.collect()

    @precondition(lambda self: self.group.high_watermark < len(self.group.log))
    @rule()
    def lose_uncommitted(self) -> None:
        self.group.lose_uncommitted()
        self.collect()

    @rule(at=clients_at)
    def refuse_an_append(self, at: int) -> None:
        """The disk is full for what this client does next."""
        self.group.append_error = ErrorCode.KAFKA_STORAGE_ERROR
        self.poll(self.clients[at])
        self.group.append_error = None

    @rule()
    def restart_broker(self) -> None:
        """Another broker takes over from the log; connections break."""
        tokens = self.group._tokens
        self.group = self.group.restarted()
        self.group._tokens = tokens
        for client in self.clients:
            client.joining = client.syncing = None
            client.committing.clear()
        self.generation_seen = 0
        self.collect()

    @rule()
    def delete_group(self) -> None:
        if self.group.holding or self.group.append_error is not None:
            return
        if self.group.delete_groups(GROUP)[GROUP] is ErrorCode.NONE:
            # A new group of the same name starts from generation 0 and without offsets.
            self.owners.clear()
            self.acknowledged.clear()
            self.generation_seen = 0
            for client in self.clients:
                client.reset()
        self.collect()

    # What clients make of the answers

    def collect(self) -> None:
        for client in self.clients:
            if client.joining in self.group.replies:
                reply, client.joining = self.group.replies.pop(client.joining), None
                response = reply.response
                if reply.error is not ErrorCode.NONE:  # that there is such a group was not committed, or not in time
                    response = JoinGroupResponse(error_code=coordinator_error(reply.error))
                assert isinstance(response, JoinGroupResponse)
                self.on_joined(client, response)
            if client.syncing in self.group.replies:
                token, client.syncing = client.syncing, None
                response = self.group.reply_to(token)
                assert isinstance(response, SyncGroupResponse)
                self.on_synced(client, response)
            for token in [t for t in client.committing if t in self.group.replies]:
                self.on_offset_committed(token, *client.committing.pop(token))

    def on_joined(self, client: Client, response: JoinGroupResponse) -> None:
        match response.error_code:
            case ErrorCode.NONE:
                client.member_id, client.generation_id = response.member_id, response.generation_id
                assert response.protocol_name == "range"
                is_leader = response.leader == response.member_id
                assert not is_leader or response.member_id in {m.member_id for m in response.members}
                must_assign = is_leader and not response.skip_assignment
                client.assigns = [m.member_id for m in response.members] if must_assign else None
            case ErrorCode.MEMBER_ID_REQUIRED:
                client.member_id = response.member_id
            case ErrorCode.REBALANCE_IN_PROGRESS | ErrorCode.COORDINATOR_NOT_AVAILABLE | ErrorCode.NOT_COORDINATOR:
                return
            case _:
                client.reset()

    def on_synced(self, client: Client, response: SyncGroupResponse) -> None:
        if response.error_code is not ErrorCode.NONE:
            if response.error_code not in (ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.NOT_COORDINATOR):
                client.reset()
            client.generation_id = -1
            return
        client.is_synced = True
        client.owned = frozenset(response.assignment)
        # A static member's place outlives its ids.
        place = client.instance_id or client.member_id
        for partition in client.owned:
            assert self.owners.setdefault((client.generation_id, partition), place) == place

    def on_offset_committed(self, token: int, partition: int, offset: int) -> None:
        reply = self.group.replies.pop(token)
        if reply.error is not ErrorCode.NONE:
            return
        assert isinstance(reply.response, OffsetCommitResponse)
        if reply.response.topics[0].partitions[0].error_code is ErrorCode.NONE:
            self.acknowledged[partition] = max(offset, self.acknowledged.get(partition, 0))

    # What must hold

    @invariant()
    def what_stands_is_what_the_machine_would_say(self) -> None:
        self.group.standing.check()
        self.group.writes.check()

    @invariant()
    def generations_only_rise(self) -> None:
        group = self.group.machine.table.groups.get(GROUP)
        generation_id = 0 if group is None else group.generation_id
        assert generation_id >= self.generation_seen or group is None or not group.members
        self.generation_seen = generation_id

    @invariant()
    def acknowledged_offsets_stay(self) -> None:
        found = self.group.fetch_offsets()
        for partition, offset in self.acknowledged.items():
            assert found.get((TOPIC, partition), -1) >= offset

    @invariant()
    def a_restart_finds_what_is_committed(self) -> None:
        assert self.group.restarted().durable() == self.group.durable()

    @invariant()
    def records_say_what_was_replayed(self) -> None:
        for record in self.group.log[self.checked :]:
            assert records.decode(record.key, record.value) == record.content
        self.checked = len(self.group.log)

    @invariant()
    def memory_agrees_with_the_log(self) -> None:
        table = self.group.machine.table
        group = table.groups.get(GROUP)
        value = table.metadata.get(GROUP)
        is_settled = self.group.high_watermark == len(self.group.log) and self.group.append_error is None
        if group is None or value is None or not is_settled or group.state is not GroupState.STABLE:
            return
        if any(m.join_token is not None for m in group.members.values()):
            return  # a static member's new id is not stored yet
        stored = ClassicGroup.from_record(GROUP, value)
        assert stored.generation_id == group.generation_id
        assert {m: x.assignment for m, x in stored.members.items()} == {
            m: x.assignment for m, x in group.members.items()
        }
        assert stored.static_members == group.static_members

    @invariant()
    def counts_are_right(self) -> None:
        for group in self.group.machine.table.groups.values():
            members = group.members.values()
            assert group.awaiting_join == sum(m.join_token is not None for m in members)
            assert set(group.static_members.values()) == {m.member_id for m in members if m.is_static}
            assert group.pending_sync <= group.members.keys()
            for member in members:
                assert member.session.at_ms is not None or member.is_excused, "it would stay for ever"
            assert (group.state is GroupState.EMPTY) <= (not members)
            assert group.leader_id is None or group.leader_id in group.members or not members

    def teardown(self) -> None:
        """However it stands, once writes are committed and time passes everybody is answered."""
        if not hasattr(self, "group"):
            return
        self.group.append_error = None
        self.group.holding = False
        self.group.commit()
        for _ in range(40):
            self.group.advance(60_000)
        assert not self.group.shard._parked
        unanswered = set(range(1, self.group._tokens + 1)) - self.group.answered
        members = [m for g in self.group.machine.table.groups.values() for m in g.members.values()]
        assert not members
        assert not {m for c in self.clients for m in (c.joining, c.syncing, *c.committing)} & unanswered


TestGroupCoordinator = GroupCoordinatorModel.TestCase
TestGroupCoordinator.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
