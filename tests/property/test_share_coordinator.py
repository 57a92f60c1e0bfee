"""The share coordinator under any sequence of requests, restarts and pruning, against a plain model.

What must hold: the state is the model's, offset by offset; whoever comes with an epoch that was succeeded is refused; a
restart, also from a log that was pruned as far as it may be, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ottla.coordinator.share.config import ShareCoordinatorConfig
from ottla.coordinator.share.state import SharePartition
from ottla.errors import ErrorCode
from tests.unit.coordinator.share.share_lab import KEY, ShareLab

OTHER = KEY._replace(partition=1)


@dataclass(frozen=True)
class Model:
    """What is known of one share partition."""

    state_epoch: int
    start_offset: int
    leader_epoch: int = 0
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)
    """(delivery count, state) by offset."""


class ShareCoordinatorModel(RuleBasedStateMachine):
    @initialize(updates=st.integers(0, 4))
    def start(self, updates: int) -> None:
        self.lab = ShareLab(ShareCoordinatorConfig(snapshot_update_records_per_snapshot=updates))
        self.known: dict[SharePartition, Model] = {}
        self.fences: dict[SharePartition, tuple[int, int]] = {}
        """The highest leader and state epochs of a state's life."""

    keys = st.sampled_from([KEY, OTHER])

    def fence(self, key: SharePartition, leader: int, epoch: int) -> None:
        before = self.fences.get(key, (0, 0))
        self.fences[key] = (max(before[0], leader), max(before[1], epoch))

    @rule(key=keys, start=st.integers(-1, 20), epoch=st.integers(0, 5))
    def begin(self, key: SharePartition, start: int, epoch: int) -> None:
        answer = self.lab.initialize(start, state_epoch=epoch, key=key)
        if key in self.fences and epoch < self.fences[key][1]:
            assert answer.error_code is ErrorCode.FENCED_STATE_EPOCH
            return
        assert answer.error_code is ErrorCode.NONE
        self.known[key] = Model(epoch, start)
        self.fence(key, 0, epoch)

    @rule(key=keys, leader=st.integers(-1, 5))
    def lead(self, key: SharePartition, leader: int) -> None:
        answer = self.lab.read(leader, key)
        if key not in self.known:
            assert answer.error_code is ErrorCode.INVALID_REQUEST
        elif leader not in (-1, *range(self.fences[key][0], 6)):
            assert answer.error_code is ErrorCode.FENCED_LEADER_EPOCH
        else:
            self.check(key, answer)
            if leader != -1:
                if leader != self.fences[key][0]:
                    self.known[key] = replace(self.known[key], leader_epoch=leader)
                self.fence(key, leader, 0)

    @rule(
        key=keys,
        first=st.integers(0, 20),
        size=st.integers(0, 6),
        state=st.sampled_from([0, 2, 4]),
        count=st.integers(0, 3),
        start=st.integers(-1, 15),
        leader=st.integers(-1, 5),
        epoch=st.integers(-1, 5),
    )
    def write(
        self, key: SharePartition, first: int, size: int, state: int, count: int, start: int, leader: int, epoch: int
    ) -> None:
        batch = (first, first + size, state, count)
        answer = self.lab.write(batch, start_offset=start, state_epoch=epoch, leader_epoch=leader, key=key)
        if key not in self.known:
            assert answer.error_code is ErrorCode.INVALID_REQUEST
            return
        leader_max, epoch_max = self.fences[key]
        if leader != -1 and leader < leader_max:
            assert answer.error_code is ErrorCode.FENCED_LEADER_EPOCH
        elif epoch != -1 and epoch < epoch_max:
            assert answer.error_code is ErrorCode.FENCED_STATE_EPOCH
        else:
            assert answer.error_code is ErrorCode.NONE
            known = self.known[key]
            begins = known.start_offset if start == -1 else start
            offsets = dict(known.offsets)
            for offset in range(first, first + size + 1):
                offsets[offset] = max(offsets.get(offset, (count, state)), (count, state))
            offsets = {offset: has for offset, has in offsets.items() if offset >= begins}
            self.known[key] = replace(known, start_offset=begins, offsets=offsets)

    @rule(key=keys)
    def delete(self, key: SharePartition) -> None:
        assert self.lab.delete(key).error_code is ErrorCode.NONE
        self.known.pop(key, None)
        self.fences.pop(key, None)

    @rule()
    def restart(self) -> None:
        self.lab.begin()

    @rule()
    def prune(self) -> None:
        self.lab.prune(self.lab.machine.prunable())
        for key, known in self.known.items():
            # Of the leaders before a state was begun anew only the records tell that have gone now.
            state = self.lab.machine._states.get(key)
            assert state is not None
            assert known.leader_epoch <= state.leader_epoch_max <= self.fences[key][0]
            assert state.state_epoch_max == self.fences[key][1]
            self.fences[key] = (state.leader_epoch_max, state.state_epoch_max)

    @rule()
    def time_passes(self) -> None:
        self.lab.tick(self.lab.now_ms + 300_000)

    def check(self, key: SharePartition, answer: Any) -> None:
        known = self.known[key]
        assert (answer.state_epoch, answer.start_offset) == (known.state_epoch, known.start_offset)
        offsets = {
            offset: (batch.delivery_count, batch.delivery_state)
            for batch in answer.state_batches
            for offset in range(batch.first_offset, batch.last_offset + 1)
        }
        assert offsets == known.offsets

    @invariant()
    def reads_are_the_models(self) -> None:
        for key in (KEY, OTHER) if hasattr(self, "lab") else ():
            answer = self.lab.read(-1, key)
            if key in self.known:
                self.check(key, answer)
            else:
                assert answer.error_code is ErrorCode.INVALID_REQUEST


ShareCoordinatorModel.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestShareCoordinator = ShareCoordinatorModel.TestCase
