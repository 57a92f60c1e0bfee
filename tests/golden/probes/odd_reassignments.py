"""Each field wrong in turn: replicas that shall move, on a cluster of one broker."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from ottla.protocol.messages.list_partition_reassignments import ListPartitionReassignmentsRequest
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.odd import odd
from tests.golden.probes.topics import node_id

SOON = ("timeout_ms 1", "timeout_ms 7")


@odd(ApiKey.ALTER_PARTITION_REASSIGNMENTS, leave_out=SOON)
def reassignment(lab: Lab, _name: str) -> Any:
    partition = ReassignablePartition(partition_index=0, replicas=(node_id(lab),))
    topic = ReassignableTopic(name=lab.topic("odd-moved", partitions=2), partitions=(partition,))
    return AlterPartitionReassignmentsRequest(topics=(topic,), timeout_ms=10_000)


@odd(ApiKey.ALTER_PARTITION_REASSIGNMENTS, stem="-cancelled", leave_out=SOON)
def cancellation(lab: Lab, _name: str) -> Any:
    partition = ReassignablePartition(partition_index=0, replicas=None)
    topic = ReassignableTopic(name=lab.topic("odd-moved", partitions=2), partitions=(partition,))
    return AlterPartitionReassignmentsRequest(topics=(topic,), timeout_ms=10_000)


@probe(each=versions(ApiKey.ALTER_PARTITION_REASSIGNMENTS))
def reassignments_of_several_entries(lab: Lab, version: int) -> Answer:
    topic, own = lab.topic("odd-moved", partitions=2), node_id(lab)

    def ask(*entries: tuple[str, tuple[tuple[int, tuple[int, ...] | None], ...]], **fields: Any) -> Answer:
        topics = tuple(
            ReassignableTopic(
                name=name,
                partitions=tuple(ReassignablePartition(partition_index=i, replicas=r) for i, r in partitions),
            )
            for name, partitions in entries
        )
        request = AlterPartitionReassignmentsRequest(topics=topics, timeout_ms=10_000, **fields)
        return lab.ask(ApiKey.ALTER_PARTITION_REASSIGNMENTS, request, version=version)

    told = {
        "both partitions": ask((topic, ((0, (own,)), (1, (own,))))),
        "one of them unknown": ask((topic, ((0, (own,)), (7, (own,))))),
        "two entries": ask((topic, ((0, (own,)),)), (topic, ((1, (own,)),))),
        "partition twice": ask((topic, ((0, (own,)), (0, (own + 5,))))),
        "unknown broker": ask((topic, ((0, (own + 5,)), (1, (own, own + 5))))),
        "broker twice": ask((topic, ((0, (own, own)),))),
        "broker twice and unknown": ask((topic, ((0, (own + 5, own + 5)),))),
        "nobody": ask((topic, ((0, ()),))),
        "unknown topic and broker": ask((lab.name("absent"), ((0, (own + 5,)),))),
        "illegal topic": ask(("a b", ((0, (own,)), (1, None)))),
        "internal": ask(("__consumer_offsets", ((0, (own,)),))),
    }
    if version >= 1:
        told["factor must stay"] = ask((topic, ((0, (own,)),)), allow_replication_factor_change=False)
        told["factor must stay, unknown"] = ask((topic, ((0, (own, own + 5)),)), allow_replication_factor_change=False)
    ongoing = ListPartitionReassignmentsRequest(topics=None)
    return told | {"ongoing": lab.ask(ApiKey.LIST_PARTITION_REASSIGNMENTS, ongoing)}
