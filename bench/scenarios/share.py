"""A share group of one consumer that accepts what it gets: Kafka's own perf tool."""

from __future__ import annotations

from bench.load import Tools
from bench.scenarios.model import GB, Goal, Scenario, no_worse
from bench.servers import Server
from bench.wire import alter_group

RECORDS = 200_000
RECORD_BYTES = 1_000


def _share(server: Server, tools: Tools) -> dict[str, float]:
    group, topic = "sharing", "shared"
    tools.create_topic(server.bootstrap, topic, 6)
    properties = ["acks=all", "batch.size=131072", "linger.ms=5"]
    # A group gets whole batches, and so takes more than it wanted: there must be enough for both runs.
    tools.produce(server.bootstrap, topic, records=RECORDS * 3 // 2, record_bytes=RECORD_BYTES, properties=properties)
    alter_group(server.port, group, "share.auto.offset.reset", "earliest")
    tools.share(server.bootstrap, topic, group=group, records=RECORDS // 5)
    before = server.cpu_seconds()
    rate = tools.share(server.bootstrap, topic, group=group, records=RECORDS)
    cpu = server.cpu_seconds() - before
    return {"consume MiB/s": rate, "CPU s": cpu, "CPU s/GB": cpu / (RECORDS * RECORD_BYTES / GB)}


SCENARIOS = (Scenario("share group", _share, (Goal("consume MiB/s", ratio_min=1.0), *no_worse("CPU s/GB"))),)
