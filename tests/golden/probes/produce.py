"""Produce: which batches are taken, and how the others are refused."""

from __future__ import annotations

import struct
import time
import uuid
from dataclasses import replace
from typing import Any

from ottla.protocol.codec import encode_request
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.versions import ApiKey
from tests.golden.batch import GZIP, LZ4, SNAPPY, ZSTD, Batch, Record, values, varint
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.probes.transactional_writes import Transactional
from tests.golden.wire import CLOSED, ClosedByBroker

ONE = Batch().encode()
THREE = Batch(records=values(b"a", b"b", b"c")).encode()


def request(
    lab: Lab, topic: str, records: bytes | None, *, version: int, acks: int = -1, partition: int = 0, **fields: Any
) -> ProduceRequest:
    data = (PartitionProduceData(index=partition, records=records),)
    if version >= 13:
        wanted = TopicProduceData(topic_id=lab.topic_id(topic), partition_data=data)
    else:
        wanted = TopicProduceData(name=topic, partition_data=data)
    return ProduceRequest(acks=acks, timeout_ms=5000, topic_data=(wanted,), **fields)


def send(lab: Lab, topic: str, records: bytes | None, *, version: int = 12, **fields: Any) -> Answer:
    """The answer for the one partition, with what the log's end became."""
    answer = lab.ask(ApiKey.PRODUCE, request(lab, topic, records, version=version, **fields), version=version)
    if answer == CLOSED:
        return CLOSED
    partition = answer["responses"][0]["partition_responses"][0]
    return partition | {"end": lab.end_offset(topic)}


@probe(each=versions(ApiKey.PRODUCE, least=3))
def good_batch(lab: Lab, version: int) -> Answer:
    return send(lab, lab.topic(f"good-{version}"), THREE, version=version)


@probe(each=[-2, 0, 1, 2, 32767])
def acks(lab: Lab, acks: int) -> Answer:
    """Nothing comes back for acks=0: the next answer on the connection belongs to the next request."""
    topic = lab.topic(f"acks{acks}")
    if acks:
        return send(lab, topic, ONE, acks=acks)
    with lab.connect() as connection:
        body = encode_request(ApiKey.PRODUCE, 12, request(lab, topic, ONE, version=12, acks=0))
        connection.send(ApiKey.PRODUCE, 12, body)
        software = ApiVersionsRequest(client_software_name="a", client_software_version="1")
        connection.call(ApiKey.API_VERSIONS, 3, software)
    for _ in range(100):  # nobody said that it is there already
        if lab.end_offset(topic):
            break
        time.sleep(0.02)
    return {"end": lab.end_offset(topic)}


@probe(each=["unknown topic", "bad crc", "unknown partition"])
def acks_0_with_an_error(lab: Lab, kind: str) -> Answer:
    topic = lab.topic("acks0-error")
    name = "no-such-topic" if kind == "unknown topic" else topic
    records = Batch(crc=1).encode() if kind == "bad crc" else ONE
    partition = 7 if kind == "unknown partition" else 0
    with lab.connect() as connection:
        message = request(lab, name, records, version=12, acks=0, partition=partition)
        try:
            connection.send(ApiKey.PRODUCE, 12, encode_request(ApiKey.PRODUCE, 12, message))
            software = ApiVersionsRequest(client_software_name="a", client_software_version="1")
            connection.call(ApiKey.API_VERSIONS, 3, software)
        except ClosedByBroker:
            return CLOSED
    return "open"


@probe(each=versions(ApiKey.PRODUCE, least=3, most=12))
def unknown_topic(lab: Lab, version: int) -> Answer:
    message = request(lab, lab.name("absent"), ONE, version=version)
    return lab.ask(ApiKey.PRODUCE, message, version=version)


@probe(each=["", "bad name!", ".", "x" * 250])
def illegal_topic_name(lab: Lab, name: str) -> Answer:
    return lab.ask(ApiKey.PRODUCE, request(lab, name, ONE, version=12), version=12)


@probe(each=["unknown", "zero"])
def unknown_topic_id(lab: Lab, kind: str) -> Answer:
    topic_id = uuid.UUID(int=0x1234 << 64) if kind == "unknown" else None
    data = (PartitionProduceData(index=0, records=ONE),)
    message = ProduceRequest(
        acks=-1, timeout_ms=5000, topic_data=(TopicProduceData(topic_id=topic_id, partition_data=data),)
    )
    return lab.ask(ApiKey.PRODUCE, message, version=13)


@probe(each=[-1, 1, 99])
def unknown_partition(lab: Lab, partition: int) -> Answer:
    return send(lab, lab.topic("one-partition"), ONE, partition=partition)


@probe(each=["twice in a topic", "topic twice", "two partitions, one bad"])
def several_partitions(lab: Lab, kind: str) -> Answer:
    topic = lab.topic("several-" + kind[0:3].strip(), partitions=2)
    first, second = (PartitionProduceData(index=i, records=ONE) for i in (0, 1))
    bad = PartitionProduceData(index=1, records=Batch(crc=1).encode())
    topics = {
        "twice in a topic": (TopicProduceData(name=topic, partition_data=(first, first, second)),),
        "topic twice": (
            TopicProduceData(name=topic, partition_data=(first,)),
            TopicProduceData(name=topic, partition_data=(second,)),
        ),
        "two partitions, one bad": (TopicProduceData(name=topic, partition_data=(first, bad)),),
    }[kind]
    answer = lab.ask(ApiKey.PRODUCE, ProduceRequest(acks=-1, timeout_ms=5000, topic_data=topics), version=12)
    return [answer, lab.end_offset(topic), lab.end_offset(topic, partition=1)]


@probe(each=[3, 8, 9, 12])
def no_records(lab: Lab, version: int) -> Answer:
    """Empty, that is: Kafka 4.3.1 never answers null, its error path fails on it."""
    return send(lab, lab.topic("no-records"), b"", version=version)


BAD: dict[str, bytes] = {
    "two batches": ONE + ONE,
    "magic 0": Batch(magic=0).encode(),
    "magic 1": Batch(magic=1).encode(),
    "magic 3": Batch(magic=3).encode(),
    "magic -1": Batch(magic=-1).encode(),
    "crc": Batch(crc=0xDEADBEEF).encode(),
    "base offset 5": Batch(base_offset=5).encode(),
    "base offset -1": Batch(base_offset=-1).encode(),
    "leader epoch 9": Batch(partition_leader_epoch=9).encode(),
    "no records": Batch(records=(), last_offset_delta=0).encode(),
    "no records, last delta -1": Batch(records=()).encode(),
    "count too high": Batch(record_count=2).encode(),
    "count and delta too high": Batch(record_count=2, last_offset_delta=1).encode(),
    "count and delta too low": Batch(records=values(b"a", b"b"), record_count=1, last_offset_delta=0).encode(),
    "count too low": Batch(records=values(b"a", b"b"), record_count=1).encode(),
    "count negative": Batch(record_count=-1).encode(),
    "count huge": Batch(record_count=2147483647, last_offset_delta=2147483646).encode(),
    "last delta too high": Batch(last_offset_delta=4).encode(),
    "last delta negative": Batch(last_offset_delta=-1).encode(),
    "record delta out of order": Batch(records=(Record(offset_delta=1), Record(offset_delta=0))).encode(),
    "record delta from 1": Batch(records=(Record(offset_delta=1),)).encode(),
    "record delta twice": Batch(records=(Record(offset_delta=0), Record(offset_delta=0))).encode(),
    "record attributes 255": Batch(records=(Record(attributes=255),)).encode(),
    "record length too long": Batch(records=(Record(length=40),)).encode(),
    "record length too short": Batch(records=(Record(value=b"12345678", length=6),)).encode(),
    "record length negative": Batch(records=(Record(length=-1),)).encode(),
    "record length zero": Batch(records=(Record(raw=b""),)).encode(),
    "key longer than the record": Batch(records=(Record(raw=b"\0\0\0" + varint(99) + b"k" + varint(0)),)).encode(),
    "key length -2": Batch(records=(Record(raw=b"\0\0\0" + varint(-2) + varint(-1) + varint(0)),)).encode(),
    "value longer than the record": Batch(records=(Record(raw=b"\0\0\0" + varint(-1) + varint(99) + b"v"),)).encode(),
    "header count negative": Batch(records=(Record(header_count=-1),)).encode(),
    "header count too high": Batch(records=(Record(header_count=3),)).encode(),
    "header key null": Batch(records=(Record(headers=((None, b"v"),)),)).encode(),
    "header value null": Batch(records=(Record(headers=((b"h", None),)),)).encode(),
    "header key twice": Batch(records=(Record(headers=((b"h", b"1"), (b"h", b"2"))),)).encode(),
    "header key not utf-8": Batch(records=(Record(headers=((b"\xff\xfe", b"1"),)),)).encode(),
    "varint without end": Batch(payload=b"\xff" * 12).encode(),
    "bytes after the last record": Batch(payload=Record().encode(0) + b"junk").encode(),
    "bytes after the batch": ONE + b"junk",
    "header cut short": ONE[:40],
    "batch cut short": ONE[:-1],
    "only 11 bytes": ONE[:11],
    "length too long": Batch(batch_length=1000).encode(),
    "length too short": Batch(batch_length=60).encode(),
    "length 0": Batch(batch_length=0).encode(),
    "length negative": Batch(batch_length=-5).encode(),
    "control batch": Batch(attributes=0x20, records=(Record(key=bytes(4), value=bytes(6)),)).encode(),
    "transactional, no producer": Batch(attributes=0x10).encode(),
    "transactional and control": Batch(attributes=0x30, records=(Record(key=bytes(4), value=bytes(6)),)).encode(),
    "delete horizon": Batch(attributes=0x40).encode(),
    "unused attribute bits": Batch(attributes=0x780).encode(),
    "log append time": Batch(attributes=0x08).encode(),
    "producer without sequence": Batch(producer_id=9, producer_epoch=0, base_sequence=-1).encode(),
    "producer without epoch": Batch(producer_id=9, producer_epoch=-1, base_sequence=0).encode(),
    "producer -2": Batch(producer_id=-2, producer_epoch=0, base_sequence=0).encode(),
    "sequence without producer": Batch(base_sequence=3).encode(),
    "codec 5": Batch(attributes=5).encode(),
    "codec 7": Batch(attributes=7).encode(),
    "max timestamp too low": Batch(records=values(b"a", b"b"), max_timestamp_ms=0).encode(),
    "max timestamp too high": Batch(max_timestamp_ms=1_700_000_999_000).encode(),
    "timestamp -1": Batch(base_timestamp_ms=-1, max_timestamp_ms=-1).encode(),
    "timestamp -2": Batch(base_timestamp_ms=-2, max_timestamp_ms=-2).encode(),
    "timestamp overflows": Batch(base_timestamp_ms=2**63 - 1, max_timestamp_ms=2**63 - 1).encode(),
    "offsets in a null record": Batch(records=(Record(key=None, value=None),)).encode(),
}


@probe(each=list(BAD))
def odd_batch(lab: Lab, kind: str) -> Answer:
    return send(lab, lab.topic(f"odd-{list(BAD).index(kind)}"), BAD[kind])


@probe(each=[3, 7, 8, 13])
def bad_record_in_each_version(lab: Lab, version: int) -> Answer:
    topic = lab.topic("bad-record", cleanup_policy="compact")
    return send(lab, topic, Batch(records=values(b"a", b"b")).encode(), version=version)


@probe(each=[GZIP, SNAPPY, LZ4, ZSTD])
def compressed(lab: Lab, codec: int) -> Answer:
    topic = lab.topic(f"codec-{codec}")
    batch = Batch(attributes=codec, records=values(b"a", b"b", b"c"))
    record = Record().encode(0)
    return {
        "good": send(lab, topic, batch.encode()),
        "garbage": send(lab, topic, replace(batch, payload=b"\x99" * 40).encode()),
        "nothing": send(lab, topic, replace(batch, payload=b"").encode()),
        "cut short": send(lab, topic, replace(batch, payload=_payload(batch)[:-3]).encode()),
        "not compressed": send(lab, topic, replace(batch, payload=record * 3).encode()),
        "count too high": send(lab, topic, replace(batch, record_count=4, last_offset_delta=3).encode()),
        "count too low": send(lab, topic, replace(batch, record_count=2, last_offset_delta=1).encode()),
        "record delta": send(lab, topic, replace(batch, records=(Record(offset_delta=4),)).encode()),
        "two frames": send(lab, topic, replace(batch, payload=_payload(batch) * 2).encode()),
        "bytes after": send(lab, topic, replace(batch, payload=_payload(batch) + b"junkjunk").encode()),
        "good again": send(lab, topic, batch.encode()),
    }


def _payload(batch: Batch) -> bytes:
    return batch.encode()[61:]


@probe()
def snappy_of_the_java_client(lab: Lab) -> Answer:
    """xerial's framing: a magic, two versions, then sized blocks."""
    batch = Batch(attributes=SNAPPY, records=values(b"a", b"b"))
    raw = _payload(batch)
    framed = b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(raw)) + raw
    return send(lab, lab.topic("xerial"), replace(batch, payload=framed).encode())


@probe(each=range(3, 10))
def zstd_in_each_version(lab: Lab, version: int) -> Answer:
    return send(lab, lab.topic(f"zstd-{version}"), Batch(attributes=ZSTD).encode(), version=version)


@probe(each=["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"])
def compression_type_of_the_topic(lab: Lab, kind: str) -> Answer:
    """Whether the batch's codec is the topic's afterwards; sizes depend on the compressor."""
    topic = lab.topic(f"compression-{kind}", compression_type=kind)
    answers = [
        send(lab, topic, Batch(attributes=codec, records=values(b"a", b"b")).encode()) for codec in (0, GZIP, LZ4)
    ]
    batches = lab.plain({"records": _fetch(lab, topic)})["records"]
    return [answers, [batch.get("attributes", 0) for batch in batches]]


def _fetch(lab: Lab, topic: str) -> bytes:
    wanted = FetchTopic(topic=topic, partitions=(FetchPartition(partition_max_bytes=1 << 20),))
    answer = lab.call(ApiKey.FETCH, FetchRequest(max_wait_ms=100, topics=(wanted,)), version=12)
    return answer.responses[0].partitions[0].records or b""


@probe(each=[0, GZIP])
def too_large(lab: Lab, codec: int) -> Answer:
    """The limit is on the batch as sent, log overhead included."""
    topic = lab.topic(f"limit-{codec}", max_message_bytes="1000")
    noise = b"".join(struct.pack(">Q", i * 0x9E3779B97F4A7C15 % 2**64) for i in range(200))
    overhead = len(Batch(records=values(noise[:900])).encode()) - 900
    return {
        "at the limit": send(lab, topic, Batch(records=values(noise[: 1000 - overhead])).encode())
        if not codec
        else None,
        "above": send(
            lab, topic, Batch(attributes=codec, records=values(noise[: 1001 - overhead + 200 * codec])).encode()
        ),
        "compresses well": send(lab, topic, Batch(attributes=codec, records=values(b"x" * 5000)).encode()),
    }


@probe()
def larger_than_a_segment(lab: Lab) -> Answer:
    topic = lab.topic("segment", segment_bytes="1048576", max_message_bytes="4000000")
    return send(lab, topic, Batch(records=values(b"x" * 1_100_000)).encode())


@probe(each=["CreateTime", "LogAppendTime"])
def timestamps(lab: Lab, kind: str) -> Answer:
    day_ms = 86_400_000
    now_ms = time.time_ns() // 1_000_000
    topic = lab.topic(
        f"time-{kind}",
        message_timestamp_type=kind,
        message_timestamp_before_max_ms=str(2 * day_ms),
        message_timestamp_after_max_ms=str(day_ms),
    )
    times_ms = {"now": now_ms, "old": now_ms - 3 * day_ms, "new": now_ms + 2 * day_ms, "none": -1}
    answers = {
        name: send(lab, topic, Batch(base_timestamp_ms=at_ms, records=values(b"a", b"b")).encode())
        for name, at_ms in times_ms.items()
    }
    mixed = (Record(), Record(timestamp_delta_ms=-3 * day_ms), Record(timestamp_delta_ms=2 * day_ms))
    answers["mixed"] = send(lab, topic, Batch(base_timestamp_ms=now_ms, records=mixed).encode())
    answers["marked"] = send(lab, topic, Batch(base_timestamp_ms=now_ms, attributes=8).encode())
    answers["stored"] = [batch.get("attributes", 0) for batch in lab.plain({"records": _fetch(lab, topic)})["records"]]
    return answers


@probe()
def timestamps_by_default(lab: Lab) -> Answer:
    now_ms = time.time_ns() // 1_000_000
    topic = lab.topic("time-default")
    times_ms = {"old": 0, "soon": now_ms + 3_000_000, "later": now_ms + 4_200_000}
    return {name: send(lab, topic, Batch(base_timestamp_ms=at_ms).encode()) for name, at_ms in times_ms.items()}


@probe(each=["compact", "compact,delete"])
def keys_of_a_compacted_topic(lab: Lab, policy: str) -> Answer:
    topic = lab.topic(f"policy-{len(policy)}", cleanup_policy=policy)
    some = (Record(key=b"k"), Record(key=None), Record(key=b""), Record(key=None))
    return {
        "keys": send(lab, topic, Batch(records=values(b"a", b"b", key=b"k")).encode()),
        "no keys": send(lab, topic, Batch(records=values(b"a", b"b")).encode()),
        "some": send(lab, topic, Batch(records=some).encode()),
        "tombstone": send(lab, topic, Batch(records=(Record(key=b"k", value=None),)).encode()),
        "compressed, no keys": send(lab, topic, Batch(attributes=GZIP, records=values(b"a")).encode()),
    }


@probe(each=["__consumer_offsets", "__transaction_state"])
def internal_topic(lab: Lab, topic: str) -> Answer:
    Transactional(lab, lab.name("maker-of-the-topic")).init()
    return lab.ask(ApiKey.PRODUCE, request(lab, topic, ONE, version=12), version=12)


class Producer:
    """An idempotent producer that can misnumber its batches."""

    def __init__(self, lab: Lab, topic: str) -> None:
        self.lab, self.topic = lab, topic
        self.producer_id = lab.call(
            ApiKey.INIT_PRODUCER_ID, InitProducerIdRequest(transaction_timeout_ms=-1)
        ).producer_id

    def send(self, sequence: int, *, count: int = 1, epoch: int = 0) -> Answer:
        batch = Batch(
            records=values(*[b"x"] * count), producer_id=self.producer_id, producer_epoch=epoch, base_sequence=sequence
        )
        return send(self.lab, self.topic, batch.encode())


@probe()
def sequence_numbers(lab: Lab) -> Answer:
    producer = Producer(lab, lab.topic("sequences"))
    return [
        ["0", producer.send(0)],
        ["again", producer.send(0)],
        ["1 to 3", producer.send(1, count=3)],
        ["again", producer.send(1, count=3)],
        ["part of it", producer.send(2, count=2)],
        ["longer", producer.send(1, count=4)],
        ["gap", producer.send(9)],
        *[[f"{n}", producer.send(n)] for n in range(4, 9)],
        ["five batches ago", producer.send(4)],
        ["six batches ago", producer.send(1, count=3)],
        ["first", producer.send(0)],
        ["new epoch from 5", producer.send(5, epoch=1)],
        ["new epoch from 0", producer.send(0, epoch=1)],
        ["old epoch", producer.send(9)],
        ["epoch skipped", producer.send(0, epoch=7)],
    ]


@probe()
def sequence_of_an_unknown_producer(lab: Lab) -> Answer:
    return Producer(lab, lab.topic("unknown-producer")).send(5)


@probe()
def sequence_wraps(lab: Lab) -> Answer:
    producer = Producer(lab, lab.topic("wraps"))
    first = producer.send(2147483646)
    return [first, producer.send(2147483646, count=3), producer.send(1)]
