"""Have an Apache Kafka write two small partitions: `python -m tests.golden.directory.record BOOTSTRAP LOG_DIR`.

Stop the broker cleanly afterwards and run it again with `--copy` to take the directories along. `plain` has several
segments with batches of every codec; `compact` has been compacted, so that its offsets have gaps. What a consumer read
from them is kept beside them.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

HERE = Path(__file__).parent
T0_MS = 1_700_000_000_000
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def create(bootstrap: str, topic: str, **config: str) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap})
    settings = {key.replace("_", "."): value for key, value in config.items()}
    client.create_topics([NewTopic(topic, 1, 1, config={"retention.ms": "-1"} | settings)])[topic].result(20)


def fill_plain(bootstrap: str) -> None:
    """Three rounds of all codecs; the third round's times are late enough for a new segment each."""
    create(bootstrap, "plain", segment_ms="60000")
    for round_number in range(3):
        for position, codec in enumerate(CODECS):
            settings = {"compression.type": codec, "linger.ms": 50, "enable.idempotence": round_number == 1}
            producer = Producer({"bootstrap.servers": bootstrap} | settings)
            for number in range(20):
                at_ms = T0_MS + (round_number * 100_000) + position * 40_000 * (round_number == 2) + number
                value = None if number == 7 else f"{codec} {round_number} {number} ".encode() * 4
                headers = [("codec", codec.encode()), ("number", None)] if number % 5 == 0 else None
                producer.produce("plain", value, key=f"key {number}", headers=headers, timestamp=at_ms)
            assert producer.flush(20) == 0


def fill_compact(bootstrap: str) -> None:
    """Overwritten keys and a tombstone; waits for the cleaner."""
    config = {"min_cleanable_dirty_ratio": "0.01", "segment_ms": "1000", "delete_retention_ms": "100000000000"}
    create(bootstrap, "compact", cleanup_policy="compact", **config)
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 20})
    for number in range(60):
        value = None if number == 31 else f"value {number}"
        producer.produce("compact", value, key=f"key {number % 7}", timestamp=T0_MS + 50 * number)
        if number % 6 == 5:
            assert producer.flush(20) == 0
    for _ in range(120):
        if len(read(bootstrap, "compact")) < 40:
            return
        time.sleep(0.5)
    raise AssertionError("not compacted within a minute")


def read(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    settings = {"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False}
    consumer = Consumer(settings | {"enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[dict[str, Any]] = []
    while True:
        message = consumer.poll(20)
        assert message is not None
        if message.error():
            consumer.close()
            return found
        value, headers = message.value(), message.headers()
        record = {"offset": message.offset(), "time": message.timestamp()[1], "key": (message.key() or b"").decode()}
        record["value"] = None if value is None else value.decode()
        if headers:
            record["headers"] = [[name, None if data is None else data.decode()] for name, data in headers]
        found.append(record)


def main(bootstrap: str, log_dir: str, copy: str = "") -> None:
    for topic in ("plain", "compact"):
        if copy:
            shutil.copytree(
                Path(log_dir) / f"{topic}-0", HERE / f"{topic}-0", ignore=shutil.ignore_patterns("*.deleted")
            )
        else:
            (fill_plain if topic == "plain" else fill_compact)(bootstrap)
            records = read(bootstrap, topic)
            (HERE / f"{topic}.json").write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
