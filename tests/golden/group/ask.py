"""Ask a running Apache Kafka for the answers to all scenarios and keep them.

`python -m tests.golden.group.ask PORT` needs a lone broker of the version that the file is named after, with
`group.initial.rebalance.delay.ms=0`; it creates the topic.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.versions import ApiKey
from tests.golden.group.play import TOPIC, Player
from tests.golden.group.scenarios import SCENARIOS
from tests.integration.wire import Wire

ANSWERS = Path(__file__).with_name("kafka-4.3.1.json")


def main() -> None:
    port = int(sys.argv[1])
    with Wire(port) as wire:
        topic = CreatableTopic(name=TOPIC, num_partitions=2, replication_factor=1)
        wire.ask(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=(topic,), timeout_ms=10_000))
        wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("any",)))
    time.sleep(3)
    player = Player(port)
    answers = {}
    for number, (name, steps) in enumerate(SCENARIOS.items()):
        answers[name] = player.play(steps, group_id=f"golden-{int(time.time())}-{number}")
        print(f"{name}: {len(answers[name])} answers", flush=True)
    ANSWERS.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
