"""What passes between the two coordinators of share groups."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, cast

import trio
import trio.testing

from ottla.broker.share_groups import ShareGroups
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.share import NamedSet
from ottla.coordinator.group.share_states import Moved
from ottla.coordinator.shard import Outcome, Reply
from ottla.protocol.messages.alter_share_group_offsets import (
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsResponse,
)
from ottla.protocol.messages.initialize_share_group_state import InitializeShareGroupStateResponse

TOPIC = uuid.UUID(int=7)
RESPONSE = AlterShareGroupOffsetsResponse(throttle_time_ms=1)


class Groups:
    """A group coordinator, the runtime of which is itself: what is asked is committed when a test says so."""

    def __init__(self) -> None:
        self.runtime = self.share_states = self.share_heartbeats = self
        self.initialize_states: Any = None
        self.committed = trio.Event()
        self.begun: Any = None

    def partition_for(self, group_id: str) -> int:
        return 0

    async def ask(self, partition: int, decide: Callable[[Any, int, Any], Outcome]) -> object:
        outcome = decide(self, 5, None)
        (reply,) = [reply for write in outcome.writes for reply in write.replies]
        assert reply.token == 5
        if self.begun is not None:
            await self.committed.wait()
        return reply.response

    def alter(self, request: AlterShareGroupOffsetsRequest, caller: Caller) -> Outcome:
        moved = Moved(RESPONSE, 1, {TOPIC: {0: 3}}, {TOPIC: NamedSet("t", frozenset({0}))})
        return Outcome().write((), Reply(caller.token, moved))

    def initialized(self, group_id: str, begun: Any, failed: Any) -> Outcome:
        self.begun = begun
        return Outcome().write(())


class States:
    async def ensure_topic(self) -> None:
        pass

    async def initialize_share_group_state(self, request: object) -> InitializeShareGroupStateResponse:
        return InitializeShareGroupStateResponse()


def test_who_moves_a_group_is_answered_when_those_who_ask_see_it() -> None:
    answers: list[AlterShareGroupOffsetsResponse] = []

    async def main() -> None:
        groups = Groups()
        shares = ShareGroups(
            cast(Any, None), cast(Any, groups), cast(Any, States()), image=cast(Any, None), on_moved=lambda *_: None
        )

        async def alter() -> None:
            answers.append(
                await shares.alter_offsets(AlterShareGroupOffsetsRequest(group_id="g"), Caller(0, 0, "c", "/h", ""))
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(alter)
            await trio.testing.wait_all_tasks_blocked()
            assert groups.begun == {TOPIC: NamedSet("t", frozenset({0}))}
            assert not answers
            groups.committed.set()

    trio.run(main)
    assert answers == [RESPONSE]
