"""Members that are overdue while nothing can be written: they are out once something can be."""

from __future__ import annotations

import pytest

from ottla.errors import ErrorCode
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext, settle
from tests.unit.coordinator.group.context import GROUP, GroupContext
from tests.unit.coordinator.group.sharers import ShareContext
from tests.unit.coordinator.group.test_group_conversion import rejoin, settled_classic

CONSUMER_SESSION_MS = 45_000
REBALANCE_MS = 30_000


def refuse_for(group: GroupContext, ms: int) -> None:
    """The disk is full for so long."""
    group.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    group.advance(ms)
    group.append_error = None


@pytest.mark.parametrize("sessions", [1, 3])
def test_a_silent_consumer(sessions: int) -> None:
    group = ConsumerContext()
    settle(Consumer(group, "a"))
    refuse_for(group, sessions * CONSUMER_SESSION_MS)
    assert len(group.describe_consumers().members) == 1
    group.advance(CONSUMER_SESSION_MS)
    assert len(group.describe_consumers().members) == 0


def test_a_silent_sharer() -> None:
    group = ShareContext()
    group.enter("a")
    refuse_for(group, CONSUMER_SESSION_MS)
    group.advance(CONSUMER_SESSION_MS)
    shares = group.machine.table.shares.get(GROUP)
    assert shares is not None
    assert len(shares.members) == 0


def test_the_last_consumer_among_members_by_the_classic_protocol() -> None:
    group = ConsumerContext()
    _, (a,) = settled_classic(group, None)
    b = Consumer(group, "b")
    b.poll()
    rejoin(group, a, 0, 1, 2, 3)
    generation_id, _ = rejoin(group, a, 0, 1)

    def stay_for(ms: int) -> None:
        for _ in range(10):
            group.advance(ms // 10)
            group.heartbeat(a, generation_id)

    b.poll()
    group.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    stay_for(CONSUMER_SESSION_MS)
    group.append_error = None
    assert len(group.describe_consumers().members) == 2
    stay_for(CONSUMER_SESSION_MS)
    assert group.list(types=["classic"]) == {GROUP: "PreparingRebalance"}


def test_a_consumer_that_keeps_what_it_is_to_give_up() -> None:
    group = ConsumerContext()
    a, b = Consumer(group, "a"), Consumer(group, "b")
    a.poll()
    b.poll()
    a.poll()
    for _ in range(2):
        group.stay("a", a.epoch)
        b.poll()
        refuse_for(group, REBALANCE_MS // 2)
    assert len(b.partitions) == 0
    for _ in range(2):
        group.stay("a", a.epoch)
        group.advance(REBALANCE_MS // 2)
    settle(b)
    assert len(b.partitions) == 4
