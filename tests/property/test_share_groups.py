"""Share groups under any sequence of members, topics, clocks, lost writes and restarts; and the simple assignor.

What must hold whatever happens: nobody has a partition without a state; epochs only rise; the log says the same as the
memory of whoever wrote it; and once the world holds still, each partition that is wanted has a member.
"""

from __future__ import annotations

import uuid

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ottla.coordinator.group.assignors.model import MemberSpec
from ottla.coordinator.group.assignors.simple import assign_simple
from ottla.coordinator.group.config import GroupConfig, ShareGroupConfig
from ottla.errors import ErrorCode
from tests.unit.coordinator.group.context import GROUP
from tests.unit.coordinator.group.sharers import ShareContext

TOPICS = ("t", "u")
IDS = {name: uuid.uuid5(uuid.NAMESPACE_URL, name) for name in TOPICS}
MEMBERS = st.sampled_from(["a", "b", "c"])


@st.composite
def members(draw: st.DrawFn) -> dict[str, MemberSpec]:
    wanted = st.sets(st.sampled_from(TOPICS), min_size=1)
    same = draw(st.booleans())
    everybody = draw(wanted)
    found = {}
    for i in range(draw(st.integers(1, 7))):
        has = {IDS[name]: frozenset(draw(st.sets(st.integers(0, 6)))) for name in draw(wanted)}
        topics = everybody if same else draw(wanted)
        found[f"m{i}"] = MemberSpec(subscribed=frozenset(IDS[name] for name in topics), current=has)
    return found


@given(members(), st.integers(0, 5), st.integers(1, 5))
def test_each_partition_goes_to_somebody_and_evenly(specs: dict[str, MemberSpec], ts: int, us: int) -> None:
    assignable = {IDS["t"]: range(ts), IDS["u"]: range(us)}
    found = assign_simple(specs, assignable)
    assert found.keys() == specs.keys()
    wanted = {(topic, p) for spec in specs.values() for topic in spec.subscribed for p in assignable[topic]}
    given_out = {(topic, p) for target in found.values() for topic, partitions in target.items() for p in partitions}
    assert given_out == wanted
    for member_id, target in found.items():
        assert target.keys() <= specs[member_id].subscribed
        assert all(target.values())
    if len({spec.subscribed for spec in specs.values()}) == 1:
        counts = [sum(map(len, target.values())) for target in found.values()]
        assert max(counts) - min(counts) <= 2
        assert not wanted or len(wanted) < len(specs) or max(counts) - min(counts) <= 1
    again = {m: MemberSpec(subscribed=spec.subscribed, current=found[m]) for m, spec in specs.items()}
    assert assign_simple(again, assignable) == found, "nothing moves without a reason"


class ShareGroupModel(RuleBasedStateMachine):
    @initialize(interval_ms=st.sampled_from([0, 1_000]))
    def start(self, interval_ms: int) -> None:
        config = GroupConfig(share_defaults=ShareGroupConfig(assignment_interval_ms=interval_ms))
        self.counts = {"t": 3, "u": 1}
        self.generation = 0
        self.group = ShareContext(config=config, topics=self.counts)
        self.epochs = dict.fromkeys("abc", 0)
        self.wants: dict[str, tuple[str, ...]] = dict.fromkeys("abc", ("t",))
        self.committed_epoch = 0
        self.unheard: set[str] = set()
        """Members that do not know whether they were heard: they say everything again."""

    def poll(self, member_id: str, *, whole: bool = False) -> None:
        epoch = self.epochs[member_id]
        topics = self.wants[member_id] if whole or epoch == 0 or member_id in self.unheard else None
        token = self.group.begin_beat(member_id, epoch, subscribed_topic_names=topics)
        reply = self.group.replies.pop(token, None)
        if reply is None or reply.error is not ErrorCode.NONE:
            self.unheard.add(member_id)
            return
        self.unheard.discard(member_id)
        response = reply.response
        assert response.error_code is not ErrorCode.UNKNOWN_SERVER_ERROR  # type: ignore[attr-defined]
        failed = response.error_code is not ErrorCode.NONE  # type: ignore[attr-defined]
        self.epochs[member_id] = 0 if failed else response.member_epoch  # type: ignore[attr-defined]

    @rule(member_id=MEMBERS, whole=st.booleans())
    def poll_one(self, member_id: str, whole: bool) -> None:
        self.poll(member_id, whole=whole)

    @rule(member_id=MEMBERS, topics=st.sets(st.sampled_from(TOPICS), min_size=1))
    def resubscribe(self, member_id: str, topics: set[str]) -> None:
        self.wants[member_id] = tuple(sorted(topics))
        self.poll(member_id, whole=True)

    @rule(member_id=MEMBERS)
    def leave(self, member_id: str) -> None:
        self.group.begin_beat(member_id, -1)
        self.epochs[member_id] = 0

    @rule(fails=st.booleans())
    def share_coordinator_answers(self, fails: bool) -> None:
        self.group.answer_asked(fails=fails)

    @rule(ms=st.sampled_from([500, 5_000, 46_000]))
    def wait(self, ms: int) -> None:
        self.group.advance(ms)

    @rule(name=st.sampled_from(TOPICS))
    def grow(self, name: str) -> None:
        self.counts[name] = min(self.counts[name] + 1, 6)
        self.group.set_topics(self.counts, generation=self.generation)

    @rule()
    def make_topics_again(self) -> None:
        self.generation += 1
        self.group.set_topics(self.counts, generation=self.generation)

    @rule()
    def hold_commits(self) -> None:
        self.group.holding = True

    @rule(is_lost=st.booleans())
    def let_commits_go(self, is_lost: bool) -> None:
        if is_lost:
            self.group.lose_uncommitted()
        self.group.holding = False
        self.group.commit()

    @rule()
    def restart(self) -> None:
        self.group = self.group.restarted()

    @rule()
    def settle(self) -> None:
        """Nothing happens any more but heartbeats."""
        self.let_commits_go(False)
        for _ in range(8):
            for member_id in self.epochs:
                self.poll(member_id)
            self.group.answer_asked()
            self.group.advance(1_000)
        group = self.group.machine.table.shares.get(GROUP)
        assert group is not None
        names = {name for topics in self.wants.values() for name in topics}
        wanted = {(self.group.topic_id(name), p) for name in names for p in range(self.counts[name])}
        has = {(t, p) for _, m in group.members.items() for t, found in m.assigned.items() for p in found}
        assert has == wanted
        assert all(m.member_epoch == group.epoch for _, m in group.members.items())

    @invariant()
    def nobody_has_what_has_no_state(self) -> None:
        if not hasattr(self, "group"):
            return
        group = self.group.machine.table.shares.get(GROUP)
        for _, member in () if group is None else group.members.items():
            for topic_id, partitions in member.assigned.items():
                states = group.states if group is not None else None
                topic = None if states is None else states.initialized.get(topic_id)
                assert topic_id not in self.group.image.topics or (topic and partitions <= topic.partitions)

    @invariant()
    def epochs_only_rise(self) -> None:
        if not hasattr(self, "group"):
            return
        group = self.group.machine.table.shares.get_committed(GROUP)
        if group is not None:
            assert group.committed_epoch >= self.committed_epoch
            self.committed_epoch = group.committed_epoch

    @invariant()
    def the_log_says_it_all(self) -> None:
        if hasattr(self, "group"):
            assert self.group.restarted().durable() == self.group.durable()


ShareGroupModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestShareGroups = ShareGroupModel.TestCase
