"""confluent-kafka: librdkafka, and with it most clients in C, C++, .NET, PHP, Ruby and Rust."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from ottla.testing.broker import BrokerProcess

CLIENT = ("confluent-kafka", f"{version('confluent-kafka')} (librdkafka {confluent_kafka.libversion()[0]})")
TIMEOUT_S = 20.0


def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


def done(futures: dict[Any, Future[Any]]) -> list[Any]:
    return [future.result(TIMEOUT_S) for future in futures.values()]


def create(bootstrap: str, topic: str, *, partitions: int = 1, **config: str) -> str:
    new = NewTopic(topic, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
    client = admin(bootstrap)  # a local of its own: its end would cancel what is under way
    done(client.create_topics([new]))
    return topic


def produce(bootstrap: str, topic: str, values: list[str], *, partition: int | None = None, **config: Any) -> list[int]:
    """Produce and return the offsets; all have to be acknowledged."""
    offsets: list[int] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        offsets.append(message.offset() or 0)

    producer = Producer({"bootstrap.servers": bootstrap} | {key.replace("_", "."): v for key, v in config.items()})
    where = {} if partition is None else {"partition": partition}
    for number, value in enumerate(values):
        producer.produce(topic, value, key=str(number), on_delivery=on_delivery, **where)
        producer.poll(0)
    assert producer.flush(TIMEOUT_S) == 0
    assert len(offsets) == len(values)
    return offsets


@contextmanager
def consumer(bootstrap: str, group: str, *topics: str, **config: Any) -> Iterator[Consumer]:
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
    }
    running = Consumer(settings | {key.replace("_", "."): value for key, value in config.items()})
    try:
        if topics:
            running.subscribe(list(topics))
        yield running
    finally:
        running.close()


def poll(running: Consumer, count: int, *, timeout_s: float = TIMEOUT_S) -> list[Message]:
    """Poll until `count` messages have come."""
    found: list[Message] = []
    deadline_s = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline_s:
        message = running.poll(0.2)
        if message is not None:
            assert message.error() is None, message.error()
            found.append(message)
    assert len(found) >= count, f"{len(found)} of {count} within {timeout_s} s"
    return found


def values(messages: list[Message]) -> list[str]:
    return [(message.value() or b"").decode() for message in messages]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_round_trip(bootstrap: str, unique: Callable[[str], str], codec: str) -> None:
    """Produces and consumes with every codec."""
    topic = create(bootstrap, unique(f"codec-{codec}"))
    sent = [f"value {number} " * 20 for number in range(500)]
    assert produce(bootstrap, topic, sent, compression_type=codec, linger_ms=20) == list(range(500))
    with consumer(bootstrap, unique("g"), topic) as running:
        assert values(poll(running, 500)) == sent


@pytest.mark.parametrize("config", [{"acks": 0}, {"acks": 1}, {"acks": "all"}, {"enable.idempotence": True}])
def test_acknowledgements(bootstrap: str, unique: Callable[[str], str], config: dict[str, Any]) -> None:
    """Produces with acks 0, 1 and all, and idempotently."""
    topic = create(bootstrap, unique("acks"))
    produce(bootstrap, topic, ["a", "b", "c"], **{key.replace(".", "_"): value for key, value in config.items()})
    with consumer(bootstrap, unique("g"), topic) as running:
        assert values(poll(running, 3)) == ["a", "b", "c"]


def test_keys_headers_and_timestamps(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Keys, null values, headers and timestamps come back as they were sent."""
    topic = create(bootstrap, unique("headers"))
    producer = Producer({"bootstrap.servers": bootstrap})
    headers = [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", None)]
    producer.produce(topic, None, key=b"k\x00", headers=headers, timestamp=1_700_000_000_123)
    assert producer.flush(TIMEOUT_S) == 0
    with consumer(bootstrap, unique("g"), topic) as running:
        message = poll(running, 1)[0]
    assert (message.key(), message.value(), message.headers()) == (b"k\x00", None, headers)
    assert message.timestamp() == (confluent_kafka.TIMESTAMP_CREATE_TIME, 1_700_000_000_123)


def test_automatic_topics(bootstrap: str, unique: Callable[[str], str]) -> None:
    """A topic is created by producing to it."""
    assert produce(bootstrap, unique("automatic"), ["a"]) == [0]


def test_offsets_and_seeking(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Seeks by offset and by time, and knows the ends of a partition."""
    topic = create(bootstrap, unique("seek"))
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(10):
        producer.produce(topic, str(number), timestamp=1_700_000_000_000 + 1000 * number)
    assert producer.flush(TIMEOUT_S) == 0
    with consumer(bootstrap, unique("g")) as running:
        assert running.get_watermark_offsets(TopicPartition(topic, 0), timeout=TIMEOUT_S) == (0, 10)
        found = running.offsets_for_times([TopicPartition(topic, 0, 1_700_000_003_500)], timeout=TIMEOUT_S)
        assert [partition.offset for partition in found] == [4]
        found = running.offsets_for_times([TopicPartition(topic, 0, 1_800_000_000_000)], timeout=TIMEOUT_S)
        assert [partition.offset for partition in found] == [confluent_kafka.OFFSET_END]
        running.assign([TopicPartition(topic, 0, 6)])
        assert values(poll(running, 4)) == ["6", "7", "8", "9"]
        running.seek(TopicPartition(topic, 0, 2))
        assert values(poll(running, 1)) == ["2"]
    client = admin(bootstrap)
    assert done(client.list_offsets({TopicPartition(topic, 0): OffsetSpec.max_timestamp()}))[0].offset == 9


def test_commit_and_resume(bootstrap: str, unique: Callable[[str], str]) -> None:
    """A group resumes where it committed."""
    topic, group = create(bootstrap, unique("resume")), unique("g")
    produce(bootstrap, topic, [str(number) for number in range(10)])
    with consumer(bootstrap, group, topic) as running:
        message = poll(running, 4)[3]
        running.commit(message=message, asynchronous=False)
        committed = running.committed([TopicPartition(topic, 0)], timeout=TIMEOUT_S)
        assert [partition.offset for partition in committed] == [4]
    with consumer(bootstrap, group, topic) as running:
        assert values(poll(running, 6)) == ["4", "5", "6", "7", "8", "9"]


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_group_shares_work(bootstrap: str, unique: Callable[[str], str], strategy: str) -> None:
    """Members share the partitions, and take over from one that leaves: range, round robin, cooperative sticky."""
    topic, group = create(bootstrap, unique("share"), partitions=6), unique("g")
    assignor = {"partition_assignment_strategy": strategy}
    with consumer(bootstrap, group, topic, **assignor) as one:
        with consumer(bootstrap, group, topic, **assignor) as two:
            share(one, two)
            assert sorted(p.partition for p in one.assignment() + two.assignment()) == list(range(6))
            for partition in range(6):
                produce(bootstrap, topic, [f"{partition}-{number}" for number in range(20)], partition=partition)
            seen: Counter[str] = Counter()
            deadline_s = time.monotonic() + TIMEOUT_S
            while sum(seen.values()) < 120 and time.monotonic() < deadline_s:
                for member in (one, two):
                    message = member.poll(0.1)
                    if message is not None and message.error() is None:
                        seen[(message.value() or b"").decode()] += 1
            assert len(seen) == 120
            assert set(seen.values()) == {1}
            one.commit(asynchronous=False)
            two.commit(asynchronous=False)
        deadline_s = time.monotonic() + TIMEOUT_S
        while len(one.assignment()) < 6 and time.monotonic() < deadline_s:
            assert one.poll(0.1) is None
        assert len(one.assignment()) == 6


def share(*members: Consumer) -> None:
    """Poll until each member has as many partitions as the others."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while len({len(member.assignment()) for member in members}) > 1 or not members[0].assignment():
        assert time.monotonic() < deadline_s, [member.assignment() for member in members]
        for member in members:
            assert member.poll(0.1) is None


def test_static_membership(bootstrap: str, unique: Callable[[str], str]) -> None:
    """A static member that comes back keeps its partitions."""
    topic, group = create(bootstrap, unique("static"), partitions=4), unique("g")
    with consumer(bootstrap, group, topic, group_instance_id="a") as one:
        two = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": group, "group.instance.id": "b", "session.timeout.ms": 6000}
        )
        two.subscribe([topic])
        share(one, two)
        held = {partition.partition for partition in two.assignment()}
        two.close()
        with consumer(bootstrap, group, topic, group_instance_id="b") as back:
            share(one, back)
            assert {partition.partition for partition in back.assignment()} == held


def test_administration(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Creates, describes, alters and deletes topics, configs, partitions, records and groups."""
    client = admin(bootstrap)
    topic, group = create(bootstrap, unique("admin"), partitions=2, retention_ms="1000000"), unique("g")
    resource = ConfigResource(ResourceType.TOPIC, topic)
    config = done(client.describe_configs([resource]))[0]
    assert config["retention.ms"].value == "1000000"
    change = ConfigEntry("retention.ms", "2000000", incremental_operation=AlterConfigOpType.SET)
    done(client.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])]))
    assert done(client.describe_configs([resource]))[0]["retention.ms"].value == "2000000"
    done(client.create_partitions([NewPartitions(topic, 3)]))
    assert len(client.list_topics(topic, TIMEOUT_S).topics[topic].partitions) == 3
    produce(bootstrap, topic, ["a", "b", "c"], partition=0)
    assert done(client.delete_records([TopicPartition(topic, 0, 2)]))[0].low_watermark == 2
    with consumer(bootstrap, group, topic) as running:
        assert values(poll(running, 1)) == ["c"]
        running.commit(asynchronous=False)
        described = client.describe_consumer_groups([group])[group].result(TIMEOUT_S)
        assert (described.state.name, len(described.members)) == ("STABLE", 1)
    listed = client.list_consumer_groups().result(TIMEOUT_S)
    assert group in {entry.group_id for entry in listed.valid}
    done(client.delete_consumer_groups([group]))
    cluster = client.describe_cluster().result(TIMEOUT_S)
    assert len(cluster.nodes) == 1
    done(client.delete_topics([topic]))
    assert topic not in client.list_topics(timeout=TIMEOUT_S).topics


def test_broker_is_killed(mortal: BrokerProcess, unique: Callable[[str], str]) -> None:
    """Nothing acknowledged is lost, doubled or reordered when the broker is killed and comes back."""
    topic = create(mortal.bootstrap_servers, unique("killed"))
    acknowledged: list[str] = []
    producer = Producer(
        {"bootstrap.servers": mortal.bootstrap_servers, "enable.idempotence": True, "reconnect.backoff.max.ms": 500}
    )

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        acknowledged.append((message.value() or b"").decode())

    with consumer(mortal.bootstrap_servers, unique("g"), topic, reconnect_backoff_max_ms=500) as running:
        seen = []
        for number in range(3000):
            producer.produce(topic, str(number), on_delivery=on_delivery)
            producer.poll(0)
            if number == 1000:
                producer.poll(0.5)
                seen += values(poll(running, 10))
                running.commit(asynchronous=False)
            if number == 1500:
                mortal.kill()
                mortal.start()
        assert producer.flush(60) == 0
        deadline_s = time.monotonic() + 60
        while len(seen) < 3000 and time.monotonic() < deadline_s:
            message = running.poll(0.2)
            if message is not None and message.error() is None:
                seen.append((message.value() or b"").decode())
    assert acknowledged == [str(number) for number in range(3000)]
    assert seen == acknowledged
