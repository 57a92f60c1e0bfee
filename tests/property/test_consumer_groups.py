"""Consumer groups under any sequence of clients, topics, clocks, lost answers, lost writes and restarts.

What must hold whatever happens: no two members have one partition, also by what clients believe; epochs only rise; the
log says the same as the memory of whoever wrote it; and once the world holds still, everything is assigned evenly.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ottla.coordinator.group import records
from ottla.coordinator.group.config import ConsumerGroupConfig, GroupConfig
from ottla.coordinator.group.consumer import ConsumerGroup
from ottla.errors import ErrorCode
from ottla.protocol.messages.offset_commit import OffsetCommitResponse
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext
from tests.unit.coordinator.group.context import GROUP

CLIENTS = 4
TOPICS = ("t1", "t2", "u1")
REBALANCE_MS = 20_000


class Client(Consumer):
    """A consumer that may lose answers, and may be slow to let go."""

    incarnation: int = 0
    must_repeat: bool = False
    """An answer did not come: what it told of itself then may not have arrived."""
    regex: str | None = None


class ConsumerGroupModel(RuleBasedStateMachine):
    @initialize(
        interval_ms=st.sampled_from([0, 1_000]), size_max=st.sampled_from([3, 100]), quiet_ms=st.sampled_from([0, 2])
    )
    def start(self, interval_ms: int, size_max: int, quiet_ms: int) -> None:
        config = GroupConfig(
            consumer_defaults=ConsumerGroupConfig(assignment_interval_ms=interval_ms),
            consumer_group_max_size=size_max,
            targets_quiet_ms=quiet_ms,
            # Else a group that is empty for long is deleted, and the next one of its name begins anew.
            offsets_retention_check_interval_ms=2**40,
        )
        self.quiet_ms = quiet_ms
        self.counts = {"t1": 3, "u1": 2}
        self.generations: dict[str, int] = {}
        self.group = ConsumerContext(config=config, topics=self.counts)
        self.clients = [
            Client(self.group, "a", topics=("t1",)),
            Client(self.group, "b", topics=("t1", "t2")),
            Client(self.group, "s-0", instance_id="s", topics=("t1",)),
            Client(self.group, "r", topics=()),
        ]
        self.clients[3].regex = "t.*"
        self.committed_epoch = 0
        self.checked = 0
        self.next_offset = 1
        self.acknowledged = -1
        self.committing: dict[int, int] = {}
        """Offsets by the tokens of commits that are not answered yet."""

    clients_at = st.integers(0, CLIENTS - 1)

    # What clients do

    def send(self, client: Client, epoch: int, **fields: Any) -> int:
        return self.group.begin_beat(client.member_id, epoch, instance_id=client.instance_id, **fields)

    def receive(self, client: Client, token: int) -> None:
        reply = self.group.replies.pop(token, None)
        client.must_repeat = reply is None or reply.error is not ErrorCode.NONE
        if reply is None or client.must_repeat:
            return
        response = reply.response
        assert response.error_code is not ErrorCode.UNKNOWN_SERVER_ERROR  # type: ignore[attr-defined]
        client.take(response)  # type: ignore[arg-type]

    def begin_poll(self, client: Client, *, changes: bool = False) -> int:
        if client.epoch == 0 or changes or client.must_repeat:
            subscription: dict[str, Any] = {"subscribed_topic_names": client.topics or None}
            if client.regex is not None:
                subscription |= {"subscribed_topic_regex": client.regex, "subscribed_topic_names": ()}
            if client.epoch == 0:
                client.owned = {}
            return self.send(
                client, client.epoch, rebalance_timeout_ms=REBALANCE_MS, owned=client.owned, **subscription
            )
        return self.send(client, client.epoch, owned=client.owned)

    def poll(self, client: Client, *, lets_go: bool = True, is_lost: bool = False, changes: bool = False) -> None:
        before = copy.deepcopy((client.epoch, client.owned))
        token = self.begin_poll(client, changes=changes)
        self.group.advance(self.quiet_ms)
        if is_lost:
            self.group.replies.pop(token, None)
            client.must_repeat = True
            return
        self.receive(client, token)
        if not lets_go and client.epoch and client.epoch == before[0]:
            client.owned = before[1] | {t: p for t, p in client.owned.items() if t not in before[1]}

    @rule(at=clients_at, lets_go=st.booleans(), is_lost=st.booleans())
    def poll_one(self, at: int, lets_go: bool, is_lost: bool) -> None:
        self.poll(self.clients[at], lets_go=lets_go, is_lost=is_lost)

    @rule(rounds=st.integers(1, 4), some=st.sets(clients_at), ms=st.sampled_from([0, 1_000, 5_000]))
    def poll_some(self, rounds: int, some: set[int], ms: int) -> None:
        for _ in range(rounds):
            self.poll_together([self.clients[at] for at in sorted(some)])
            self.group.advance(ms)

    def poll_together(self, clients: list[Client]) -> None:
        if not self.quiet_ms:
            for client in clients:
                self.poll(client)
            return
        tokens = [self.begin_poll(client) for client in clients]
        self.group.advance(self.quiet_ms)
        for client, token in zip(clients, tokens, strict=True):
            self.receive(client, token)

    @rule(at=st.integers(0, 2), topics=st.sets(st.sampled_from(TOPICS)))
    def resubscribe(self, at: int, topics: set[str]) -> None:
        client = self.clients[at]
        client.topics = tuple(sorted(topics)) or ("t1",)
        self.poll(client, changes=True)

    @rule(regex=st.sampled_from(["t.*", "u.*", ".*1"]))
    def change_expression(self, regex: str) -> None:
        self.clients[3].regex = regex
        self.poll(self.clients[3], changes=True)

    @rule(times=st.integers(1, 20), some=st.sets(clients_at))
    def stay_some(self, times: int, some: set[int]) -> None:
        """Clients that have nothing to say stay members, however long that lasts and whoever answers them."""
        for _ in range(3):
            self.poll_together([self.clients[at] for at in sorted(some)])
            self.group.advance(1_000)
        for _ in range(times):
            for at in sorted(some):
                client = self.clients[at]
                if client.epoch and not client.must_repeat:
                    response = self.group.stay(client.member_id, client.epoch, client.instance_id)
                    if response is None:
                        client.must_repeat = True
                    else:
                        client.take(response)
            self.group.advance(5_000)

    @rule(at=clients_at, times=st.integers(1, 4), end=st.sampled_from(["committed", "held", "lost"]))
    def commit_offsets(self, at: int, times: int, end: str) -> None:
        """Commits that are alike go past the machine from the second on."""
        client = self.clients[at]
        for i in range(times):
            if end != "committed" and i == times - 1:
                self.group.holding = True
            token = self.group.begin_commit(
                {("t1", 0): self.next_offset},
                member_id=client.member_id,
                generation_id=client.epoch,
                instance_id=client.instance_id,
                stands=True,
            )
            self.committing[token] = self.next_offset
            self.next_offset += 1
        if end == "lost" and self.group.high_watermark < len(self.group.log):
            self.group.lose_uncommitted()

    def collect_commits(self) -> None:
        for token in [token for token in self.committing if token in self.group.replies]:
            offset, reply = self.committing.pop(token), self.group.replies.pop(token)
            if reply.error is not ErrorCode.NONE:
                continue
            assert isinstance(reply.response, OffsetCommitResponse)
            if reply.response.topics[0].partitions[0].error_code is ErrorCode.NONE:
                self.acknowledged = max(offset, self.acknowledged)

    @rule(at=clients_at, is_for_a_while=st.booleans())
    def leave(self, at: int, is_for_a_while: bool) -> None:
        client = self.clients[at]
        if client.epoch:
            token = self.send(client, -2 if is_for_a_while and client.instance_id else -1)
            self.group.replies.pop(token, None)
            client.epoch, client.owned = 0, {}

    @rule(at=clients_at)
    def restart_client(self, at: int) -> None:
        """It forgets everything, and comes back under another id."""
        client = self.clients[at]
        client.incarnation += 1
        client.member_id = f"{client.member_id[0]}-{client.incarnation}"
        client.epoch, client.owned = 0, {}

    # What the world does

    @rule(counts=st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 4)))
    def change_topics(self, counts: dict[str, int]) -> None:
        for name in self.counts.keys() - counts.keys():
            self.generations[name] = self.generations.get(name, 0) + 1
        self.counts = {name: max(count, self.counts.get(name, 0)) for name, count in counts.items()}
        self.group.set_topics(self.counts, generation=self.generations)
        for client in self.clients:
            client.owned = {name: parts for name, parts in client.owned.items() if name in self.counts}

    @rule(ms=st.sampled_from([1, 1_000, 10_001, 20_000, 45_000]))
    def advance(self, ms: int) -> None:
        self.group.advance(ms)

    @rule()
    def hold_commits(self) -> None:
        self.group.holding = True

    @rule(some=st.integers(1, 5))
    def commit_some(self, some: int) -> None:
        self.group.commit_batches(some)
        self.group.holding = self.group.high_watermark < len(self.group.log)

    @precondition(lambda self: self.group.high_watermark < len(self.group.log))
    @rule()
    def lose_uncommitted(self) -> None:
        self.group.lose_uncommitted()

    @rule(at=clients_at)
    def refuse_an_append(self, at: int) -> None:
        self.group.append_error = ErrorCode.KAFKA_STORAGE_ERROR
        self.poll(self.clients[at])
        self.group.append_error = None

    @rule()
    def restart_broker(self) -> None:
        tokens = self.group._tokens
        self.group = self.group.restarted()
        self.group._tokens = tokens
        for client in self.clients:
            client.group = self.group
        self.checked = 0
        self.committing.clear()

    @rule()
    def delete_group(self) -> None:
        if self.group.holding:
            return
        if self.group.delete_groups(GROUP)[GROUP] is ErrorCode.NONE:
            self.committed_epoch = 0
            self.acknowledged = -1

    @rule()
    def use_as_classic_group(self) -> None:
        """Somebody uses the empty group by the classic protocol, and leaves."""
        consumers = self.consumers
        if self.group.holding or (consumers is not None and len(consumers.members)):
            return
        classic = self.group.machine.table.groups.get(GROUP)
        if classic is not None and classic.members:
            return
        _, ids = self.group.stable_group(1)
        assert self.consumers is None
        self.group.leave(*ids)
        self.committed_epoch = 0

    # What must hold

    @property
    def consumers(self) -> ConsumerGroup | None:
        return self.group.machine.table.consumers.get(GROUP)

    @invariant()
    def nobody_shares_a_partition(self) -> None:
        group = self.consumers
        if group is None:
            return
        held = [at for _, member in group.members.items() for at in member.partitions()]
        assert len(held) == len(set(held))
        assert set(held) == set(group.owners)

    @invariant()
    def clients_have_no_more_than_the_coordinator_knows(self) -> None:
        """Those that are still members at their epoch: who was put out in the meantime learns of it when it asks."""
        group = self.consumers
        names = {topic_id: name for name, topic_id in self.group.image.topic_ids.items()}
        for client in self.clients:
            member = None if group is None else group.members.get(client.member_id)
            if member is None or client.epoch != member.member_epoch:
                continue
            known = {(names[topic_id], p) for topic_id, p in member.partitions() if topic_id in names}
            assert client.partitions <= known

    @invariant()
    def committed_epochs_only_rise(self) -> None:
        group = self.group.machine.table.consumers.get_committed(GROUP)
        if group is not None:
            assert group.committed_epoch >= self.committed_epoch
            assert group.committed_assignment_epoch <= group.committed_epoch
            self.committed_epoch = group.committed_epoch
            for _, member in group.members.committed_items():
                assert member.member_epoch <= group.committed_epoch

    @invariant()
    def indexes_are_what_a_rebuild_makes(self) -> None:
        group = self.consumers
        if group is None:
            return
        before = (dict(group.owners), dict(group.static_members), vars_of(group))
        checked_at = group.checked_at_epoch
        group.rebuild()
        group.checked_at_epoch = checked_at
        assert before == (group.owners, group.static_members, vars_of(group))
        assert {regex for regex, _ in group.regexes.items()} <= set(group.wishes.regexes)

    @invariant()
    def a_restart_finds_what_is_committed(self) -> None:
        assert self.group.restarted().durable() == self.group.durable()

    @invariant()
    def records_say_what_was_replayed(self) -> None:
        for record in self.group.log[self.checked :]:
            assert records.decode(record.key, record.value) == record.content
        self.checked = len(self.group.log)

    @invariant()
    def nobody_waits_for_long_when_nothing_is_being_written(self) -> None:
        machine = self.group.machine
        if self.group.high_watermark == len(self.group.log) and machine.heartbeats.steps.turns.is_under_way(GROUP):
            due_ms = machine.next_deadline_ms()
            assert due_ms is not None
            assert due_ms <= self.group.now.now_ms + self.quiet_ms

    @invariant()
    def what_stands_is_what_the_machine_would_say(self) -> None:
        self.group.standing.check()
        self.group.writes.check()

    @invariant()
    def acknowledged_offsets_stay(self) -> None:
        self.collect_commits()
        assert self.group.fetch_offsets().get(("t1", 0), -1) >= self.acknowledged

    @invariant()
    def a_group_is_of_one_kind(self) -> None:
        table = self.group.machine.table
        assert self.consumers is None or GROUP not in table.metadata
        assert not table.superseded()

    def teardown(self) -> None:
        """Once the world holds still: even, complete, stable; and when clients fall silent, empty."""
        if not hasattr(self, "group"):
            return
        self.group.holding = False
        self.group.commit()
        for _ in range(12):
            self.group.advance(5_000)
            for client in self.clients:
                self.poll(client)
        group = self.consumers
        assert group is not None
        if len(group.members) < len(self.clients):
            assert len(group.members) == self.group.config.consumer_group_max_size
        else:
            assert self.group.describe_consumers().group_state == "Stable"
            subscribed = {name for name in self.counts if any(name in c.topics for c in self.clients[:3])} | {
                name for name in self.counts for regex in [self.clients[3].regex or ""] if matches(regex, name)
            }
            wanted = {(name, p) for name in subscribed for p in range(self.counts[name])}
            held = list(itertools.chain.from_iterable(client.partitions for client in self.clients))
            assert sorted(held) == sorted(wanted)
        self.group.advance(45_000)
        assert not len(group.members)


def vars_of(group: ConsumerGroup) -> tuple[Any, ...]:
    return (dict(group.wishes.names), dict(group.wishes.regexes), dict(group.wishes.assignors), group.classic_count)


def matches(regex: str, name: str) -> bool:
    return {"t.*": name.startswith("t"), "u.*": name.startswith("u"), ".*1": name.endswith("1")}[regex]


TestConsumerGroups = ConsumerGroupModel.TestCase
TestConsumerGroups.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
