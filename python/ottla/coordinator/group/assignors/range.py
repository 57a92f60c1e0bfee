"""The range assignor: each topic's partitions in ranges, in the same order of members for every topic.

Members with the same subscriptions get the same numbers of all topics that have as many partitions, so that records
with one key in two topics meet in one member. Balance is a topic's alone, and nothing is done to keep partitions where
they are but the order of members: static ones first, by instance id, so that a restart changes nothing.

Source: Kafka's `RangeAssignor` (of 4.0 and later, in which racks play no part).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from ottla.coordinator.group.assignors.model import MemberSpec, Target, TopicDescriber


def assign_range(members: Mapping[str, MemberSpec], topics: TopicDescriber) -> dict[str, Target]:
    """Give each subscribed topic's partitions to its subscribers."""

    def order(member_id: str) -> tuple[bool, str]:
        instance_id = members[member_id].instance_id
        return instance_id is None, member_id if instance_id is None else instance_id

    subscribers: dict[uuid.UUID, list[str]] = {}
    for member_id in sorted(members, key=order):
        for topic_id in members[member_id].subscribed:
            subscribers.setdefault(topic_id, []).append(member_id)
    found: dict[str, dict[uuid.UUID, frozenset[int]]] = {member_id: {} for member_id in members}
    for topic_id, member_ids in subscribers.items():
        quota, extra = divmod(topics.partition_count(topic_id), len(member_ids))
        start = 0
        for i, member_id in enumerate(member_ids):
            end = start + quota + (i < extra)
            if start < end:
                found[member_id][topic_id] = frozenset(range(start, end))
            start = end
    return dict(found)
