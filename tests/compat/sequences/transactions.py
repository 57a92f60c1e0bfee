"""Two transactional ids on two partitions and in a group: begun, written, ended, fenced, by themselves and others."""

from __future__ import annotations

from random import Random
from typing import Any

from ottla._native import build_batch
from ottla.errors import ErrorCode
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from ottla.protocol.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.protocol.versions import ApiKey
from tests.compat.sequences import Step
from tests.golden.batch import T0_MS, summary_of_batches
from tests.golden.lab import Answer, Lab
from tests.golden.lab import versions as versions_of
from tests.golden.probes.transactions import Client

UNKNOWN_ID = 10_000_000
"""No broker gives out as many producer ids here."""
SEQUENCE_MAX = 2**31 - 2


class World:
    """One side."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.topic = lab.topic("written", partitions=2)
        self.topic_id = lab.topic_id(self.topic)
        self.group = lab.name("group")
        self.transactional_ids = [Client(lab, f"tx-{number}").transactional_id for number in range(2)]
        self._producer_ids: list[int] = []
        """By the order of their appearance, which is the same on both sides."""

    def settle(self) -> bool:
        try:
            for transactional_id in self.transactional_ids:
                self.lab.wait_for_markers(transactional_id)
        except AssertionError:
            return False
        return True

    def _number(self, producer_id: int) -> int:
        if producer_id < 0:
            return producer_id
        if producer_id not in self._producer_ids:
            self._producer_ids.append(producer_id)
        return self._producer_ids.index(producer_id)

    def _id(self, number: int) -> int:
        return self._producer_ids[number] if 0 <= number < len(self._producer_ids) else number

    def init(self, who: int | None, producer: int, epoch: int, version: int) -> Answer:
        request = InitProducerIdRequest(
            transactional_id=None if who is None else self.transactional_ids[who],
            transaction_timeout_ms=60_000,
            producer_id=self._id(producer),
            producer_epoch=epoch,
        )
        answer = self.lab.call(ApiKey.INIT_PRODUCER_ID, request, version=version)
        return [answer.error_code.name, self._number(answer.producer_id), answer.producer_epoch]

    def add(
        self, who: int, producer: int, epoch: int, partitions: tuple[int, ...], version: int, verify_only: bool
    ) -> Answer:
        topics = (AddPartitionsToTxnTopic(name=self.topic, partitions=partitions),)
        named = (self.transactional_ids[who], self._id(producer), epoch)
        if version < 4:
            names = ("transactional_id", "producer_id", "producer_epoch")
            fields = {f"v3_and_below_{name}": value for name, value in zip(names, named, strict=True)}
            request = AddPartitionsToTxnRequest(v3_and_below_topics=topics, **fields)
        else:
            one = AddPartitionsToTxnTransaction(
                transactional_id=named[0],
                producer_id=named[1],
                producer_epoch=epoch,
                verify_only=verify_only,
                topics=topics,
            )
            request = AddPartitionsToTxnRequest(transactions=(one,))
        return self.lab.ask(ApiKey.ADD_PARTITIONS_TO_TXN, request, version=version)

    def add_offsets(self, who: int, producer: int, epoch: int, version: int) -> Answer:
        request = AddOffsetsToTxnRequest(
            transactional_id=self.transactional_ids[who],
            producer_id=self._id(producer),
            producer_epoch=epoch,
            group_id=self.group,
        )
        return self.lab.ask(ApiKey.ADD_OFFSETS_TO_TXN, request, version=version)

    def commit(self, who: int, producer: int, epoch: int, version: int, partition: int, offset: int) -> Answer:
        row = TxnOffsetCommitRequestPartition(partition_index=partition, committed_offset=offset, committed_metadata="")
        request = TxnOffsetCommitRequest(
            transactional_id=self.transactional_ids[who],
            group_id=self.group,
            producer_id=self._id(producer),
            producer_epoch=epoch,
            topics=(TxnOffsetCommitRequestTopic(name=self.topic, partitions=(row,)),),
        )
        return self.lab.ask(ApiKey.TXN_OFFSET_COMMIT, request, version=version)

    def end(self, who: int, producer: int, epoch: int, version: int, committed: bool) -> Answer:
        request = EndTxnRequest(
            transactional_id=self.transactional_ids[who],
            producer_id=self._id(producer),
            producer_epoch=epoch,
            committed=committed,
        )
        answer = self.lab.call(ApiKey.END_TXN, request, version=version)
        return [answer.error_code.name, self._number(answer.producer_id), answer.producer_epoch]

    def produce(
        self,
        who: int | None,
        producer: int,
        epoch: int,
        version: int,
        partition: int,
        sequence: int,
        count: int,
        transactional: bool,
    ) -> Answer:
        records = build_batch(
            [(b"k", b"v", T0_MS, ())] * count,
            producer_id=self._id(producer),
            producer_epoch=epoch,
            base_sequence=sequence,
            transactional=transactional,
        )
        named = {"topic_id": self.topic_id} if version >= 13 else {"name": self.topic}
        data = (PartitionProduceData(index=partition, records=records),)
        request = ProduceRequest(
            transactional_id=None if who is None else self.transactional_ids[who],
            acks=-1,
            timeout_ms=5_000,
            topic_data=(TopicProduceData(partition_data=data, **named),),
        )
        return self.lab.ask(ApiKey.PRODUCE, request, version=version)

    def read(self, partition: int, committed: bool) -> Answer:
        wanted = FetchPartition(partition=partition, fetch_offset=0, partition_max_bytes=1 << 20)
        request = FetchRequest(
            max_wait_ms=0,
            max_bytes=1 << 24,
            isolation_level=int(committed),
            topics=(FetchTopic(topic=self.topic, partitions=(wanted,)),),
        )
        (found,) = self.lab.call(ApiKey.FETCH, request, version=12).responses[0].partitions
        batches = summary_of_batches(found.records or b"")
        end = batches[-1]["offsets"][1] + 1 if batches else 0
        # Kafka may tell of more than overlaps what it sends, and nobody looks at that.
        aborted = [txn for txn in found.aborted_transactions or () if txn.first_offset < end]
        told = sorted((txn.first_offset, self._number(txn.producer_id)) for txn in aborted)
        return [found.error_code.name, batches, found.high_watermark, found.last_stable_offset, told]

    def list_offsets(self, partition: int, committed: bool, timestamp: int) -> Answer:
        wanted = ListOffsetsPartition(partition_index=partition, timestamp=timestamp)
        request = ListOffsetsRequest(
            replica_id=-1,
            isolation_level=int(committed),
            topics=(ListOffsetsTopic(name=self.topic, partitions=(wanted,)),),
        )
        (found,) = self.lab.call(ApiKey.LIST_OFFSETS, request).topics[0].partitions
        is_now = found.timestamp > T0_MS + 10**9  # of a marker
        return [found.error_code.name, found.offset, found.leader_epoch, "now" if is_now else found.timestamp]

    def describe(self, who: int) -> Answer:
        state = self.lab.transaction(self.transactional_ids[who])
        told = [state.error_code.name, state.transaction_state, state.transaction_start_time_ms >= 0]
        topics = sorted([self.lab.plain(topic.topic), sorted(topic.partitions)] for topic in state.topics)
        return [*told, self._number(state.producer_id), state.producer_epoch, topics]

    def producers(self, partition: int) -> Answer:
        request = DescribeProducersRequest(topics=(TopicRequest(name=self.topic, partition_indexes=(partition,)),))
        (found,) = self.lab.call(ApiKey.DESCRIBE_PRODUCERS, request).topics[0].partitions
        rows = [
            [
                self._number(row.producer_id),
                row.producer_epoch,
                row.last_sequence,
                row.coordinator_epoch,
                row.current_txn_start_offset,
            ]
            for row in found.active_producers
        ]
        return [found.error_code.name, sorted(rows)]

    def fetch_offsets(self, partition: int, require_stable: bool) -> Answer:
        topics = (OffsetFetchRequestTopics(name=self.topic, partition_indexes=(partition,)),)
        wanted = OffsetFetchRequestGroup(group_id=self.group, topics=topics)
        request = OffsetFetchRequest(groups=(wanted,), require_stable=require_stable)
        return self.lab.ask(ApiKey.OFFSET_FETCH, request, version=9)


WEIGHTS = {
    "init": 6,
    "add": 10,
    "add_offsets": 4,
    "commit": 6,
    "end": 12,
    "produce": 24,
    "read": 7,
    "list_offsets": 3,
    "describe": 4,
    "producers": 4,
    "fetch_offsets": 4,
}


class Draws:
    """Mostly what a client would do next; one time in five somebody else's id, a wrong epoch or a wrong sequence."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._owners: dict[int, tuple[int, int]] = {}
        """Producer (by number) and epoch of each transactional id."""
        self._sequences: dict[tuple[int, int, int], int] = {}
        """The next one, by producer, epoch and partition."""
        self._known = 0

    def step(self) -> Step:
        random = self._random
        who = random.choice((0, 0, 0, 1))
        name = random.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
        if who not in self._owners and random.random() < 0.8:
            name = "init"
        return name, getattr(self, f"_{name}")(who)

    def learn(self, step: Step, answer: Answer) -> None:
        name, arguments = step
        if name in ("init", "end") and answer[0] == ErrorCode.NONE.name and answer[1] >= 0:
            self._known = max(self._known, answer[1] + 1)
            if arguments["who"] is not None:
                self._owners[arguments["who"]] = (answer[1], answer[2])
        elif name == "produce" and isinstance(answer, dict):
            (row,) = answer["responses"][0]["partition_responses"]
            if "error_code" not in row:
                at = (arguments["producer"], arguments["epoch"], arguments["partition"])
                self._sequences[at] = arguments["sequence"] + arguments["count"]

    def _somebody(self, who: int) -> dict[str, int]:
        producer, epoch = self._owners.get(who, (-1, -1))
        luck = self._random.random()
        if luck < 0.08:
            epoch = max(epoch + self._random.choice((-1, 1, 5)), -1)
        elif luck < 0.13:
            producer = self._random.choice((*range(self._known), UNKNOWN_ID, -1))
        elif luck < 0.18:
            producer, epoch = self._owners.get(1 - who, (-1, -1))
        return {"producer": producer, "epoch": epoch}

    def _version(self, api: ApiKey, *versions: int) -> int:
        return self._random.choice(versions or tuple(versions_of(api)))

    def _init(self, who: int) -> dict[str, Any]:
        version = self._version(ApiKey.INIT_PRODUCER_ID, 0, 1, 2, 3, 4, 5)
        goes_on = version >= 3 and self._random.random() < 0.45
        somebody = self._somebody(who) if goes_on else {"producer": -1, "epoch": -1}
        return {"who": who if self._random.random() < 0.85 else None, "version": version, **somebody}

    def _add(self, who: int) -> dict[str, Any]:
        return {
            "who": who,
            "partitions": self._random.choice(((0,), (1,), (0, 1))),
            "version": self._version(ApiKey.ADD_PARTITIONS_TO_TXN),
            "verify_only": self._random.random() < 0.3,
            **self._somebody(who),
        }

    def _add_offsets(self, who: int) -> dict[str, Any]:
        return {"who": who, "version": self._version(ApiKey.ADD_OFFSETS_TO_TXN), **self._somebody(who)}

    def _commit(self, who: int) -> dict[str, Any]:
        return {
            "who": who,
            "version": self._version(ApiKey.TXN_OFFSET_COMMIT),
            "partition": self._random.randrange(2),
            "offset": self._random.randrange(100),
            **self._somebody(who),
        }

    def _end(self, who: int) -> dict[str, Any]:
        version = self._version(ApiKey.END_TXN, 0, 1, 2, 3, 4, 5, 5, 5)
        return {"who": who, "version": version, "committed": self._random.random() < 0.5, **self._somebody(who)}

    def _produce(self, who: int) -> dict[str, Any]:
        random = self._random
        somebody = self._somebody(who)
        partition, count = random.randrange(2), random.choice((1, 1, 2, 5))
        sequence = self._sequences.get((somebody["producer"], somebody["epoch"], partition), 0)
        luck = random.random()
        if luck < 0.15:
            sequence = max(0, sequence + random.choice((-1, -2, 1, 3, 100)))
        elif luck < 0.17:
            sequence = SEQUENCE_MAX
        transactional = random.random() < 0.85
        if somebody["producer"] < 0 or somebody["epoch"] < 0:
            somebody, sequence, transactional = {"producer": -1, "epoch": -1}, -1, False
        return {
            "who": who if transactional or random.random() < 0.3 else None,
            "version": self._version(ApiKey.PRODUCE, 7, 9, 11, 12, 12, 13),
            "partition": partition,
            "sequence": min(sequence, SEQUENCE_MAX),
            "count": count,
            "transactional": transactional,
            **somebody,
        }

    def _read(self, _: int) -> dict[str, Any]:
        return {"partition": self._random.randrange(2), "committed": self._random.random() < 0.7}

    def _list_offsets(self, _: int) -> dict[str, Any]:
        return {**self._read(_), "timestamp": self._random.choice((-1, -2, -3, T0_MS, T0_MS + 1))}

    def _describe(self, who: int) -> dict[str, Any]:
        return {"who": who}

    def _producers(self, _: int) -> dict[str, Any]:
        return {"partition": self._random.randrange(2)}

    def _fetch_offsets(self, _: int) -> dict[str, Any]:
        return {"partition": self._random.randrange(2), "require_stable": self._random.random() < 0.5}
