"""aiokafka, the client of asyncio."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiokafka
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ottla.testing.broker import BrokerProcess

CLIENT = ("aiokafka", aiokafka.__version__)
TIMEOUT_S = 20.0


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def create(bootstrap: str, topic: str, *, partitions: int = 1) -> str:
    async with admin(bootstrap) as client:
        await client.create_topics([NewTopic(topic, partitions, 1)])
    return topic


@asynccontextmanager
async def producer(bootstrap: str, **config: Any) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **config) as running:
        yield running


@asynccontextmanager
async def consumer(bootstrap: str, group: str | None, *topics: str, **config: Any) -> AsyncIterator[AIOKafkaConsumer]:
    settings = {
        "group_id": group,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 500,
    }
    async with AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, **(settings | config)) as running:
        yield running


async def poll(running: AIOKafkaConsumer, count: int, *, timeout_s: float = TIMEOUT_S) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(timeout_s):
        while len(found) < count:
            for records in (await running.getmany(timeout_ms=200)).values():
                found += records
    return found


def values(records: list[Any]) -> list[str]:
    return [record.value.decode() for record in records]


def bounded(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(120):
            await test

    asyncio.run(main())


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_round_trip(bootstrap: str, unique: Callable[[str], str], codec: str | None) -> None:
    """Produces and consumes with every codec."""

    async def test() -> None:
        topic = await create(bootstrap, unique(f"codec-{codec}"))
        sent = [f"value {number} " * 20 for number in range(300)]
        async with producer(bootstrap, compression_type=codec, linger_ms=10) as running:
            futures = [await running.send(topic, value.encode()) for value in sent]
            assert [(await future).offset for future in futures] == list(range(300))
        async with consumer(bootstrap, None, topic) as reader:
            assert values(await poll(reader, 300)) == sent

    bounded(test())


@pytest.mark.parametrize("config", [{"acks": 0}, {"acks": 1}, {"acks": "all"}, {"enable_idempotence": True}], ids=str)
def test_acknowledgements(bootstrap: str, unique: Callable[[str], str], config: dict[str, Any]) -> None:
    """Produces with acks 0, 1 and all, and idempotently."""

    async def test() -> None:
        topic = await create(bootstrap, unique("acks"))
        async with producer(bootstrap, **config) as running:
            for value in (b"a", b"b", b"c"):
                await running.send(topic, value)
        async with consumer(bootstrap, None, topic) as reader:
            assert values(await poll(reader, 3)) == ["a", "b", "c"]

    bounded(test())


def test_keys_headers_and_timestamps(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Keys, null values, headers and timestamps come back as they were sent."""

    async def test() -> None:
        topic = await create(bootstrap, unique("headers"))
        headers = [("trace", b"\x00\xff"), ("trace", b"again")]
        async with producer(bootstrap) as running:
            await running.send_and_wait(topic, None, key=b"k\x00", headers=headers, timestamp_ms=1_700_000_000_123)
        async with consumer(bootstrap, None, topic) as reader:
            record = (await poll(reader, 1))[0]
        assert (record.key, record.value, list(record.headers)) == (b"k\x00", None, headers)
        assert record.timestamp == 1_700_000_000_123

    bounded(test())


def test_offsets_and_seeking(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Seeks by offset and by time, and knows the ends of a partition."""

    async def test() -> None:
        topic = await create(bootstrap, unique("seek"))
        partition = TopicPartition(topic, 0)
        async with producer(bootstrap) as running:
            for number in range(10):
                await running.send_and_wait(topic, str(number).encode(), timestamp_ms=1_700_000_000_000 + 1000 * number)
        async with consumer(bootstrap, None) as reader:
            reader.assign([partition])
            assert await reader.beginning_offsets([partition]) == {partition: 0}
            assert await reader.end_offsets([partition]) == {partition: 10}
            assert (await reader.offsets_for_times({partition: 1_700_000_003_500}))[partition].offset == 4
            assert (await reader.offsets_for_times({partition: 1_800_000_000_000}))[partition] is None
            reader.seek(partition, 6)
            assert values(await poll(reader, 4)) == ["6", "7", "8", "9"]
            await reader.seek_to_beginning(partition)
            assert values(await poll(reader, 1))[0] == "0"

    bounded(test())


def test_commit_and_resume(bootstrap: str, unique: Callable[[str], str]) -> None:
    """A group resumes where it committed."""

    async def test() -> None:
        topic, group = await create(bootstrap, unique("resume")), unique("g")
        partition = TopicPartition(topic, 0)
        async with producer(bootstrap) as running:
            for number in range(10):
                await running.send(topic, str(number).encode())
        async with consumer(bootstrap, group, topic) as reader:
            await poll(reader, 10)
            await reader.commit({partition: 4})
            assert await reader.committed(partition) == 4
        async with consumer(bootstrap, group, topic) as reader:
            assert values(await poll(reader, 6)) == ["4", "5", "6", "7", "8", "9"]

    bounded(test())


def test_group_shares_work(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Members share the partitions, and take over from one that leaves."""

    async def test() -> None:
        topic, group = await create(bootstrap, unique("share"), partitions=4), unique("g")
        async with consumer(bootstrap, group, topic) as one:
            async with consumer(bootstrap, group, topic) as two:
                async with asyncio.timeout(TIMEOUT_S):
                    while not len(one.assignment()) == len(two.assignment()) == 2:
                        await asyncio.sleep(0.05)
                assert one.assignment() | two.assignment() == {TopicPartition(topic, index) for index in range(4)}
                async with producer(bootstrap) as running:
                    for number in range(80):
                        await running.send(topic, str(number).encode(), partition=number % 4)
                seen = Counter(values(await poll(one, 40) + await poll(two, 40)))
                assert len(seen) == 80
                assert set(seen.values()) == {1}
            async with asyncio.timeout(TIMEOUT_S):
                while len(one.assignment()) < 4:
                    await asyncio.sleep(0.05)

    bounded(test())


def test_administration(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Creates, describes, alters and deletes topics and configs; lists groups and their offsets."""

    async def test() -> None:
        topic, group = unique("admin"), unique("g")
        async with admin(bootstrap) as client:
            await client.create_topics([NewTopic(topic, 2, 1, topic_configs={"retention.ms": "1000000"})])
            assert topic in await client.list_topics()
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "2000000"})
            await client.alter_configs([resource])
            described = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            assert "2000000" in str(described)
            async with producer(bootstrap) as running:
                await running.send_and_wait(topic, b"a", partition=0)
            async with consumer(bootstrap, group, topic) as reader:
                await poll(reader, 1)
                await reader.commit()
            assert group in str(await client.list_consumer_groups())
            assert (await client.list_consumer_group_offsets(group))[TopicPartition(topic, 0)].offset == 1
            await client.delete_topics([topic])
            assert topic not in await client.list_topics()

    bounded(test())


def test_broker_is_killed(mortal: BrokerProcess, unique: Callable[[str], str]) -> None:
    """Nothing acknowledged is lost, doubled or reordered when the broker is killed and comes back."""

    async def test() -> None:
        bootstrap = mortal.bootstrap_servers
        topic, group = await create(bootstrap, unique("killed")), unique("g")
        async with producer(bootstrap, enable_idempotence=True) as running, consumer(bootstrap, group, topic) as reader:
            futures, found = [], []
            for number in range(1000):
                futures.append(await running.send(topic, str(number).encode(), partition=0))
                if number == 300:
                    await running.flush()
                    found += await poll(reader, 10)
                    await reader.commit()
                if number == 500:
                    await asyncio.to_thread(mortal.kill)
                    await asyncio.to_thread(mortal.start)
            offsets = [(await future).offset for future in futures]
            found += await poll(reader, 1000 - len(found), timeout_s=60)
        assert offsets == list(range(1000))
        assert values(found) == [str(number) for number in range(1000)]

    bounded(test())
