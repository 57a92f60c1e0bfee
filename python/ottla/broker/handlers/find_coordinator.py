"""FindCoordinator: which broker a group, a transactional id or a share partition belongs to.

Source: Kafka's `KafkaApis.getCoordinator` (KIP-699 for batches of keys).
"""

from __future__ import annotations

from typing import Any, Final

from ottla.broker.context import RequestContext
from ottla.coordinator.share.state import is_share_partition_key
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse
from ottla.protocol.versions import ApiKey

KEY_TYPE_GROUP: Final = 0
KEY_TYPE_TRANSACTION: Final = 1
KEY_TYPE_SHARE: Final = 2
"""Keys are those of `SharePartition.coordinator_key`."""
_COORDINATORS: Final = {
    KEY_TYPE_GROUP: "coordinator",
    KEY_TYPE_TRANSACTION: "transactions",
    KEY_TYPE_SHARE: "share_coordinator",
}
_BATCHED_KEYS_VERSION: Final = 4
_SHARE_KEYS_VERSION: Final = 6


async def handle_find_coordinator(context: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse:
    if context.version >= _BATCHED_KEYS_VERSION:
        found = [await _find(context, request.key_type, key) for key in request.coordinator_keys]
        return FindCoordinatorResponse(coordinators=tuple(found))
    one = await _find(context, request.key_type, request.key)
    return FindCoordinatorResponse(
        error_code=one.error_code,
        # Kafka names the error here even if there is none, but not in batches.
        error_message=one.error_code.name if one.error_code is ErrorCode.NONE else one.error_message,
        node_id=one.node_id,
        host=one.host,
        port=one.port,
    )


async def _find(context: RequestContext, key_type: int, key: str) -> Coordinator:
    def nobody(error: ErrorCode, reason: str = "") -> Coordinator:
        return Coordinator(key=key, node_id=-1, port=-1, error_code=error, error_message=reason)

    if key_type == KEY_TYPE_SHARE and _BATCHED_KEYS_VERSION <= context.version < _SHARE_KEYS_VERSION:
        return nobody(ErrorCode.INVALID_REQUEST)
    if key_type not in _COORDINATORS:
        return nobody(ErrorCode.INVALID_REQUEST, f"there is no coordinator for keys of type {key_type}")
    if key_type == KEY_TYPE_SHARE and not is_share_partition_key(key):
        return nobody(ErrorCode.INVALID_REQUEST, "the key of a share partition is group:topic id:partition")
    coordinator: Any = getattr(context.broker, _COORDINATORS[key_type])
    try:
        await coordinator.ensure_topic()
        partition = coordinator.partition_for(key)
        leader = coordinator.leader_of(partition)
    except KafkaError as error:
        return nobody(error.code, "the coordinator's topic cannot be created now")
    if leader != context.broker.node_id or (coordinator.topic.name, partition) in context.broker.metadata.out_of_reach:
        return nobody(ErrorCode.COORDINATOR_NOT_AVAILABLE, "the key's partition has no leader")
    host, port = context.advertised_endpoint()
    return Coordinator(key=key, node_id=leader, host=host, port=port, error_message="")


HANDLERS: Final = {ApiKey.FIND_COORDINATOR: handle_find_coordinator}
