"""Every conversation that Apache Kafka 4.3.1 answered, answered the same by the handlers and the machine."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.golden.group.play import TOPIC, plain, settle_order, substitute
from tests.golden.group.scenarios import SCENARIOS
from tests.golden.group.steps import Receive, Send, Wait
from tests.unit.broker.group_fakes import FakeBroker, image_of

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/group/kafka-4.3.1.json").read_text())
TOPIC_ID = uuid.UUID(int=0xABC)


async def replay(name: str) -> list[Any]:
    broker = FakeBroker(image_of({TOPIC: (TOPIC_ID, 2), "__consumer_offsets": (uuid.UUID(int=2), 5)}))
    names: dict[str, Any] = {"g": "golden-group", "topic": TOPIC, "topic-id": TOPIC_ID}
    answers: list[Any] = []
    sent: dict[str, tuple[Send, trio.MemoryReceiveChannel[Any]]] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.coordinator.runtime.run)
        broker.coordinator.start_all()
        await trio.testing.wait_all_tasks_blocked()
        for step in SCENARIOS[name]:
            match step:
                case Wait(ms):
                    await trio.sleep(ms / 1000)
                case Send():
                    sender, receiver = trio.open_memory_channel[Any](1)
                    sent[step.connection] = (step, receiver)

                    async def call(step: Send = step, sender: trio.MemorySendChannel[Any] = sender) -> None:
                        message = substitute(step.message, names)
                        response = await broker.call(step.api, step.version, message, client_id=step.client_id)
                        await sender.send(response)

                    nursery.start_soon(call)
                    await trio.testing.wait_all_tasks_blocked()
                case Receive(connection, keep):
                    asked, receiver = sent[connection]
                    with trio.fail_after(60):
                        response = await receiver.receive()
                    for kept, field in keep.items():
                        names[kept] = getattr(response, field)
                    answers.append(settle_order(asked.api, plain(response, names), names))
        nursery.cancel_scope.cancel()
    return answers


@pytest.mark.parametrize("name", SCENARIOS)
def test_as_kafka_answers(name: str) -> None:
    async def main() -> list[Any]:
        return await replay(name)

    answers = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.001))
    receives = [s for s in SCENARIOS[name] if isinstance(s, Receive)]
    assert len(answers) == len(receives)
    for number, (ours, kafkas) in enumerate(zip(answers, GOLDEN[name], strict=True)):
        assert ours == kafkas, f"answer {number} of {name!r}"
