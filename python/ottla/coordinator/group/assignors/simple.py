"""The simple assignor of share groups: every partition to at least one member, and to as many as it takes that each
member has one.

Where there are more members than partitions, partitions are shared; otherwise each has one member. Members keep what
they have as far as that is even. With differing subscriptions each topic is spread by itself.

Source: Kafka's `SimpleAssignor`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from ottla.coordinator.group.assignors.model import MemberSpec, Target

_Partition = tuple[uuid.UUID, int]


def assign_simple(
    members: Mapping[str, MemberSpec], assignable: Mapping[uuid.UUID, Collection[int]]
) -> dict[str, Target]:
    """Spread partitions over the members that subscribe to their topics.

    Args:
        assignable: The partitions that may be given out, by topic id.
    """
    subscriptions = {member.subscribed for member in members.values()}
    topics = sorted(frozenset().union(*subscriptions) & assignable.keys())
    whole = [(topic_id, p) for topic_id in topics for p in sorted(assignable[topic_id])]
    found: dict[str, set[_Partition]] = {member_id: set() for member_id in members}
    if len(subscriptions) == 1:
        _spread(sorted(members), whole, members, found)
    else:
        for topic_id in topics:
            subscribers = sorted(member_id for member_id, member in members.items() if topic_id in member.subscribed)
            _spread(subscribers, [at for at in whole if at[0] == topic_id], members, found)
    return {member_id: _target(partitions) for member_id, partitions in found.items()}


def _spread(
    member_ids: Sequence[str],
    partitions: Sequence[_Partition],
    members: Mapping[str, MemberSpec],
    found: dict[str, set[_Partition]],
) -> None:
    if not partitions:
        return
    sharing = -(-len(member_ids) // len(partitions))
    """How many members a partition has."""
    places = sharing * len(partitions)
    ends = [-(-places * (i + 1) // len(member_ids)) for i in range(len(member_ids))]
    quotas = {member_id: end - start for member_id, start, end in zip(member_ids, [0, *ends], ends, strict=False)}
    had = {member_id: [at for at in partitions if _has(members[member_id], at)] for member_id in member_ids}
    given = {member_id: set[_Partition]() for member_id in member_ids}
    count: Counter[_Partition] = Counter()
    for member_id in member_ids:
        for at in had[member_id]:
            if len(given[member_id]) < quotas[member_id] and count[at] < sharing:
                given[member_id].add(at)
                count[at] += 1
    open_ids = [member_id for member_id in member_ids if len(given[member_id]) < quotas[member_id]]
    for at in partitions:
        skipped: list[str] = []
        while count[at] < sharing and open_ids:
            member_id = open_ids.pop(0)
            if at in given[member_id]:
                skipped.append(member_id)
                continue
            given[member_id].add(at)
            count[at] += 1
            if len(given[member_id]) < quotas[member_id]:
                open_ids.append(member_id)
        open_ids = skipped + open_ids
    for member_id, more in given.items():
        found[member_id] |= more


def _has(member: MemberSpec, at: _Partition) -> bool:
    return at[1] in member.current.get(at[0], ())


def _target(partitions: Collection[_Partition]) -> Target:
    found: dict[uuid.UUID, set[int]] = {}
    for topic_id, partition in partitions:
        found.setdefault(topic_id, set()).add(partition)
    return {topic_id: frozenset(numbers) for topic_id, numbers in found.items()}
