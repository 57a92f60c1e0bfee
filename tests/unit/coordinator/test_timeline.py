"""The committed view, the latest view, and taking back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.timeline import Timeline, TimelineDict


def test_a_change_is_seen_at_once_but_committed_only_below_the_high_watermark() -> None:
    timeline = Timeline()
    d: TimelineDict[str, int] = TimelineDict(timeline)
    d.put("a", 1, offset=0)
    d.put("a", 2, offset=1)
    assert (d.get("a"), d.get_committed("a")) == (2, None)
    timeline.commit(1)
    assert (d.get("a"), d.get_committed("a")) == (2, 1)
    timeline.commit(2)
    assert dict(d.committed_items()) == {"a": 2}


def test_rollback_brings_back_what_was_removed() -> None:
    timeline = Timeline()
    d: TimelineDict[str, int] = TimelineDict(timeline)
    d.put("a", 1, offset=0)
    timeline.commit(1)
    d.remove("a", offset=1)
    d.put("b", 2, offset=2)
    timeline.rollback(1)
    assert dict(d.items()) == {"a": 1}
    assert not d.is_blank


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 3), st.integers()),
            st.tuples(st.just("remove"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("commit"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("rollback"), st.integers(0, 5), st.just(0)),
        )
    )
)
def test_both_views_equal_replaying_the_log_up_to_their_offset(steps: list[tuple[str, int, int]]) -> None:
    timeline = Timeline()
    d: TimelineDict[int, int] = TimelineDict(timeline)
    log: list[tuple[int, int | None]] = []
    high_watermark = 0

    def replayed(end: int) -> dict[int, int]:
        state: dict[int, int] = {}
        for key, value in log[:end]:
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        return state

    for step, number, value in steps:
        match step:
            case "put":
                d.put(number, value, offset=len(log))
                log.append((number, value))
            case "remove":
                d.remove(number, offset=len(log))
                log.append((number, None))
            case "commit":
                high_watermark = min(len(log), high_watermark + number)
                timeline.commit(high_watermark)
            case "rollback":
                end = max(high_watermark, len(log) - number)
                timeline.rollback(end)
                del log[end:]
        assert dict(d.items()) == replayed(len(log))
        assert dict(d.committed_items()) == replayed(high_watermark)
        assert d.has_committed == bool(replayed(high_watermark))
