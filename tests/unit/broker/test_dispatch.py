"""Handlers that fail: the client gets an answer or a closed connection, others notice nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from ottla.broker import dispatch as module
from ottla.broker.connection import Answer, Refuse
from ottla.broker.dispatch import Dispatcher, failure
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


def heartbeat_code(found: Answer) -> ErrorCode:
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
