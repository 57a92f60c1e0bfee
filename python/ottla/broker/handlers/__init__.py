"""One module a family of APIs, each with `HANDLERS`: API key to `async (context, request) -> response`.

A handler that waits for nothing, or only for a coordinator, is a plain function: it returns the response, or `Later`.

The families stand here by name, as a family is imported on its first request: all the messages at once would cost a
third of the time that a broker takes to start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import iscoroutine
from typing import Any, Final

from ottla.broker.later import Later
from ottla.protocol.versions import ApiKey

Handler = Callable[[Any, Any], Any]

FAMILIES: Final[Mapping[str, tuple[ApiKey, ...]]] = {
    "api_versions": (ApiKey.API_VERSIONS,),
    "configs": (
        ApiKey.DESCRIBE_CONFIGS,
        ApiKey.ALTER_CONFIGS,
        ApiKey.INCREMENTAL_ALTER_CONFIGS,
        ApiKey.LIST_CONFIG_RESOURCES,
    ),
    "topics": (ApiKey.CREATE_TOPICS, ApiKey.DELETE_TOPICS, ApiKey.CREATE_PARTITIONS),
    "cluster": (ApiKey.METADATA, ApiKey.DESCRIBE_CLUSTER),
    "consumer_group": (ApiKey.CONSUMER_GROUP_HEARTBEAT, ApiKey.CONSUMER_GROUP_DESCRIBE),
    "elections": (
        ApiKey.ELECT_LEADERS,
        ApiKey.ALTER_PARTITION_REASSIGNMENTS,
        ApiKey.LIST_PARTITION_REASSIGNMENTS,
    ),
    "features": (ApiKey.UPDATE_FEATURES,),
    "find_coordinator": (ApiKey.FIND_COORDINATOR,),
    "group": (
        ApiKey.JOIN_GROUP,
        ApiKey.SYNC_GROUP,
        ApiKey.HEARTBEAT,
        ApiKey.LEAVE_GROUP,
        ApiKey.OFFSET_COMMIT,
        ApiKey.OFFSET_FETCH,
        ApiKey.OFFSET_DELETE,
        ApiKey.DESCRIBE_GROUPS,
        ApiKey.LIST_GROUPS,
        ApiKey.DELETE_GROUPS,
    ),
    "logs": (ApiKey.DELETE_RECORDS, ApiKey.DESCRIBE_LOG_DIRS),
    "offsets": (ApiKey.LIST_OFFSETS, ApiKey.OFFSET_FOR_LEADER_EPOCH),
    "producer_ids": (ApiKey.INIT_PRODUCER_ID,),
    "quorum": (ApiKey.DESCRIBE_QUORUM,),
    "share_fetch": (ApiKey.SHARE_FETCH, ApiKey.SHARE_ACKNOWLEDGE),
    "share_group": (
        ApiKey.SHARE_GROUP_HEARTBEAT,
        ApiKey.SHARE_GROUP_DESCRIBE,
        ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS,
        ApiKey.ALTER_SHARE_GROUP_OFFSETS,
        ApiKey.DELETE_SHARE_GROUP_OFFSETS,
    ),
    "share_group_state": (
        ApiKey.INITIALIZE_SHARE_GROUP_STATE,
        ApiKey.READ_SHARE_GROUP_STATE,
        ApiKey.WRITE_SHARE_GROUP_STATE,
        ApiKey.DELETE_SHARE_GROUP_STATE,
        ApiKey.READ_SHARE_GROUP_STATE_SUMMARY,
    ),
    "transactions": (
        ApiKey.ADD_PARTITIONS_TO_TXN,
        ApiKey.ADD_OFFSETS_TO_TXN,
        ApiKey.END_TXN,
        ApiKey.DESCRIBE_TRANSACTIONS,
        ApiKey.LIST_TRANSACTIONS,
    ),
    "txn_offset_commit": (ApiKey.TXN_OFFSET_COMMIT,),
    "transaction_markers": (ApiKey.WRITE_TXN_MARKERS, ApiKey.DESCRIBE_PRODUCERS),
    "topic_partitions": (ApiKey.DESCRIBE_TOPIC_PARTITIONS,),
    "security": (
        ApiKey.DESCRIBE_ACLS,
        ApiKey.CREATE_ACLS,
        ApiKey.DELETE_ACLS,
        ApiKey.DESCRIBE_CLIENT_QUOTAS,
        ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS,
        ApiKey.CREATE_DELEGATION_TOKEN,
        ApiKey.RENEW_DELEGATION_TOKEN,
        ApiKey.EXPIRE_DELEGATION_TOKEN,
        ApiKey.DESCRIBE_DELEGATION_TOKEN,
    ),
}

FAMILY_OF: Final[Mapping[ApiKey, str]] = {api: family for family, apis in FAMILIES.items() for api in apis}


def handler_of(api: ApiKey) -> Handler:
    """Import the family of `api` and return its handler."""
    handlers: Mapping[ApiKey, Handler] = import_module(f"ottla.broker.handlers.{FAMILY_OF[api]}").HANDLERS
    return handlers[api]


async def respond(handler: Handler, context: Any, request: Any) -> Any:
    """Return the response of a handler of either kind, once it is there."""
    found = handler(context, request)
    if isinstance(found, Later):
        return await found.wait()
    return await found if iscoroutine(found) else found
