"""confluent-kafka (librdkafka) in groups of KIP-848: `group.protocol=consumer`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from ottla.testing.broker import BrokerProcess
from tests.compat.test_confluent_kafka import CLIENT as CLASSIC
from tests.compat.test_confluent_kafka import TIMEOUT_S, admin, create, done, poll, produce, share, values

CLIENT = ("confluent-kafka, consumer groups (KIP-848)", CLASSIC[1])


@contextmanager
def consumer(bootstrap: str, group: str, *topics: str, **config: Any) -> Iterator[Consumer]:
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "group.protocol": "consumer",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    running = Consumer(settings | {key.replace("_", "."): value for key, value in config.items()})
    try:
        running.subscribe(list(topics))
        yield running
    finally:
        running.close()


def hold(running: Consumer, partitions: int) -> None:
    """Poll until the consumer has that many partitions."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(running.assignment()) != partitions:
        assert time.monotonic() < deadline_s, running.assignment()
        running.poll(0.1)


def test_group_shares_work(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Members share the partitions, and take over from one that leaves."""
    topic, group = create(bootstrap, unique("share"), partitions=6), unique("g")
    with consumer(bootstrap, group, topic) as one:
        with consumer(bootstrap, group, topic, group_remote_assignor="range") as two:
            share(one, two)
            assert sorted(p.partition for p in one.assignment() + two.assignment()) == list(range(6))
            client = admin(bootstrap)
            (described,) = done(client.describe_consumer_groups([group]))
            assert (described.state.name, described.type.name) == ("STABLE", "CONSUMER")
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
        hold(one, 6)


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


def test_expressions_and_new_partitions(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Subscriptions by regular expression, and topics that grow."""
    topic = create(bootstrap, unique("matched"))
    with consumer(bootstrap, unique("g"), f"^{topic[:-1]}.*") as running:
        hold(running, 1)
        client = admin(bootstrap)
        done(client.create_partitions([NewPartitions(topic, 3)]))
        hold(running, 3)


def test_static_membership(bootstrap: str, unique: Callable[[str], str]) -> None:
    """A static member that comes back keeps its partitions."""
    topic, group = create(bootstrap, unique("static"), partitions=4), unique("g")
    with consumer(bootstrap, group, topic, group_instance_id="a") as one:
        with consumer(bootstrap, group, topic, group_instance_id="b") as two:
            share(one, two)
            held = {partition.partition for partition in two.assignment()}
        with consumer(bootstrap, group, topic, group_instance_id="b") as back:
            share(one, back)
            assert {partition.partition for partition in back.assignment()} == held


def test_broker_is_killed(mortal: BrokerProcess, unique: Callable[[str], str]) -> None:
    """Members, partitions and offsets are there again when the broker was killed and comes back."""
    bootstrap = mortal.bootstrap_servers
    topic, group = create(bootstrap, unique("killed"), partitions=4), unique("g")
    with consumer(bootstrap, group, topic, reconnect_backoff_max_ms=500) as one:
        with consumer(bootstrap, group, topic, reconnect_backoff_max_ms=500) as two:
            share(one, two)
            held = [sorted(p.partition for p in member.assignment()) for member in (one, two)]
            produce(bootstrap, topic, [str(number) for number in range(100)])
            mortal.kill()
            mortal.start()
            producer = Producer({"bootstrap.servers": bootstrap})
            for number in range(100, 200):
                producer.produce(topic, str(number))
            assert producer.flush(60) == 0
            seen: Counter[str] = Counter()
            deadline_s = time.monotonic() + 60
            while len(seen) < 200 and time.monotonic() < deadline_s:
                for member in (one, two):
                    message = member.poll(0.1)
                    if message is not None and message.error() is None:
                        seen[(message.value() or b"").decode()] += 1
            assert len(seen) == 200
            assert set(seen.values()) == {1}
            assert held == [sorted(p.partition for p in member.assignment()) for member in (one, two)]
            one.commit(asynchronous=False)
            two.commit(asynchronous=False)
        hold(one, 4)
