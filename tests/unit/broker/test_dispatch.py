"""Handlers that fail: the client gets an answer or a closed connection, others notice nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from ottla.broker import dispatch as module
from ottla.broker.connection import NEEDS_TASK, Answer, NeedsTask, Refuse
from ottla.broker.dispatch import Dispatcher, failure
from ottla.broker.later import Later
from ottla.broker.metrics import Metrics
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.codec import encode_request
from ottla.protocol.header import decode_response_frame
from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.metadata import MetadataRequest
from ottla.protocol.versions import ApiKey


def answer(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, *, api: ApiKey = ApiKey.HEARTBEAT, version: int = 4
) -> Answer:
    """Have a handler of `api` end with `outcome`, raised if it is an exception."""

    async def handler(_context: Any, _request: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(module, "handler_of", lambda _api: handler)
    broker: Any = SimpleNamespace(metrics=Metrics())
    connection: Any = None
    message = HeartbeatRequest() if api is ApiKey.HEARTBEAT else MetadataRequest()
    request = (1, int(api), version, 7, "client", encode_request(api, version, message))
    return trio.run(Dispatcher(broker), connection, request)


def heartbeat_code(found: Answer | Later | NeedsTask) -> ErrorCode:
    assert isinstance(found, bytes)
    response: HeartbeatResponse = decode_response_frame(ApiKey.HEARTBEAT, 4, found).message
    return response.error_code


def test_a_kafka_error_becomes_the_responses_code(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(monkeypatch, KafkaError(ErrorCode.NOT_COORDINATOR))
    assert heartbeat_code(found) is ErrorCode.NOT_COORDINATOR


def test_a_bug_becomes_an_unknown_server_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heartbeat_code(answer(monkeypatch, RuntimeError("a bug"))) is ErrorCode.UNKNOWN_SERVER_ERROR


def test_a_bug_closes_where_the_response_has_no_place_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(monkeypatch, RuntimeError("a bug"), api=ApiKey.DESCRIBE_LOG_DIRS, version=1)
    assert isinstance(found, Refuse)


def test_a_response_that_cannot_be_encoded_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(answer(monkeypatch, HeartbeatResponse(throttle_time_ms=2**40)), Refuse)


def test_a_failure_names_its_reason_where_the_response_can() -> None:
    assert failure(ApiKey.DESCRIBE_CLUSTER, 0, ErrorCode.INVALID_REQUEST, "why").error_message == "why"
    assert isinstance(failure(ApiKey.CREATE_TOPICS, 7, ErrorCode.INVALID_REQUEST, "why"), Refuse)


class Quick:
    """A dispatcher with one plain handler, that is known to be one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
        monkeypatch.setattr(module, "handler_of", lambda _api: self._handle)
        self.outcome: Any = HeartbeatResponse()
        broker: Any = SimpleNamespace(metrics=Metrics())
        self.metrics: Metrics = broker.metrics
        self.dispatcher = Dispatcher(broker)
        assert self.begin() is NEEDS_TASK  # its family is imported aside
        assert heartbeat_code(trio.run(self.dispatcher, None, self._request())) is ErrorCode.NONE
        self.outcome = outcome

    def _handle(self, _context: Any, _request: Any) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    @staticmethod
    def _request(body: bytes | None = None, version: int = 4) -> Any:
        if body is None:
            body = encode_request(ApiKey.HEARTBEAT, 4, HeartbeatRequest())
        return (1, int(ApiKey.HEARTBEAT), version, 7, "client", body)

    def begin(self, body: bytes | None = None, version: int = 4) -> Answer | Later | NeedsTask:
        connection: Any = None
        return self.dispatcher.begin(connection, self._request(body, version))


def test_a_plain_handler_answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Quick(monkeypatch, HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))
    found = quick.begin()
    assert not isinstance(found, Later)
    assert heartbeat_code(found) is ErrorCode.REBALANCE_IN_PROGRESS
    assert quick.metrics.apis[ApiKey.HEARTBEAT].requests == 2


def test_what_a_plain_handler_has_to_wait_for_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> HeartbeatResponse:
        raise KafkaError(ErrorCode.NOT_COORDINATOR)

    later = Later(lambda: None)
    quick = Quick(monkeypatch, later)
    assert quick.begin() is later
    assert quick.metrics.apis[ApiKey.HEARTBEAT].requests == 1
    answers: list[Answer] = []
    later.then(lambda get: answers.append(get()))
    later.come(fail)
    assert heartbeat_code(answers[0]) is ErrorCode.NOT_COORDINATOR
    assert quick.metrics.apis[ApiKey.HEARTBEAT].errors == 1


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (KafkaError(ErrorCode.NOT_COORDINATOR), ErrorCode.NOT_COORDINATOR),
        (RuntimeError("a bug"), ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
def test_a_plain_handler_that_fails_is_answered_at_once(
    monkeypatch: pytest.MonkeyPatch, outcome: Exception, code: ErrorCode
) -> None:
    found = Quick(monkeypatch, outcome).begin()
    assert not isinstance(found, Later)
    assert heartbeat_code(found) is code


def test_what_cannot_be_read_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Quick(monkeypatch, HeartbeatResponse())
    assert isinstance(quick.begin(b"\xff"), Refuse)
    assert isinstance(quick.begin(version=99), Refuse)
    assert quick.metrics.malformed_requests == 1


def test_large_requests_are_left_to_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Quick(monkeypatch, HeartbeatResponse())
    large = encode_request(ApiKey.HEARTBEAT, 4, HeartbeatRequest(group_id="g" * module.LARGE_BYTES_MIN))
    assert quick.begin(large) is NEEDS_TASK
