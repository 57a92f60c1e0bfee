"""Offsets in transactions under any order of commits, markers, lost writes and restarts.

What must hold: an offset that was committed, plainly or by a marker, stays until a later one; none of a transaction is
seen before its marker is committed; none of an aborted one ever; and a broker that loads the log says the same.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ottla.errors import ErrorCode
from tests.unit.coordinator.group.transactional import TransactionalContext

PARTITIONS = [("topic", i) for i in range(3)]
PRODUCERS = st.sampled_from([1, 2, 3])
AT = st.sampled_from(PARTITIONS)
NOTHING = -1

Offsets = dict[tuple[str, int], int]
Pending = dict[int, dict[tuple[str, int], tuple[int, int]]]
"""By producer: partition to (offset wanted, position in the log)."""


class World:
    """What the log says, in the simplest words: one step a record, kept so that steps can be lost."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], None]] = []
        self._clear()

    def _clear(self) -> None:
        self.committed: dict[tuple[str, int], tuple[int, int]] = {}
        self.pending: Pending = {}

    def view(self, length: int) -> tuple[Offsets, set[tuple[str, int]]]:
        """Committed offsets, and partitions with pending ones, after the first `length` records."""
        self._clear()
        for step in self.steps[:length]:
            step()
        return (
            {at: value for at, (value, _) in self.committed.items()},
            {at for wanted in self.pending.values() for at in wanted},
        )

    def plain(self, at: tuple[str, int], offset: int) -> None:
        position = len(self.steps)

        def step() -> None:
            self.committed[at] = (offset, position)

        self.steps.append(step)

    def wanted(self, producer_id: int, at: tuple[str, int], offset: int) -> None:
        position = len(self.steps)

        def step() -> None:
            self.pending.setdefault(producer_id, {})[at] = (offset, position)

        self.steps.append(step)

    def ended(self, producer_id: int, *, commit: bool) -> None:
        def step() -> None:
            for at, (offset, position) in self.pending.pop(producer_id, {}).items():
                if commit and self.committed.get(at, (0, -1))[1] < position:
                    self.committed[at] = (offset, position)

        self.steps.append(step)


class TransactionalOffsetsModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.group = TransactionalContext()
        self.world = World()
        self.next_offset = 0

    def take_offset(self) -> int:
        self.next_offset += 1
        return self.next_offset

    @rule(at=AT)
    def commit(self, at: tuple[str, int]) -> None:
        offset = self.take_offset()
        self.group.begin_commit({at: offset})
        self.world.plain(at, offset)

    @rule(producer_id=PRODUCERS, wanted=st.lists(AT, unique=True, min_size=1))
    def commit_in_transaction(self, producer_id: int, wanted: list[tuple[str, int]]) -> None:
        offset = self.take_offset()
        self.group.begin_txn_commit(producer_id, dict.fromkeys(wanted, offset))
        for at in wanted:
            self.world.wanted(producer_id, at, offset)

    @rule(producer_id=PRODUCERS, commit=st.booleans())
    def end(self, producer_id: int, *, commit: bool) -> None:
        self.group.begin_end(producer_id, commit=commit)
        self.world.ended(producer_id, commit=commit)

    @rule()
    def hold(self) -> None:
        self.group.holding = True

    @rule(part=st.floats(0, 1))
    def let_go(self, part: float) -> None:
        """The high watermark moves on, not always over everything."""
        behind = len(self.group.entries) - self.group.high_watermark
        self.group.commit(self.group.high_watermark + round(behind * part))
        self.group.holding = self.group.high_watermark < len(self.group.entries)

    @rule()
    def lose(self) -> None:
        self.group.lose_uncommitted()
        del self.world.steps[self.group.high_watermark :]
        self.group.holding = False

    @rule()
    def restart(self) -> None:
        self.group = self.group.restarted()
        del self.world.steps[self.group.high_watermark :]

    @invariant()
    def what_is_committed_is_what_the_log_says(self) -> None:
        committed, _ = self.world.view(self.group.high_watermark)
        expected = {at: committed.get(at, NOTHING) for at in PARTITIONS}
        assert self.group.fetch_offsets(*PARTITIONS) == expected
        assert self.group.restarted().fetch_offsets(*PARTITIONS) == expected

    @invariant()
    def what_is_open_is_unstable(self) -> None:
        if self.group.high_watermark < len(self.group.entries):
            return  # the answer waits
        committed, pending = self.world.view(len(self.world.steps))
        response = self.group.reply_to(self.group.begin_fetch_stable(*PARTITIONS))
        for topic in response.topics:
            for p in topic.partitions:
                at = (topic.name, p.partition_index)
                if at in pending:
                    assert p.error_code is ErrorCode.UNSTABLE_OFFSET_COMMIT
                else:
                    assert p.committed_offset == committed.get(at, NOTHING)


TestTransactionalOffsets = TransactionalOffsetsModel.TestCase
TestTransactionalOffsets.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
