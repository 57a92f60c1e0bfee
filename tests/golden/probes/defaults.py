"""Every API in every version, asked with nothing but defaults: that alone tells most formats and many checks."""

from __future__ import annotations

import importlib
from typing import Any

from ottla.protocol.codec import encode_request
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions

UNSAFE = {ApiKey.UNREGISTER_BROKER, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE, ApiKey.PRODUCE}
"""Not asked: would change the cluster, or has probes of its own."""

UNANSWERED = {(ApiKey.ADD_PARTITIONS_TO_TXN, 4), (ApiKey.ADD_PARTITIONS_TO_TXN, 5)}
"""Kafka 4.3.1 never answers an empty batch of transactions."""

WHOLE_CLUSTER = {
    ApiKey.METADATA,
    ApiKey.LIST_GROUPS,
    ApiKey.API_VERSIONS,
    ApiKey.LIST_CONFIG_RESOURCES,
    ApiKey.DESCRIBE_LOG_DIRS,
    ApiKey.DESCRIBE_TOPIC_PARTITIONS,
}
"""Their answer to a default request lists all there is: only its error code is compared."""


def default_request(api: ApiKey) -> Any:
    name = api.name.lower()
    module = importlib.import_module(f"ottla.protocol.messages.{name}")
    return getattr(module, "".join(part.title() for part in name.split("_")) + "Request")()


def register(api: ApiKey) -> None:
    def ask(lab: Lab, version: int) -> Answer:
        answer = lab.ask(api, default_request(api), version=version)
        if api in WHOLE_CLUSTER and isinstance(answer, dict):
            return answer.get("error_code", "NONE")
        return answer

    ask.__name__ = api.name.lower()
    probe(each=[version for version in versions(api) if (api, version) not in UNANSWERED and encodable(api, version)])(
        ask
    )


def encodable(api: ApiKey, version: int) -> bool:
    """Whether kio encodes the defaults: a version may need a field that is nullable in others."""
    try:
        encode_request(api, version, default_request(api))
    except (TypeError, ValueError, AttributeError):
        return False
    return True


for _api in ApiKey:
    if _api not in UNSAFE:
        register(_api)
