"""One line an event."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from ottla.broker.event_log import EVENTS_PER_SECOND_MAX, EventLog, configure_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    logger = logging.getLogger("ottla")
    logger.handlers.clear()
    logger.propagate = True


def test_text_is_one_line_with_quoted_values(stream: io.StringIO) -> None:
    configure_logging(level="info", as_json=False, stream=stream)
    EventLog("test").info("opened", host="h", reason='a "b"\nc', empty="")
    line = stream.getvalue()
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT[\d:.]{12}Z INFO opened host=h reason="a \\"b\\"\\nc" empty=""\n', line)


def test_json_carries_level_fields_and_traceback(stream: io.StringIO) -> None:
    configure_logging(level="info", as_json=True, stream=stream)
    try:
        raise ValueError("no")
    except ValueError as error:
        EventLog("test").error("failed", error=error, api="METADATA")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"], line["api"], line["error"]) == (
        "error",
        "failed",
        "METADATA",
        "ValueError: no",
    )
    assert "Traceback" in line["traceback"]


def test_levels_below_are_left_out(stream: io.StringIO) -> None:
    configure_logging(level="warning", as_json=False, stream=stream)
    EventLog("test").info("opened")
    assert stream.getvalue() == ""


def test_an_event_in_a_storm_is_cut_and_counted(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging(level="info", as_json=False, stream=stream)
    now_s = [100]
    monkeypatch.setattr("ottla.broker.event_log.time.monotonic_ns", lambda: now_s[0] * 1_000_000_000)
    events = EventLog("test")
    for _ in range(EVENTS_PER_SECOND_MAX + 7):
        events.info("storm")
    assert len(stream.getvalue().splitlines()) == EVENTS_PER_SECOND_MAX
    now_s[0] += 1
    events.info("storm")
    assert stream.getvalue().splitlines()[-1].endswith("storm left_out=7")
