"""The uniform assignor: members have as equal numbers of partitions as subscriptions allow, and keep what they can.

Balance comes first, then stickiness, then racks: a partition that must find a new member goes, among those with room,
to one in a rack of its replicas. With equal subscriptions the numbers differ by one at most. With different ones no
partition can be handed on, from member to member along any chain of subscriptions, so that the first of the chain
still has as many as the last: that is the least sum of squares there is (a semi-matching without a cost-reducing path,
Harvey et al. 2006).

Kafka's `UniformAssignor` has the same first two aims; since 4.0 it does not look at racks, and with different
subscriptions it settles for what single moves reach.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from ottla.coordinator.group.assignors.model import MemberSpec, Target, TopicDescriber

Partition: TypeAlias = tuple[int, int]
"""The place of a topic in `_Subscribed`, and the number of the partition."""

NEAR_CANDIDATES: Final = 16
"""Among how many members with equally few partitions one in the right rack is looked for."""


class _Subscribed:
    """All topics that anybody subscribes to, by their place in the order of their ids.

    Partitions are looked up by the thousand, and the hash of a UUID costs more than all else that is done with one.
    """

    def __init__(self, members: Mapping[str, MemberSpec], topics: TopicDescriber) -> None:
        distinct = {id(spec.subscribed): spec.subscribed for spec in members.values()}
        self.ids = sorted(set().union(*distinct.values()))
        self.counts = [topics.partition_count(topic_id) for topic_id in self.ids]
        """Partitions of each topic."""
        self.are_equal = len(set(distinct.values())) == 1
        """Whether all members subscribe to the same."""
        self._topics = topics
        self.place_of = {topic_id: place for place, topic_id in enumerate(self.ids)}
        self._places = {
            key: frozenset(self.place_of[topic_id] for topic_id in subscribed) for key, subscribed in distinct.items()
        }

    def places(self, spec: MemberSpec) -> frozenset[int]:
        """The topics of one member."""
        return self._places[id(spec.subscribed)]

    def racks_of(self, at: Partition) -> frozenset[str]:
        return self._topics.racks_of(self.ids[at[0]], at[1])

    def as_target(self, partitions: Iterable[Partition]) -> Target:
        found: dict[int, list[int]] = {}
        for place, partition in partitions:
            found.setdefault(place, []).append(partition)
        return {self.ids[place]: frozenset(numbers) for place, numbers in found.items()}


def assign_uniform(members: Mapping[str, MemberSpec], topics: TopicDescriber) -> dict[str, Target]:
    """Give all partitions of the subscribed topics to their subscribers."""
    if not members:
        return {}
    subscribed = _Subscribed(members, topics)
    owned, free = _keep(members, subscribed)
    if subscribed.are_equal:
        _fill_equally(members, subscribed, owned, free)
    else:
        _fill_by_subscription(members, subscribed, owned, free)
    return {member_id: subscribed.as_target(partitions) for member_id, partitions in owned.items()}


def _keep(
    members: Mapping[str, MemberSpec], topics: _Subscribed
) -> tuple[dict[str, dict[Partition, None]], list[Partition]]:
    """What members have and may keep, in a stable order, and what is left, topic by topic."""
    owned: dict[str, dict[Partition, None]] = {}
    taken: set[Partition] = set()
    for member_id, spec in members.items():
        mine = owned[member_id] = {}
        places = topics.places(spec)
        for topic_id, partitions in spec.current.items():
            place = topics.place_of.get(topic_id)
            if place is None or place not in places:
                continue
            count = topics.counts[place]
            for partition in sorted(partitions):
                at = (place, partition)
                if partition < count and at not in taken:
                    taken.add(at)
                    mine[at] = None
    free = [
        at
        for place, count in enumerate(topics.counts)
        for at in zip(itertools.repeat(place), range(count), strict=False)
        if at not in taken
    ]
    return owned, free


def _fill_equally(
    members: Mapping[str, MemberSpec],
    topics: _Subscribed,
    owned: dict[str, dict[Partition, None]],
    free: list[Partition],
) -> None:
    """All subscribe to the same: everybody gets the quota, and those who have most get the extra ones."""
    quota, extra = divmod(len(free) + sum(map(len, owned.values())), len(members))
    room: dict[str, int] = {}
    for i, member_id in enumerate(sorted(members, key=lambda m: -len(owned[m]))):
        mine = owned[member_id]
        allowed = quota + (i < extra)
        while len(mine) > allowed:
            free.append(mine.popitem()[0])
        if len(mine) < allowed:
            room[member_id] = allowed - len(mine)

    def give(member_id: str, at: Partition) -> None:
        owned[member_id][at] = None
        room[member_id] -= 1
        if not room[member_id]:
            del room[member_id]

    by_rack: dict[str, list[str]] = {}
    for member_id in room:
        rack = members[member_id].rack_id
        if rack is not None:
            by_rack.setdefault(rack, []).append(member_id)
    far: list[Partition] = []
    for at in free:
        near = None
        if by_rack:
            candidates = [m for rack in topics.racks_of(at) for m in by_rack.get(rack, ()) if m in room]
            near = max(candidates, key=lambda m: (room[m], m), default=None)
        if near is None:
            far.append(at)
        else:
            give(near, at)
    for at in far:
        give(next(iter(room)), at)


def _fill_by_subscription(
    members: Mapping[str, MemberSpec],
    topics: _Subscribed,
    owned: dict[str, dict[Partition, None]],
    free: list[Partition],
) -> None:
    subscribers: dict[int, list[str]] = {}
    for member_id, spec in members.items():
        for place in topics.places(spec):
            subscribers.setdefault(place, []).append(member_id)
    # Topics with few subscribers first: the others' partitions can still be put where room is left.
    free.sort(key=lambda at: (len(subscribers[at[0]]), at))
    for place, partitions in itertools.groupby(free, key=lambda at: at[0]):
        heap = [(len(owned[m]), i, m) for i, m in enumerate(subscribers[place])]
        heapq.heapify(heap)
        for at in partitions:
            load, i, taker = _pop_near(heap, members, topics.racks_of(at))
            owned[taker][at] = None
            heapq.heappush(heap, (load + 1, i, taker))
    changed = True
    while changed:
        changed = False
        least = min(map(len, owned.values()))
        for member_id in sorted(members, key=lambda m: -len(owned[m])):
            while len(owned[member_id]) > least + 1 and _hand_on(member_id, subscribers, owned):
                changed = True


def _pop_near(
    heap: list[tuple[int, int, str]], members: Mapping[str, MemberSpec], racks: frozenset[str]
) -> tuple[int, int, str]:
    """Take one of the members with the least; of the first few of these, one in `racks` if there is one."""
    candidates = [heapq.heappop(heap)]
    if not racks:
        return candidates[0]
    while heap and heap[0][0] == candidates[0][0] and len(candidates) < NEAR_CANDIDATES:
        candidates.append(heapq.heappop(heap))
    chosen = next((c for c in candidates if members[c[2]].rack_id in racks), candidates[0])
    for candidate in candidates:
        if candidate is not chosen:
            heapq.heappush(heap, candidate)
    return chosen


def _hand_on(
    first: str,
    subscribers: Mapping[int, list[str]],
    owned: dict[str, dict[Partition, None]],
) -> bool:
    """Find the shortest chain from `first` to a member with at least two fewer, and pass one partition along it."""
    limit = len(owned[first]) - 2
    came_by: dict[str, tuple[str, Partition]] = {}
    seen_topics: set[int] = set()
    queue = deque([first])
    while queue:
        giver = queue.popleft()
        for at in owned[giver]:
            if at[0] in seen_topics:
                continue
            seen_topics.add(at[0])
            for taker in subscribers[at[0]]:
                if taker == first or taker in came_by:
                    continue
                came_by[taker] = (giver, at)
                if len(owned[taker]) <= limit:
                    while taker != first:
                        giver, at = came_by[taker]
                        del owned[giver][at]
                        owned[taker][at] = None
                        taker = giver
                    return True
                queue.append(taker)
    return False
