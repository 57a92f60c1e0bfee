"""Each field wrong in turn: committed offsets, in transactions or without."""

from __future__ import annotations

from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
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
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.odd import UNKNOWN_ID, odd
from tests.golden.probes.commits import commit
from tests.golden.probes.groups import stable
from tests.golden.probes.odd_groups import stem_of
from tests.golden.probes.transactional_writes import Transactional

OTHERS = [f"producer_id {number}" for number in (0, 1, 7)]
"""Ids that some producer of the cluster may have."""


def committed_topic(lab: Lab) -> str:
    return lab.topic("odd-committed", partitions=2)


def commit_request(lab: Lab, group: str, **fields: Any) -> OffsetCommitRequest:
    name = committed_topic(lab)
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=5, committed_metadata="note")
    topic = OffsetCommitRequestTopic(name=name, topic_id=lab.topic_id(name), partitions=(partition,))
    return OffsetCommitRequest(group_id=group, topics=(topic,), **fields)


def commit_for(lab: Lab, *groups: str) -> None:
    for group in groups:
        commit(lab, group, committed_topic(lab), 5)


@odd(ApiKey.OFFSET_COMMIT)
def simple_commit(lab: Lab, name: str) -> Any:
    return commit_request(lab, name)


@odd(ApiKey.OFFSET_COMMIT, stem="-of-a-member")
def commit_of_a_member(lab: Lab, name: str) -> Any:
    commit_for(lab, "")  # so that there is such a group
    member = stable(lab, stem_of(lab, name), committed_topic(lab))
    return commit_request(lab, name, member_id=member.member_id, generation_id_or_member_epoch=member.generation_id)


@probe(each=versions(ApiKey.OFFSET_COMMIT))
def commits_of_several_entries(lab: Lab, version: int) -> Answer:
    name, other = committed_topic(lab), lab.topic("odd-committed-too")
    group = lab.name(f"odd-several-{version}")

    def ask(*entries: tuple[str | None, tuple[int, ...]], **fields: Any) -> Answer:
        topics = tuple(
            OffsetCommitRequestTopic(
                name=topic or "a b",
                topic_id=lab.topic_id(topic) if topic and not topic.startswith("absent") else UNKNOWN_ID,
                partitions=tuple(
                    OffsetCommitRequestPartition(partition_index=i, committed_offset=5) for i in partitions
                ),
            )
            for topic, partitions in entries
        )
        request = OffsetCommitRequest(group_id=group, topics=topics, **fields)
        return lab.ask(ApiKey.OFFSET_COMMIT, request, version=version)

    told = {
        "two entries": ask((name, (0,)), (name, (1,))),
        "repeated": ask((name, (0, 0)), (name, (0,))),
        "with an unknown partition": ask((name, (0, 7, 1)), (other, (0,))),
        "with unknown topics": ask((lab.name("absent"), (0, 1)), (name, (0,)), (None, (0,))),
        "some empty": ask((name, ()), (other, (0,)), (lab.name("absent"), ())),
        "only unknown, of a stranger": ask((lab.name("absent"), (0,)), member_id="nobody"),
        "unknown too, of a stranger": ask((lab.name("absent"), (0,)), (name, (0,)), member_id="nobody"),
    }
    if version >= 7:
        told["instance"] = ask((name, (0,)), group_instance_id="i")
    return told


@odd(ApiKey.OFFSET_FETCH, most=7)
def fetched_offsets(lab: Lab, name: str) -> Any:
    commit_for(lab, name, "")
    topic = OffsetFetchRequestTopic(name=committed_topic(lab), partition_indexes=(0,))
    return OffsetFetchRequest(group_id=name, topics=(topic,))


@odd(ApiKey.OFFSET_FETCH, stem="-batched", least=8)
def fetched_offsets_of_groups(lab: Lab, name: str) -> Any:
    topic = committed_topic(lab)
    commit_for(lab, name, "")
    wanted = OffsetFetchRequestTopics(name=topic, topic_id=lab.topic_id(topic), partition_indexes=(0,))
    return OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id=name, topics=(wanted,)),))


@probe(each=versions(ApiKey.OFFSET_FETCH, least=1))
def fetches_of_several_entries(lab: Lab, version: int) -> Answer:
    topic = committed_topic(lab)
    group = lab.name(f"odd-fetches-{version}")
    commit(lab, group, topic, 5, 6)

    def ask(*entries: tuple[str, tuple[int, ...]], of: str = group) -> Answer:
        if version < 8:
            topics = tuple(OffsetFetchRequestTopic(name=name, partition_indexes=p) for name, p in entries)
            return lab.ask(ApiKey.OFFSET_FETCH, OffsetFetchRequest(group_id=of, topics=topics), version=version)
        wanted = tuple(
            OffsetFetchRequestTopics(
                name=name, topic_id=lab.topic_id(name) if name == topic else UNKNOWN_ID, partition_indexes=p
            )
            for name, p in entries
        )
        groups = (OffsetFetchRequestGroup(group_id=of, topics=wanted),)
        return lab.ask(ApiKey.OFFSET_FETCH, OffsetFetchRequest(groups=groups), version=version)

    return [
        ask((topic, (0,)), (topic, (1,))),
        ask((topic, (0, 0, 9, -1)), (topic, ())),
        ask(("a b", (0,)), (lab.name("absent"), (0, 1)), (topic, (1,))),
        ask((topic, (0,)), (topic, ()), of=lab.name("no-such-group")),
    ]


@odd(ApiKey.OFFSET_DELETE)
def deleted_offsets(lab: Lab, name: str) -> Any:
    topic = committed_topic(lab)
    commit(lab, name, topic, 5)
    partition = OffsetDeleteRequestPartition(partition_index=0)
    return OffsetDeleteRequest(group_id=name, topics=(OffsetDeleteRequestTopic(name=topic, partitions=(partition,)),))


@probe()
def deleted_offsets_of_several_entries(lab: Lab) -> Answer:
    topic = committed_topic(lab)
    group = lab.name("odd-deletes")
    commit(lab, group, topic, 5, 6)

    def ask(*entries: tuple[str, tuple[int, ...]], of: str = group) -> Answer:
        topics = tuple(
            OffsetDeleteRequestTopic(
                name=name, partitions=tuple(OffsetDeleteRequestPartition(partition_index=i) for i in partitions)
            )
            for name, partitions in entries
        )
        return lab.ask(ApiKey.OFFSET_DELETE, OffsetDeleteRequest(group_id=of, topics=topics))

    return [
        ask((topic, (0,)), (topic, (1,))),
        ask((topic, (0, 0, 9, -1)), (topic, ())),
        ask(("a b", (0,)), (lab.name("absent"), (0, 1)), (topic, (1,)), ("", (0,))),
        ask(("a b", (0,)), of=lab.name("no-such-group")),
        ask((topic, (0,)), of=""),
        ask((lab.name("absent"), ()), (topic, (1,)), (lab.name("absent"), ())),
        ask(of=lab.name("no-such-group")),
        ask(),
    ]


@odd(ApiKey.TXN_OFFSET_COMMIT, leave_out=OTHERS)
def transactional_commit(lab: Lab, name: str) -> Any:
    """Of a producer without a transaction: some versions add the offsets to one."""
    producer = Transactional(lab, name).init()
    topic = TxnOffsetCommitRequestTopic(
        name=committed_topic(lab),
        partitions=(TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=5, committed_metadata="note"),),
    )
    return TxnOffsetCommitRequest(
        transactional_id=name,
        group_id=name,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        topics=(topic,),
    )


@odd(ApiKey.TXN_OFFSET_COMMIT, stem="-added", least=3, leave_out=[*OTHERS, "group_id illegal", "group_id long"])
def transactional_commit_of_a_member(lab: Lab, name: str) -> Any:
    """Of a producer that has added the group's offsets, and by chance those of some other groups."""
    member = stable(lab, stem_of(lab, name), committed_topic(lab))
    producer = Transactional(lab, name).init()
    add = AddOffsetsToTxnRequest(
        transactional_id=name, producer_id=producer.producer_id, producer_epoch=producer.epoch, group_id=name
    )
    assert lab.call(ApiKey.ADD_OFFSETS_TO_TXN, add, version=3).error_code is ErrorCode.NONE
    topic = TxnOffsetCommitRequestTopic(
        name=committed_topic(lab),
        partitions=(TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=5, committed_metadata="note"),),
    )
    return TxnOffsetCommitRequest(
        transactional_id=name,
        group_id=name,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        generation_id=member.generation_id,
        member_id=member.member_id,
        topics=(topic,),
    )


@probe(each=versions(ApiKey.TXN_OFFSET_COMMIT))
def transactional_commits_of_several_entries(lab: Lab, version: int) -> Answer:
    """Each refused as a whole: the producer is in no transaction, or nobody's."""
    topic, absent = committed_topic(lab), lab.name("absent")

    def ask(*entries: tuple[str, tuple[int, ...]]) -> Answer:
        topics = tuple(
            TxnOffsetCommitRequestTopic(
                name=name,
                partitions=tuple(
                    TxnOffsetCommitRequestPartition(partition_index=i, committed_offset=5) for i in partitions
                ),
            )
            for name, partitions in entries
        )
        name = lab.name(f"odd-in-transaction-{version}")
        request = TxnOffsetCommitRequest(
            transactional_id=name, group_id=name, producer_id=987_654_321, producer_epoch=0, topics=topics
        )
        return lab.ask(ApiKey.TXN_OFFSET_COMMIT, request, version=version)

    return [
        ask((topic, (0,)), (topic, (1,)), (topic, ())),
        ask((topic, (0, 9)), (topic, (1, 1)), (absent, (0,))),
        ask((absent, ()), (absent, (0,)), ("a b", ())),
        ask((absent, ()), (topic, (0,)), (topic, ()), (topic, (0,))),
    ]
