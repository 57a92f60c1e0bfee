"""Deadlines fire once, at their true time, in order, and renewing one does not grow the heap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.timers import Deadline, Timers


def test_a_renewed_deadline_fires_at_its_new_time_only() -> None:
    timers: Timers[str] = Timers()
    session = Deadline("session")
    timers.schedule(session, 10)
    timers.schedule(session, 30)
    assert timers.pop_due(29) is None
    assert timers.next_deadline_ms() == 30
    assert timers.pop_due(30) == "session"
    assert timers.pop_due(1000) is None


def test_renewing_a_thousand_times_costs_no_memory() -> None:
    timers: Timers[str] = Timers()
    session = Deadline("session")
    for now_ms in range(1000):
        timers.schedule(session, now_ms + 45_000)
    assert len(timers._heap) == 1


@given(st.lists(st.tuples(st.sampled_from(["schedule", "cancel", "advance"]), st.integers(0, 3), st.integers(0, 20))))
def test_timers_agree_with_a_plain_dictionary(steps: list[tuple[str, int, int]]) -> None:
    timers: Timers[int] = Timers()
    deadlines = [Deadline(i) for i in range(4)]
    model: dict[int, int] = {}
    now_ms = 0
    for step, which, number in steps:
        match step:
            case "schedule":
                timers.schedule(deadlines[which], now_ms + number)
                model[which] = now_ms + number
            case "cancel":
                timers.cancel(deadlines[which])
                model.pop(which, None)
            case "advance":
                now_ms += number
                fired = []
                while (event := timers.pop_due(now_ms)) is not None:
                    fired.append((model[event], event))
                assert [at for at, _ in fired] == sorted(at for at, _ in fired)
                assert {e for _, e in fired} == {e for e, at in model.items() if at <= now_ms}
                for _, event in fired:
                    del model[event]
        assert timers.next_deadline_ms() == min(model.values(), default=None)
