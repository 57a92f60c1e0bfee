"""kafka-python, a client in pure Python."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import kafka
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

from ottla.testing.broker import BrokerProcess

CLIENT = ("kafka-python", kafka.__version__)
TIMEOUT_S = 20.0


@contextmanager
def admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as client:
        yield client


def create(bootstrap: str, topic: str, *, partitions: int = 1) -> str:
    with admin(bootstrap) as client:
        client.create_topics([NewTopic(topic, partitions, 1)])
    return topic


def produce(bootstrap: str, topic: str, values: list[str], *, partition: int = 0, **config: Any) -> list[int]:
    with closing(KafkaProducer(bootstrap_servers=bootstrap, **config)) as producer:
        futures = [
            producer.send(topic, value.encode(), key=str(number).encode(), partition=partition)
            for number, value in enumerate(values)
        ]
        return [future.get(TIMEOUT_S).offset for future in futures]


@contextmanager
def consumer(bootstrap: str, group: str | None, *topics: str, **config: Any) -> Iterator[KafkaConsumer]:
    settings = {
        "bootstrap_servers": bootstrap,
        "group_id": group,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 500,
    }
    with closing(KafkaConsumer(*topics, **(settings | config))) as running:
        yield running


def poll(running: KafkaConsumer, count: int, *, timeout_s: float = TIMEOUT_S) -> list[Any]:
    found: list[Any] = []
    deadline_s = time.monotonic() + timeout_s
    while len(found) < count and (left_s := deadline_s - time.monotonic()) > 0:
        # All that is left at once: this client (3.0.12) forgets the answer to a second join that a short poll did not
        # live to see, and sends no more heartbeats. It joins twice where the first answer comes before its metadata.
        for records in running.poll(left_s * 1000).values():
            found += records
    assert len(found) >= count, f"{len(found)} of {count} within {timeout_s} s"
    return found


def values(records: list[Any]) -> list[str]:
    return [record.value.decode() for record in records]


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_round_trip(bootstrap: str, unique: Callable[[str], str], codec: str | None) -> None:
    """Produces and consumes with every codec."""
    topic = create(bootstrap, unique(f"codec-{codec}"))
    sent = [f"value {number} " * 20 for number in range(300)]
    assert produce(bootstrap, topic, sent, compression_type=codec, linger_ms=10) == list(range(300))
    with consumer(bootstrap, None, topic) as running:
        assert values(poll(running, 300)) == sent


@pytest.mark.parametrize("config", [{"acks": 0}, {"acks": 1}, {"acks": "all"}, {"enable_idempotence": True}], ids=str)
def test_acknowledgements(bootstrap: str, unique: Callable[[str], str], config: dict[str, Any]) -> None:
    """Produces with acks 0, 1 and all, and idempotently."""
    topic = create(bootstrap, unique("acks"))
    if "enable_idempotence" not in config:
        config = config | {"enable_idempotence": False}
    produce(bootstrap, topic, ["a", "b", "c"], **config)
    with consumer(bootstrap, None, topic) as running:
        assert values(poll(running, 3)) == ["a", "b", "c"]


def test_keys_headers_and_timestamps(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Keys, null values, headers and timestamps come back as they were sent."""
    topic = create(bootstrap, unique("headers"))
    headers = [("trace", b"\x00\xff"), ("trace", b"again")]
    with closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:
        producer.send(topic, None, key=b"k\x00", headers=headers, timestamp_ms=1_700_000_000_123).get(TIMEOUT_S)
    with consumer(bootstrap, None, topic) as running:
        record = poll(running, 1)[0]
    assert (record.key, record.value, list(record.headers)) == (b"k\x00", None, headers)
    assert record.timestamp == 1_700_000_000_123


def test_offsets_and_seeking(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Seeks by offset and by time, and knows the ends of a partition."""
    topic = create(bootstrap, unique("seek"))
    partition = TopicPartition(topic, 0)
    with closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:
        for number in range(10):
            producer.send(topic, str(number).encode(), timestamp_ms=1_700_000_000_000 + 1000 * number)
        producer.flush(TIMEOUT_S)
    with consumer(bootstrap, None) as running:
        running.assign([partition])
        assert running.beginning_offsets([partition]) == {partition: 0}
        assert running.end_offsets([partition]) == {partition: 10}
        assert running.offsets_for_times({partition: 1_700_000_003_500})[partition].offset == 4
        assert running.offsets_for_times({partition: 1_800_000_000_000})[partition] is None
        running.seek(partition, 6)
        assert values(poll(running, 4)) == ["6", "7", "8", "9"]
        running.seek_to_beginning(partition)
        assert values(poll(running, 1))[0] == "0"


def test_commit_and_resume(bootstrap: str, unique: Callable[[str], str]) -> None:
    """A group resumes where it committed."""
    topic, group = create(bootstrap, unique("resume")), unique("g")
    partition = TopicPartition(topic, 0)
    produce(bootstrap, topic, [str(number) for number in range(10)])
    with consumer(bootstrap, group, topic) as running:
        poll(running, 10)
        running.commit({partition: OffsetAndMetadata(4, "note", -1)})
        assert running.committed(partition) == 4
    with consumer(bootstrap, group, topic) as running:
        assert values(poll(running, 6)) == ["4", "5", "6", "7", "8", "9"]


class Member(threading.Thread):
    """A consumer in a thread of its own, as this client waits for the group inside `poll`."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        super().__init__(daemon=True)
        self.settings = (bootstrap, group, topic)
        self.seen: list[str] = []
        self.held: set[int] = set()
        self.leave = threading.Event()
        self.start()

    def run(self) -> None:
        with consumer(*self.settings) as running:
            while not self.leave.is_set():
                for records in running.poll(1000).values():
                    self.seen += values(records)
                self.held = {partition.partition for partition in running.assignment()}
        self.held = set()


def eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_group_shares_work(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Members share the partitions, and take over from one that leaves."""
    topic, group = create(bootstrap, unique("share"), partitions=4), unique("g")
    one, two = Member(bootstrap, group, topic), Member(bootstrap, group, topic)
    try:
        eventually(lambda: len(one.held) == len(two.held) == 2)
        assert one.held | two.held == set(range(4))
        for partition in range(4):
            produce(bootstrap, topic, [f"{partition}-{number}" for number in range(20)], partition=partition)
        eventually(lambda: len(one.seen) + len(two.seen) >= 80)
        assert set(Counter(one.seen + two.seen).values()) == {1}
        two.leave.set()
        eventually(lambda: len(one.held) == 4)
    finally:
        for member in (one, two):
            member.leave.set()
            member.join(TIMEOUT_S)


def test_administration(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Creates, describes, alters and deletes topics, configs and groups."""
    topic, group = unique("admin"), unique("g")
    with admin(bootstrap) as client:
        client.create_topics([NewTopic(topic, 2, 1, topic_configs={"retention.ms": "1000000"})])
        with pytest.raises(TopicAlreadyExistsError):
            client.create_topics([NewTopic(topic, 2, 1)])
        assert topic in client.list_topics()
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "2000000"})
        client.alter_configs([resource])
        assert "2000000" in str(client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        client.create_partitions({topic: 3})
        assert len(client.describe_topics([topic])[0]["partitions"]) == 3
        produce(bootstrap, topic, ["a", "b"])
        with consumer(bootstrap, group, topic) as running:
            poll(running, 2)
            running.commit()
        assert group in str(client.list_groups())
        assert group in str(client.describe_groups([group]))
        assert "2" in str(client.list_group_offsets(group))
        client.delete_groups([group])
        assert group not in str(client.list_groups())
        assert len(client.describe_cluster()["brokers"]) == 1
        client.delete_topics([topic])
        assert topic not in client.list_topics()


def test_broker_is_killed(mortal: BrokerProcess, unique: Callable[[str], str]) -> None:
    """Nothing acknowledged is lost, doubled or reordered when the broker is killed and comes back."""
    topic, group = create(mortal.bootstrap_servers, unique("killed")), unique("g")
    with (
        closing(KafkaProducer(bootstrap_servers=mortal.bootstrap_servers, enable_idempotence=True)) as producer,
        consumer(mortal.bootstrap_servers, group, topic) as running,
    ):
        futures = []
        found = []
        for number in range(1000):
            futures.append(producer.send(topic, str(number).encode(), partition=0))
            if number == 300:
                producer.flush(TIMEOUT_S)
                found += poll(running, 10)
                running.commit()
            if number == 500:
                mortal.kill()
                mortal.start()
        offsets = [future.get(60).offset for future in futures]
        found += poll(running, 1000 - len(found), timeout_s=60)
    assert offsets == list(range(1000))
    assert values(found) == [str(number) for number in range(1000)]
