"""OffsetCommit, OffsetFetch and OffsetDelete."""

from __future__ import annotations

import uuid
from typing import Any

from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.probes.groups import Member, stable


def commit(
    lab: Lab,
    group: str,
    topic: str,
    *offsets: int,
    version: int = 9,
    metadata: str | None = "note",
    topic_id: uuid.UUID | None = None,
    epoch: int = -1,
    **fields: Any,
) -> Answer:
    """Commit `offsets` for partitions 0, 1, ... of one topic."""
    partitions = tuple(
        OffsetCommitRequestPartition(
            partition_index=index, committed_offset=offset, committed_metadata=metadata, committed_leader_epoch=epoch
        )
        for index, offset in enumerate(offsets)
    )
    if version >= 10:
        entry = OffsetCommitRequestTopic(topic_id=topic_id or lab.topic_id(topic), partitions=partitions)
    else:
        entry = OffsetCommitRequestTopic(name=topic, partitions=partitions)
    request = OffsetCommitRequest(group_id=group, topics=(entry,), **fields)
    return lab.ask(ApiKey.OFFSET_COMMIT, request, version=version)


def fetch(
    lab: Lab,
    group: str,
    topic: str | None,
    *partitions: int,
    version: int = 9,
    member: tuple[str | None, int] = (None, -1),
) -> Answer:
    """Fetch offsets of one topic's partitions, or of all topics (`topic` None)."""
    if version >= 8:
        name = {"topic_id": lab.topic_id(topic)} if version >= 10 and topic else {"name": topic or ""}
        topics = None if topic is None else (OffsetFetchRequestTopics(partition_indexes=partitions, **name),)
        wanted = OffsetFetchRequestGroup(group_id=group, topics=topics, member_id=member[0], member_epoch=member[1])
        request = OffsetFetchRequest(groups=(wanted,))
    else:
        single = None if topic is None else (OffsetFetchRequestTopic(name=topic, partition_indexes=partitions),)
        request = OffsetFetchRequest(group_id=group, topics=single)
    return lab.ask(ApiKey.OFFSET_FETCH, request, version=version)


@probe(each=versions(ApiKey.OFFSET_COMMIT))
def simple_commit(lab: Lab, version: int) -> Answer:
    """Of a consumer that is no member of the group."""
    topic = lab.topic("committed", partitions=2)
    group = lab.name(f"simple-{version}")
    epoch = 3 if version >= 6 else -1
    return {
        "good": commit(lab, group, topic, 5, 7, version=version, epoch=epoch),
        "read": fetch(lab, group, topic, 0, 1),
        "null metadata": commit(lab, group, topic, 6, version=version, metadata=None),
        "long metadata": commit(lab, group, topic, 8, version=version, metadata="x" * 4096),
        "longer metadata": commit(lab, group, topic, 9, version=version, metadata="x" * 4097),
        "negative": commit(lab, group, topic, -1, version=version),
        "very negative": commit(lab, group, topic, -5, version=version),
        "beyond the log": commit(lab, group, topic, 2**62, version=version),
        "unknown partition": commit(lab, group, topic, 1, 2, 3, version=version),
        "generation 0": commit(lab, group, topic, 1, version=version, generation_id_or_member_epoch=0),
        "generation 5": commit(lab, group, topic, 1, version=version, generation_id_or_member_epoch=5),
        "member": commit(lab, group, topic, 1, version=version, member_id="nobody"),
        "empty group id": commit(lab, "", topic, 1, version=version),
        "read at the end": [
            {**part, "metadata": len(part.get("metadata") or "")}
            for part in fetch(lab, group, topic, 0, 1)["groups"][0]["topics"][0]["partitions"]
        ],
    }


@probe(each=[2, 9])
def commit_of_an_unknown_topic(lab: Lab, version: int) -> Answer:
    return commit(lab, lab.name("unknown-topic"), lab.name("absent"), 1, version=version)


@probe()
def commit_of_an_unknown_topic_id(lab: Lab) -> Answer:
    topic = lab.topic("committed", partitions=2)
    group = lab.name("unknown-id")
    unknown = uuid.UUID(int=0x33 << 64)
    return [
        commit(lab, group, topic, 1, version=10, topic_id=unknown),
        lab.ask(ApiKey.OFFSET_FETCH, _by_unknown_id(group, unknown), version=10),
    ]


def _by_unknown_id(group: str, topic_id: uuid.UUID) -> OffsetFetchRequest:
    topics = (OffsetFetchRequestTopics(topic_id=topic_id, partition_indexes=(0,)),)
    return OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id=group, topics=topics),))


@probe(each=[2, 9, 10])
def commit_of_a_member(lab: Lab, version: int) -> Answer:
    topic = lab.topic("committed", partitions=2)
    member = stable(lab, f"member-{version}")
    group = member.group

    def ask(generation_id: int, member_id: str, **fields: Any) -> Answer:
        fields |= {"generation_id_or_member_epoch": generation_id, "member_id": member_id}
        return commit(lab, group, topic, 11, version=version, **fields)

    told = {
        "good": ask(member.generation_id, member.member_id),
        "old generation": ask(member.generation_id - 1, member.member_id),
        "future generation": ask(member.generation_id + 1, member.member_id),
        "stranger": ask(member.generation_id, "nobody"),
        "no member": ask(-1, ""),
        "member without generation": ask(-1, member.member_id),
    }
    if version >= 7:
        told["instance"] = ask(member.generation_id, member.member_id, group_instance_id="nobody")
    second = Member(lab, group)
    second.start_join()
    second.finish()
    second.start_join()
    member.await_rebalance()
    told["rebalancing"] = ask(member.generation_id, member.member_id)
    member.join()
    second.finish()
    told["before the sync"] = ask(member.generation_id, member.member_id)
    second.leave()
    member.leave()
    told["after leaving"] = ask(member.generation_id, member.member_id)
    told["simple, after leaving"] = ask(-1, "")
    return told


@probe(each=versions(ApiKey.OFFSET_FETCH))
def fetch_offsets(lab: Lab, version: int) -> Answer:
    topic = lab.topic("committed", partitions=2)
    group = lab.name(f"fetched-{version}")
    commit(lab, group, topic, 5, epoch=2)
    commit(lab, "", topic, 1)
    told = {
        "both": fetch(lab, group, topic, 0, 1, version=version),
        "unknown partition": fetch(lab, group, topic, 9, version=version),
        "no partitions": fetch(lab, group, topic, version=version),
        "unknown group": fetch(lab, lab.name("no-such-group"), topic, 0, version=version),
        "empty group id": fetch(lab, "", topic, 0, version=version),
        "partition twice": fetch(lab, group, topic, 0, 0, version=version),
    }
    if version <= 9:
        told["unknown topic"] = fetch(lab, group, lab.name("absent"), 0, version=version)
    if version >= 2:
        told["all"] = fetch(lab, group, None, version=version)
        told["all of an unknown group"] = fetch(lab, lab.name("no-such-group"), None, version=version)
    if version >= 9:
        told["as a stranger"] = fetch(lab, group, topic, 0, version=version, member=("nobody", 3))
    return told


@probe(each=[8, 10])
def fetch_for_several_groups(lab: Lab, version: int) -> Answer:
    topic = lab.topic("committed", partitions=2)
    name = {"topic_id": lab.topic_id(topic)} if version >= 10 else {"name": topic}
    first, second = lab.name(f"several-1-{version}"), lab.name(f"several-2-{version}")
    for group, offset in ((first, 1), (second, 2), ("", 1)):
        commit(lab, group, topic, offset)
    topics = (OffsetFetchRequestTopics(partition_indexes=(0,), **name),)
    groups = tuple(OffsetFetchRequestGroup(group_id=group, topics=topics) for group in (first, second, "", first))
    return [
        lab.ask(ApiKey.OFFSET_FETCH, OffsetFetchRequest(groups=groups), version=version),
        lab.ask(ApiKey.OFFSET_FETCH, OffsetFetchRequest(), version=version),
        lab.ask(ApiKey.OFFSET_FETCH, OffsetFetchRequest(groups=groups[:1], require_stable=True), version=version),
    ]


@probe()
def delete_offsets(lab: Lab) -> Answer:
    topic, other = lab.topic("committed", partitions=2), lab.topic("other", partitions=1)
    group = lab.name("deleted-offsets")
    commit(lab, group, topic, 5, 6)

    def delete(name: str, *partitions: int, of: str = group) -> Answer:
        indexes = tuple(OffsetDeleteRequestPartition(partition_index=index) for index in partitions)
        request = OffsetDeleteRequest(group_id=of, topics=(OffsetDeleteRequestTopic(name=name, partitions=indexes),))
        return lab.ask(ApiKey.OFFSET_DELETE, request)

    told = {
        "good": delete(topic, 0),
        "again": delete(topic, 0),
        "unknown partition": delete(topic, 9),
        "never committed": delete(other, 0),
        "unknown topic": delete(lab.name("absent"), 0),
        "unknown group": delete(topic, 0, of=lab.name("no-such-group")),
        "left": fetch(lab, group, None),
    }
    member = stable(lab, "deleted-offsets-of-members", topic)
    commit(lab, member.group, topic, 5, generation_id_or_member_epoch=member.generation_id, member_id=member.member_id)
    told["subscribed"] = delete(topic, 0, of=member.group)
    told["not subscribed"] = delete(other, 0, of=member.group)
    member.leave()
    told["members have left"] = delete(topic, 0, of=member.group)
    return told


@probe()
def offsets_of_a_deleted_group_and_topic(lab: Lab) -> Answer:
    from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
    from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

    topic, doomed = lab.topic("committed", partitions=2), lab.topic("doomed-committed")
    group = lab.name("doomed-group")
    commit(lab, group, topic, 5)
    commit(lab, group, doomed, 7)
    request = DeleteTopicsRequest(topics=(DeleteTopicState(name=doomed),), timeout_ms=5000)
    lab.call(ApiKey.DELETE_TOPICS, request)
    lab.settle()
    told = [fetch(lab, group, None)]
    told += [lab.ask(ApiKey.DELETE_GROUPS, DeleteGroupsRequest(groups_names=(group,)))]
    return [*told, fetch(lab, group, None), fetch(lab, group, topic, 0)]
