"""confluent-kafka's transactions: librdkafka adds partitions before it produces to them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from ottla.testing.broker import BrokerProcess
from tests.compat.test_confluent_kafka import CLIENT, TIMEOUT_S, consumer, create, poll, values
from tests.compat.transactions import check_history, needs_transactions

__all__ = ["CLIENT"]

pytestmark = needs_transactions


def transactional(bootstrap: str, transactional_id: str) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": 30_000,
            "reconnect.backoff.max.ms": 500,
        }
    )
    producer.init_transactions(TIMEOUT_S)
    return producer


def write(producer: Producer, topic: str, *sent: str, commit: bool = True) -> None:
    producer.begin_transaction()
    for value in sent:
        producer.produce(topic, value)
    assert producer.flush(TIMEOUT_S) == 0, "an aborted record, too, is in the log before it is aborted"
    if commit:
        producer.commit_transaction(TIMEOUT_S)
    else:
        producer.abort_transaction(TIMEOUT_S)


def read_all(running: Consumer, topic: str, *, partitions: int = 1, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Everything up to where the partitions end for this reader: values in order."""
    deadline_s = time.monotonic() + timeout_s
    running.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    found: list[str] = []
    while time.monotonic() < deadline_s:
        message = running.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            found.append((message.value() or b"").decode())
            continue
        ends = [
            running.get_watermark_offsets(TopicPartition(topic, p), timeout=TIMEOUT_S)[1] for p in range(partitions)
        ]
        positions = {
            p.partition: p.offset for p in running.position([TopicPartition(topic, p) for p in range(partitions)])
        }
        if all(max(positions[p], 0) >= end for p, end in enumerate(ends)):
            return found
    raise AssertionError(f"no end of {topic} within {timeout_s} s: {positions} of {ends}")


def test_commit_and_abort(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Transactions are committed and aborted; readers of committed records see just that."""
    topic = create(bootstrap, unique("transactions"), partitions=3)
    producer = transactional(bootstrap, unique("tx"))
    write(producer, topic, *[f"a{i}" for i in range(30)])
    write(producer, topic, *[f"b{i}" for i in range(30)], commit=False)
    write(producer, topic, *[f"c{i}" for i in range(30)])
    with consumer(bootstrap, unique("g"), isolation_level="read_committed") as running:
        seen = read_all(running, topic, partitions=3)
    assert sorted(seen) == sorted(f"{run}{i}" for run in "ac" for i in range(30))
    with consumer(bootstrap, unique("g"), isolation_level="read_uncommitted") as running:
        assert len(read_all(running, topic, partitions=3)) == 90


def test_open_transactions_are_waited_for(bootstrap: str, unique: Callable[[str], str]) -> None:
    """What was written behind an open transaction is seen when it ends."""
    topic = create(bootstrap, unique("open"))
    one, other = transactional(bootstrap, unique("one")), transactional(bootstrap, unique("other"))
    one.begin_transaction()
    one.produce(topic, "first")
    assert one.flush(TIMEOUT_S) == 0
    write(other, topic, "second")
    with consumer(bootstrap, unique("g"), isolation_level="read_committed") as running:
        running.assign([TopicPartition(topic, 0, 0)])
        assert running.poll(1.0) is None
        one.commit_transaction(TIMEOUT_S)
        assert values(poll(running, 2)) == ["first", "second"]


def test_fencing(bootstrap: str, unique: Callable[[str], str]) -> None:
    """A producer with a taken transactional id is fenced off, with what it has open."""
    topic, transactional_id = create(bootstrap, unique("fenced")), unique("tx")
    before = transactional(bootstrap, transactional_id)
    before.begin_transaction()
    before.produce(topic, "of the first")
    assert before.flush(TIMEOUT_S) == 0
    after = transactional(bootstrap, transactional_id)
    write(after, topic, "of the second")
    with pytest.raises(KafkaException) as fenced:
        before.commit_transaction(TIMEOUT_S)
    assert fenced.value.args[0].fatal()
    with consumer(bootstrap, unique("g"), isolation_level="read_committed") as running:
        assert read_all(running, topic) == ["of the second"]


def test_consume_transform_produce(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Records are consumed, transformed and produced exactly once, though every third transaction is aborted."""
    source, target, group = create(bootstrap, unique("source")), create(bootstrap, unique("target")), unique("g")
    feed = transactional(bootstrap, unique("feed"))
    write(feed, source, *map(str, range(200)))
    producer = transactional(bootstrap, unique("tx"))
    rounds = done = 0
    with consumer(bootstrap, group, source, isolation_level="read_committed") as running:
        while done < 200:
            rounds += 1
            messages = poll(running, min(10, 200 - done))
            producer.begin_transaction()
            for message in messages:
                producer.produce(target, str(int(message.value() or b"") * 2))
            positions = running.position(running.assignment())
            producer.send_offsets_to_transaction(positions, running.consumer_group_metadata(), TIMEOUT_S)
            if rounds % 3 == 0:
                producer.abort_transaction(TIMEOUT_S)
                for partition in running.committed(running.assignment(), timeout=TIMEOUT_S):
                    running.seek(partition)
            else:
                producer.commit_transaction(TIMEOUT_S)
                done += len(messages)
    with consumer(bootstrap, unique("reader"), isolation_level="read_committed") as running:
        assert read_all(running, target) == [str(number * 2) for number in range(200)]
    with consumer(bootstrap, group, source, isolation_level="read_committed") as running:
        assert running.poll(1.0) is None, "the group has committed everything"


def test_broker_is_killed(mortal: BrokerProcess, unique: Callable[[str], str]) -> None:
    """A killed broker loses no committed transaction, shows none before its end, and no aborted one ever."""
    topic, transactional_id = create(mortal.bootstrap_servers, unique("killed")), unique("tx")
    producer = transactional(mortal.bootstrap_servers, transactional_id)
    committed: set[int] = set()
    aborted: set[int] = set()
    unknown: set[int] = set()
    for number in range(40):
        aborts = number % 4 == 1
        try:
            producer.begin_transaction()
            for record in range(5):
                producer.produce(topic, f"{number}-{record}")
            assert producer.flush(TIMEOUT_S) == 0
            if number in (10, 21):
                mortal.kill()
                mortal.start()
            if aborts:
                producer.abort_transaction(TIMEOUT_S)
            else:
                producer.commit_transaction(TIMEOUT_S)
            (aborted if aborts else committed).add(number)
        except KafkaException as error:
            (aborted if aborts else unknown).add(number)
            if error.args[0].txn_requires_abort():
                producer.abort_transaction(TIMEOUT_S)
            else:
                producer = transactional(mortal.bootstrap_servers, transactional_id)
    assert len(unknown) <= 2
    with consumer(mortal.bootstrap_servers, unique("g"), isolation_level="read_committed") as running:
        seen = read_all(running, topic, timeout_s=60)
    check_history(seen, committed=committed, aborted=aborted, unknown=unknown, size=5)
