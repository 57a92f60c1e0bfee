"""Share sessions: epochs, partitions, and whom they belong to."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import pytest

from ottla.errors import ErrorCode, KafkaError
from ottla.share.sessions import EPOCH_MAX, SessionKey, ShareSession, ShareSessions

TOPIC = uuid.UUID(int=1)
KEY = SessionKey("g", "m")


def fetch(sessions: ShareSessions, epoch: int, *wanted: int, key: SessionKey = KEY, **fields: Any) -> ShareSession:
    given = {"connection_id": 1, "forgotten": (), "acknowledges": False, "partitions_max": 5} | fields
    given["forgotten"] = [(TOPIC, i) for i in given["forgotten"]]
    return sessions.fetch(key, epoch, wanted=[(TOPIC, i) for i in wanted], **given)


def refusal(sessions: ShareSessions, epoch: int, *, wanted: Iterable[int] = (), **fields: Any) -> ErrorCode:
    with pytest.raises(KafkaError) as refused:
        fetch(sessions, epoch, *wanted, **fields)
    return refused.value.code


def test_a_session_goes_on_from_epoch_to_epoch() -> None:
    sessions = ShareSessions(10)
    assert refusal(sessions, 1) is ErrorCode.SHARE_SESSION_NOT_FOUND
    assert refusal(sessions, 0, acknowledges=True) is ErrorCode.INVALID_REQUEST
    session = fetch(sessions, 0, 1, 2)
    assert fetch(sessions, 1, 3, forgotten=(1,)) is session
    assert list(session.partitions) == [(TOPIC, 2), (TOPIC, 3)]
    for wrong in (1, 3, -2):
        assert refusal(sessions, wrong) is ErrorCode.INVALID_SHARE_SESSION_EPOCH
    assert sessions.acknowledge(KEY, 2) is session
    assert refusal(sessions, 2) is ErrorCode.INVALID_SHARE_SESSION_EPOCH
    fetch(sessions, 3)
    session.epoch = EPOCH_MAX
    fetch(sessions, EPOCH_MAX)
    assert session.epoch == 1


def test_nothing_is_acknowledged_as_a_session_begins() -> None:
    with pytest.raises(KafkaError) as refused:
        ShareSessions(10).acknowledge(KEY, 0)
    assert refused.value.code is ErrorCode.INVALID_SHARE_SESSION_EPOCH


def test_the_last_request_changes_nothing() -> None:
    sessions = ShareSessions(10)
    session = fetch(sessions, 0, 1)
    assert fetch(sessions, -1, 2) is session
    assert list(session.partitions) == [(TOPIC, 1)]
    sessions.end(KEY)
    assert refusal(sessions, -1) is ErrorCode.SHARE_SESSION_NOT_FOUND


def test_sessions_end_with_their_connection() -> None:
    sessions = ShareSessions(10)
    other = SessionKey("g", "n")
    fetch(sessions, 0, connection_id=1)
    fetch(sessions, 0, key=other, connection_id=1)
    fetch(sessions, 0, connection_id=2)
    assert sessions.on_connection_closed(1) == [other], "the first has moved to another connection"
    assert len(sessions) == 1
    assert sessions.has_group("g")
    assert sessions.on_connection_closed(1) == []
    assert sessions.on_connection_closed(2) == [KEY]
    assert not sessions.has_group("g")


def test_there_are_only_so_many() -> None:
    sessions = ShareSessions(1)
    fetch(sessions, 0)
    fetch(sessions, 0)
    assert refusal(sessions, 0, key=SessionKey("g", "n")) is ErrorCode.SHARE_SESSION_LIMIT_REACHED
    sessions.end(KEY)
    fetch(sessions, 0, key=SessionKey("g", "n"))


def test_a_session_has_no_more_partitions_than_there_can_be() -> None:
    sessions = ShareSessions(10)
    assert refusal(sessions, 0, wanted=range(6)) is ErrorCode.INVALID_REQUEST
    session = fetch(sessions, 0, 0, 1, 2, 3)
    assert refusal(sessions, 1, wanted=(4, 5)) is ErrorCode.INVALID_REQUEST
    fetch(sessions, 1, 0, 1, 2, 4, forgotten=(0,))
    assert len(session.partitions) == 4


def test_each_partition_has_its_turn() -> None:
    sessions = ShareSessions(10)
    session = fetch(sessions, 0, 0, 1, 2)
    firsts = []
    for epoch in range(1, 7):
        firsts.append(session.rotated()[0][1])
        assert sorted(session.rotated()) == [(TOPIC, i) for i in range(3)]
        fetch(sessions, epoch)
    assert firsts == [0, 1, 2, 0, 1, 2]
