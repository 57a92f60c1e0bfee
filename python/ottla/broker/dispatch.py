"""From an owed request to its answer: decode, call the handler of its API, encode.

`ADVERTISED` is what ApiVersions names: the APIs with a handler here and the two that the native session serves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

import trio

from ottla.broker.clock import wall_ms
from ottla.broker.connection import NEEDS_TASK, Answer, Connection, NeedsTask, Refuse
from ottla.broker.context import Broker, RequestContext
from ottla.broker.event_log import EventLog
from ottla.broker.handlers import FAMILY_OF, Handler, handler_of, respond
from ottla.broker.later import Get, Later
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.codec import decode_request, response_class
from ottla.protocol.errors import MalformedMessage
from ottla.protocol.header import encode_response_frame
from ottla.protocol.messages.api_versions import ApiVersion, ApiVersionsResponse
from ottla.protocol.schema import message_shape
from ottla.protocol.versions import API_VERSIONS, ApiKey

if TYPE_CHECKING:
    from ottla._native import Request

log = EventLog("dispatch")

NATIVE: Final = (ApiKey.PRODUCE, ApiKey.FETCH)
LARGE_BYTES_MIN: Final = 64 * 1024
"""Requests of this size may take long to decode, and their responses to encode: a thread does both."""
LARGE_REQUESTS_MAX: Final = 2
"""So many of them at a time."""
ADVERTISED: Final[Mapping[ApiKey, tuple[int, int]]] = {
    api: versions for api, versions in API_VERSIONS.items() if api in FAMILY_OF or api in NATIVE
}


class Dispatcher:
    """Answers the requests that sessions hand to Python."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._routes: dict[int, tuple[ApiKey, int, int]] = {int(api): (api, *ADVERTISED[api]) for api in FAMILY_OF}
        self._handlers: dict[ApiKey, Handler] = {}
        self._quick: set[int] = set()
        """The keys whose handlers are known to be plain functions."""
        self._threads = trio.CapacityLimiter(LARGE_REQUESTS_MAX)

    def begin(self, connection: Connection, request: Request) -> Answer | Later | NeedsTask:
        """Answer a request if its handler need not wait, or can be called back.

        A task costs more than all of a heartbeat, so what can do without has none.
        """
        _, key, version, correlation_id, client_id, body = request
        if key not in self._quick or len(body) >= LARGE_BYTES_MIN:
            return NEEDS_TASK
        api, low, high = self._routes[key]
        if not low <= version <= high:
            return _unsupported(api, version, correlation_id)
        try:
            message = decode_request(api, version, body)
        except MalformedMessage as error:
            return self._malformed(error)
        started_ns = time.monotonic_ns()
        context = RequestContext(self._broker, connection, api, version, client_id, started_ns // 1_000_000, wall_ms())
        try:
            response = self._handlers[api](context, message)
        except Exception as error:
            return self._encode(context, correlation_id, self._failed(context, error, started_ns))
        if isinstance(response, Later):
            return response.then(partial(self._finish, context, request, started_ns))
        self._count(context, started_ns)
        return self._answer(context, request, response)

    async def __call__(self, connection: Connection, request: Request) -> Answer:
        """Answer a request, whatever it takes."""
        _, key, version, correlation_id, client_id, body = request
        route = self._routes.get(key)
        if route is None:
            return Refuse(f"API key {key} is unknown")
        api, low, high = route
        if not low <= version <= high:
            return _unsupported(api, version, correlation_id)
        try:
            message = await self._aside(body, partial(decode_request, api, version, body))
        except MalformedMessage as error:
            return self._malformed(error)
        handler = self._handlers.get(api) or self._learn(api)
        started_ns = time.monotonic_ns()
        context = RequestContext(self._broker, connection, api, version, client_id, started_ns // 1_000_000, wall_ms())
        try:
            response = await respond(handler, context, message)
            self._count(context, started_ns)
        except Exception as error:
            response = self._failed(context, error, started_ns)
        answer: Answer = await self._aside(body, partial(self._encode, context, correlation_id, response))
        return answer

    def _answer(self, context: RequestContext, request: Request, response: Any) -> Answer:
        """The answer; it may be the last of its kind that is made here."""
        answer = self._encode(context, request[3], response)
        if context.stands is not None and isinstance(answer, bytes):
            self._broker.coordinator.let_stand(context.stands, context.connection, request, answer)
        return answer

    def _finish(self, context: RequestContext, request: Request, started_ns: int, get: Get) -> Answer:
        """The answer out of what a handler could not have at once."""
        try:
            response = get()
            self._count(context, started_ns)
        except Exception as error:
            response = self._failed(context, error, started_ns)
        return self._answer(context, request, response)

    def _learn(self, api: ApiKey) -> Handler:
        handler = self._handlers[api] = handler_of(api)
        if not iscoroutinefunction(handler):
            self._quick.add(int(api))
        return handler

    def _malformed(self, error: MalformedMessage) -> Refuse:
        self._broker.metrics.malformed_requests += 1
        return Refuse(str(error))

    def _failed(self, context: RequestContext, error: Exception, started_ns: int) -> Any:
        """The response that tells of an error, which is counted."""
        self._count(context, started_ns, failed=True)
        api, version = context.api, context.version
        if isinstance(error, KafkaError):
            return failure(api, version, error.code, error.message)
        log.error("handler_failed", api=api.name, version=version, client_id=context.client_id, error=error)
        return failure(api, version, ErrorCode.UNKNOWN_SERVER_ERROR, None)

    def _count(self, context: RequestContext, started_ns: int, *, failed: bool = False) -> None:
        duration_us = (time.monotonic_ns() - started_ns) // 1000
        self._broker.metrics.on_request(context.api, duration_us=duration_us, failed=failed)

    @staticmethod
    def _encode(context: RequestContext, correlation_id: int, response: Any) -> Answer:
        if isinstance(response, Refuse):
            return response
        api, version = context.api, context.version
        try:
            return encode_response_frame(api, version, response, correlation_id=correlation_id)
        except Exception as error:
            log.error("response_not_encoded", api=api.name, version=version, client_id=context.client_id, error=error)
            return Refuse(f"the response to {api.name} cannot be encoded")

    async def _aside(self, body: bytes, work: Callable[[], Any]) -> Any:
        """Do work whose length follows from a request's size where it holds nobody else up."""
        if len(body) < LARGE_BYTES_MIN:
            return work()
        return await trio.to_thread.run_sync(work, limiter=self._threads)


def _unsupported(api: ApiKey, version: int, correlation_id: int) -> Answer:
    """ApiVersions is answered in version 0, with the range of itself: all that any client can read (KIP-511)."""
    if api is not ApiKey.API_VERSIONS:
        return Refuse(f"{api.name} version {version} is not supported")
    low, high = API_VERSIONS[ApiKey.API_VERSIONS]
    response = ApiVersionsResponse(
        error_code=ErrorCode.UNSUPPORTED_VERSION,
        api_keys=(ApiVersion(api_key=ApiKey.API_VERSIONS, min_version=low, max_version=high),),
    )
    return encode_response_frame(ApiKey.API_VERSIONS, 0, response, correlation_id=correlation_id)


def failure(api: ApiKey, version: int, code: ErrorCode, message: str | None) -> Any:
    """A response that says only that the whole request failed; Refuse where this version has no place for that."""
    fields = {shape.name for shape in message_shape(api, version, "response").fields}
    if "error_code" not in fields:
        return Refuse(f"{api.name} failed with {code.name}")
    return response_class(api)(
        error_code=code, **({"error_message": message} if message and "error_message" in fields else {})
    )
