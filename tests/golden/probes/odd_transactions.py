"""Each field wrong in turn: transactions, as their coordinator and the partitions see them."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_transactions import ListTransactionsRequest
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe
from tests.golden.odd import odd
from tests.golden.probes.odd_groups import stem_of
from tests.golden.probes.transactional_writes import Transactional

OTHERS = [f"producer_id_filters / {number}" for number in (0, 1, 7)]
"""Ids that some producer of the cluster may have."""


def written_topic(lab: Lab) -> str:
    return lab.topic("odd-written", partitions=2)


@odd(ApiKey.INIT_PRODUCER_ID)
def first_instance(lab: Lab, name: str) -> Any:
    Transactional(lab, lab.name("odd-first-of-all")).init()  # so that there is a coordinator
    return InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)


@odd(ApiKey.INIT_PRODUCER_ID, stem="-going-on", least=3, leave_out=[f"producer_id {number}" for number in (0, 1, 7)])
def same_instance(lab: Lab, name: str) -> Any:
    producer = Transactional(lab, name).init()
    return InitProducerIdRequest(
        transactional_id=name,
        transaction_timeout_ms=60_000,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
    )


@odd(ApiKey.ADD_PARTITIONS_TO_TXN, most=3)
def added_partitions(lab: Lab, name: str) -> Any:
    producer = Transactional(lab, name).init()
    return AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=name,
        v3_and_below_producer_id=producer.producer_id,
        v3_and_below_producer_epoch=producer.epoch,
        v3_and_below_topics=(AddPartitionsToTxnTopic(name=written_topic(lab), partitions=(0,)),),
    )


@odd(ApiKey.ADD_PARTITIONS_TO_TXN, stem="-batched", least=4, leave_out=["transactions none"])
def added_partitions_of_transactions(lab: Lab, name: str) -> Any:
    """Kafka never answers a request without transactions."""
    producer = Transactional(lab, name).init()
    one = AddPartitionsToTxnTransaction(
        transactional_id=name,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        topics=(AddPartitionsToTxnTopic(name=written_topic(lab), partitions=(0,)),),
    )
    return AddPartitionsToTxnRequest(transactions=(one,))


@probe(each=[0, 3, 4, 5])
def added_partitions_of_several_entries(lab: Lab, version: int) -> Answer:
    topic = written_topic(lab)
    producer = Transactional(lab, lab.name(f"odd-added-{version}")).init()

    def ask(*entries: tuple[str, tuple[int, ...]], epoch: int = producer.epoch) -> Answer:
        topics = tuple(AddPartitionsToTxnTopic(name=name, partitions=indexes) for name, indexes in entries)
        if version < 4:
            request = AddPartitionsToTxnRequest(
                v3_and_below_transactional_id=producer.transactional_id,
                v3_and_below_producer_id=producer.producer_id,
                v3_and_below_producer_epoch=epoch,
                v3_and_below_topics=topics,
            )
        else:
            one = AddPartitionsToTxnTransaction(
                transactional_id=producer.transactional_id,
                producer_id=producer.producer_id,
                producer_epoch=epoch,
                topics=topics,
            )
            request = AddPartitionsToTxnRequest(transactions=(one,))
        return lab.ask(ApiKey.ADD_PARTITIONS_TO_TXN, request, version=version)

    return [
        ask((topic, (0,)), (topic, (1,))),
        ask((topic, (0, 0)), (topic, (0,))),
        ask((topic, (0, 7)), (topic, ())),
        ask((topic, ()), (lab.name("absent"), ())),
        ask(("a b", (0,)), (topic, (0,)), (lab.name("absent"), (0, 0))),
        ask((topic, (0, 0)), epoch=producer.epoch + 1),
    ]


@odd(ApiKey.ADD_OFFSETS_TO_TXN)
def added_offsets(lab: Lab, name: str) -> Any:
    producer = Transactional(lab, name).init()
    return AddOffsetsToTxnRequest(
        transactional_id=name, producer_id=producer.producer_id, producer_epoch=producer.epoch, group_id=name
    )


@odd(ApiKey.END_TXN)
def ended(lab: Lab, name: str) -> Any:
    producer = Transactional(lab, name).init()
    producer.add(written_topic(lab), 0)
    return EndTxnRequest(
        transactional_id=name, producer_id=producer.producer_id, producer_epoch=producer.epoch, committed=True
    )


@odd(
    ApiKey.WRITE_TXN_MARKERS,
    leave_out=["markers / topics twice", "markers / topics / partition_indexes twice"],  # Kafka never answers that
)
def markers(lab: Lab, name: str) -> Any:
    """Of a producer that the partition does not know. A marker changes what the next one may say: each has a topic."""
    topic = WritableTxnMarkerTopic(name=lab.topic(stem_of(lab, name), partitions=2), partition_indexes=(1,))
    marker = WritableTxnMarker(
        producer_id=987_654_321, producer_epoch=3, transaction_result=True, topics=(topic,), coordinator_epoch=2
    )
    return WriteTxnMarkersRequest(markers=(marker,))


@odd(ApiKey.DESCRIBE_TRANSACTIONS)
def description(lab: Lab, name: str) -> Any:
    Transactional(lab, name).init()
    return DescribeTransactionsRequest(transactional_ids=(name,))


@odd(ApiKey.LIST_TRANSACTIONS, leave_out=["producer_id_filters none", *OTHERS])
def listing(lab: Lab, name: str) -> Any:
    producer = Transactional(lab, name).init()
    return ListTransactionsRequest(
        state_filters=("Empty",), producer_id_filters=(producer.producer_id,), transactional_id_pattern=name
    )
