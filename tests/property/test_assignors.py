"""The server-side assignors: everything is assigned once, to subscribers, evenly, and little of it moves."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.coordinator.group.assignors import ASSIGNORS, assign_range, assign_uniform
from ottla.coordinator.group.assignors.model import MemberSpec, Target

TOPICS = [uuid.UUID(int=i) for i in range(1, 6)]
RACKS = ["a", "b", "c"]


@dataclass
class Cluster:
    """Topics for an assignor."""

    counts: dict[uuid.UUID, int]
    racks: dict[tuple[uuid.UUID, int], frozenset[str]] = field(default_factory=dict)

    def partition_count(self, topic_id: uuid.UUID) -> int:
        return self.counts.get(topic_id, 0)

    def racks_of(self, topic_id: uuid.UUID, partition: int) -> frozenset[str]:
        return self.racks.get((topic_id, partition), frozenset())

    def grown(self, more: int) -> Cluster:
        return Cluster({t: n + more for t, n in self.counts.items()}, self.racks)


clusters = st.builds(
    Cluster,
    st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 9), min_size=1),
    st.dictionaries(
        st.tuples(st.sampled_from(TOPICS), st.integers(0, 8)), st.frozensets(st.sampled_from(RACKS), max_size=2)
    ),
)


@st.composite
def groups(draw: st.DrawFn, *, is_homogeneous: bool) -> tuple[Cluster, dict[str, MemberSpec]]:
    cluster = draw(clusters)
    subscriptions = st.frozensets(st.sampled_from(sorted(cluster.counts)))
    common = draw(subscriptions)
    members = {}
    for i in range(draw(st.integers(1, 8))):
        members[f"m{i}"] = MemberSpec(
            subscribed=common if is_homogeneous else draw(subscriptions),
            instance_id=draw(st.none() | st.just(f"i{i}")),
            rack_id=draw(st.none() | st.sampled_from(RACKS)),
        )
    return cluster, members


any_group = groups(is_homogeneous=True) | groups(is_homogeneous=False)
changes = st.lists(
    st.sampled_from(["leave", "join", "grow", "shrink", "resubscribe", "topic gone"]), min_size=1, max_size=6
)


def given_to(target: Target) -> set[tuple[uuid.UUID, int]]:
    return {(topic_id, p) for topic_id, partitions in target.items() for p in partitions}


def after(members: dict[str, MemberSpec], found: dict[str, Target]) -> dict[str, MemberSpec]:
    return {member_id: replace(spec, current=found[member_id]) for member_id, spec in members.items()}


def check_complete(cluster: Cluster, members: dict[str, MemberSpec], found: dict[str, Target]) -> None:
    """Every partition of a subscribed topic has exactly one owner, who subscribes to it."""
    assert found.keys() == members.keys()
    owners = Counter(at for target in found.values() for at in given_to(target))
    subscribed = set().union(*(spec.subscribed for spec in members.values()))
    assert owners == Counter({(t, p): 1 for t in subscribed for p in range(cluster.partition_count(t))})
    for member_id, target in found.items():
        assert target.keys() <= members[member_id].subscribed
        assert all(target.values()), "a topic without a partition"


def check_least_squares(members: dict[str, MemberSpec], found: dict[str, Target]) -> None:
    """Nothing can be handed on along any chain of members so that loads become more equal (Bellman-Ford: all pairs)."""
    names = list(members)
    reach = {
        giver: {taker for taker in names if members[taker].subscribed & found[giver].keys()} | {giver}
        for giver in names
    }
    for through, giver in itertools.product(names, names):
        if through in reach[giver]:
            reach[giver] |= reach[through]
    load = {name: len(given_to(found[name])) for name in names}
    for giver in names:
        assert all(load[giver] <= load[taker] + 1 for taker in reach[giver])


@settings(max_examples=300, deadline=None)
@given(any_group)
def test_every_assignor_gives_each_partition_to_one_subscriber(group: tuple[Cluster, dict[str, MemberSpec]]) -> None:
    cluster, members = group
    for assign in ASSIGNORS.values():
        check_complete(cluster, members, assign(members, cluster))


@settings(max_examples=300, deadline=None)
@given(any_group, changes, st.data())
def test_uniform_balances_whatever_was_before_and_settles(
    group: tuple[Cluster, dict[str, MemberSpec]], changes: list[str], data: st.DataObject
) -> None:
    cluster, members = group
    members = after(members, assign_uniform(members, cluster))
    for change in changes:
        match change:
            case "leave" if len(members) > 1:
                del members[data.draw(st.sampled_from(sorted(members)))]
            case "join":
                template = data.draw(st.sampled_from(sorted(members)))
                members[f"n{len(members)}"] = replace(members[template], current={}, instance_id=None)
            case "grow":
                cluster = cluster.grown(2)
            case "shrink":  # a topic that was made again, with fewer partitions
                cluster = cluster.grown(-1)
            case "resubscribe":
                changed = data.draw(st.sampled_from(sorted(members)))
                wanted = data.draw(st.frozensets(st.sampled_from(sorted(cluster.counts))))
                members[changed] = replace(members[changed], subscribed=wanted)
            case "topic gone" if len(cluster.counts) > 1:
                gone = data.draw(st.sampled_from(sorted(cluster.counts)))
                cluster = Cluster({t: n for t, n in cluster.counts.items() if t != gone}, cluster.racks)
                members = {m: replace(s, subscribed=s.subscribed - {gone}) for m, s in members.items()}
        found = assign_uniform(members, cluster)
        check_complete(cluster, members, found)
        check_least_squares(members, found)
        members = after(members, found)
        assert assign_uniform(members, cluster) == found, "an assignment that is as good as can be stays"


@settings(max_examples=300, deadline=None)
@given(groups(is_homogeneous=True), st.integers(0, 3), st.integers(0, 3))
def test_uniform_moves_no_more_than_it_must(
    group: tuple[Cluster, dict[str, MemberSpec]], leave: int, join: int
) -> None:
    """With equal subscriptions: members keep all but what is above their new quota."""
    cluster, members = group
    members = after(members, assign_uniform(members, cluster))
    common = next(iter(members.values())).subscribed
    for member_id in list(members)[: min(leave, len(members) - 1)]:
        del members[member_id]
    for i in range(join):
        members[f"n{i}"] = MemberSpec(subscribed=common)
    found = assign_uniform(members, cluster)
    before = {m: given_to(spec.current) for m, spec in members.items()}
    kept = sum(len(before[m] & given_to(found[m])) for m in members)
    # The most that can be kept: the larger shares go to those who have most.
    quota, extra = divmod(sum(cluster.partition_count(t) for t in common), len(members))
    had = sorted((len(partitions) for partitions in before.values()), reverse=True)
    assert kept == sum(min(n, quota + (i < extra)) for i, n in enumerate(had))


@settings(max_examples=200, deadline=None)
@given(groups(is_homogeneous=False))
def test_uniform_lets_members_be_when_one_comes_that_wants_nothing(
    group: tuple[Cluster, dict[str, MemberSpec]],
) -> None:
    cluster, members = group
    members = after(members, assign_uniform(members, cluster))
    members["idle"] = MemberSpec(subscribed=frozenset())
    found = assign_uniform(members, cluster)
    assert found.pop("idle") == {}
    assert all(found[m] == members[m].current for m in found)


def test_uniform_prefers_the_rack_where_the_replicas_are() -> None:
    topic = TOPICS[0]
    cluster = Cluster({topic: 6}, {(topic, p): frozenset({RACKS[p % 3]}) for p in range(6)})
    members = {f"m{rack}": MemberSpec(subscribed=frozenset({topic}), rack_id=rack) for rack in RACKS}
    assert assign_uniform(members, cluster) == {
        "ma": {topic: frozenset({0, 3})},
        "mb": {topic: frozenset({1, 4})},
        "mc": {topic: frozenset({2, 5})},
    }
    other = TOPICS[1]
    cluster.counts[other] = 3
    members["mx"] = MemberSpec(subscribed=frozenset({other}))
    for member_id, target in assign_uniform(members, cluster).items():
        for at in given_to(target) if member_id != "mx" else ():
            assert members[member_id].rack_id in cluster.racks_of(*at)


@settings(max_examples=200, deadline=None)
@given(any_group)
def test_range_gives_ranges_in_one_order_of_members(group: tuple[Cluster, dict[str, MemberSpec]]) -> None:
    cluster, members = group
    found = assign_range(members, cluster)
    order = sorted(members, key=lambda m: (members[m].instance_id is None, members[m].instance_id or m))
    for topic_id, count in cluster.counts.items():
        takers = [m for m in order if topic_id in members[m].subscribed]
        parts = [sorted(found[m].get(topic_id, ())) for m in takers]
        if takers:
            assert list(itertools.chain(*parts)) == list(range(count))
            sizes = [len(p) for p in parts]
            assert sizes == sorted(sizes, reverse=True)
            assert sizes[0] - sizes[-1] <= 1


def test_range_keeps_equal_keys_of_two_topics_together() -> None:
    cluster = Cluster({TOPICS[0]: 5, TOPICS[1]: 5})
    members = {f"m{i}": MemberSpec(subscribed=frozenset(TOPICS[:2])) for i in range(3)}
    for target in assign_range(members, cluster).values():
        assert target[TOPICS[0]] == target[TOPICS[1]]
