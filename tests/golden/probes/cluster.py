"""What tools and consoles ask of any broker: ACLs, quotas, credentials, the quorum, log directories."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.create_acls import AclCreation, CreateAclsRequest
from ottla.protocol.messages.create_delegation_token import CreateDelegationTokenRequest
from ottla.protocol.messages.delete_acls import DeleteAclsFilter, DeleteAclsRequest
from ottla.protocol.messages.describe_acls import DescribeAclsRequest
from ottla.protocol.messages.describe_client_quotas import ComponentData, DescribeClientQuotasRequest
from ottla.protocol.messages.describe_delegation_token import DescribeDelegationTokenRequest
from ottla.protocol.messages.describe_log_dirs import DescribableLogDirTopic, DescribeLogDirsRequest
from ottla.protocol.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestPartitionData,
    DescribeQuorumRequestTopicData,
)
from ottla.protocol.messages.describe_user_scram_credentials import DescribeUserScramCredentialsRequest, UserName
from ottla.protocol.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)
from ottla.protocol.messages.sasl_authenticate import SaslAuthenticateRequest
from ottla.protocol.messages.sasl_handshake import SaslHandshakeRequest
from ottla.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from ottla.protocol.versions import ApiKey
from tests.golden.batch import Batch
from tests.golden.lab import Answer, Lab, probe, versions


@probe(each=[1, 2, 3])
def acls(lab: Lab, version: int) -> Answer:
    """Without an authorizer."""
    some = {"resource_type_filter": 2, "operation": 1, "permission_type": 1}
    new = AclCreation(resource_type=2, resource_name="t", principal="User:a", host="*", operation=3, permission_type=3)
    odd = AclCreation(resource_type=2, resource_name="", principal="a", host="*", operation=3, permission_type=3)
    return {
        "describe": lab.ask(ApiKey.DESCRIBE_ACLS, DescribeAclsRequest(**some), version=version),
        "create": lab.ask(ApiKey.CREATE_ACLS, CreateAclsRequest(creations=(new, odd)), version=version),
        "delete": lab.ask(ApiKey.DELETE_ACLS, DeleteAclsRequest(filters=(DeleteAclsFilter(**some),)), version=version),
    }


@probe(each=[0, 1])
def client_quotas(lab: Lab, version: int) -> Answer:
    def ask(*components: ComponentData, strict: bool = False) -> Answer:
        request = DescribeClientQuotasRequest(components=components, strict=strict)
        return lab.ask(ApiKey.DESCRIBE_CLIENT_QUOTAS, request, version=version)

    user = ComponentData(entity_type="user", match_type=2)
    return {
        "all": ask(),
        "users": ask(user),
        "strict": ask(user, strict=True),
        "default user": ask(ComponentData(entity_type="user", match_type=1)),
        "one user": ask(ComponentData(entity_type="user", match_type=0, match="a")),
        "client": ask(ComponentData(entity_type="client-id", match_type=2)),
        "ip": ask(ComponentData(entity_type="ip", match_type=2)),
        "user and ip": ask(user, ComponentData(entity_type="ip", match_type=2)),
        "user twice": ask(user, user),
        "unknown entity": ask(ComponentData(entity_type="planet", match_type=2)),
        "empty entity": ask(ComponentData(entity_type="", match_type=2)),
        "unknown match": ask(ComponentData(entity_type="user", match_type=9)),
    }


@probe()
def scram_credentials(lab: Lab) -> Answer:
    def ask(*names: str) -> Answer:
        request = DescribeUserScramCredentialsRequest(users=tuple(UserName(name=name) for name in names) or None)
        return lab.ask(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, request)

    return [ask(), ask("nobody"), ask("nobody", "nobody"), ask("")]


@probe(each=[1, 2, 3])
def delegation_tokens(lab: Lab, version: int) -> Answer:
    request = CreateDelegationTokenRequest(max_lifetime_ms=-1)
    return [
        lab.ask(ApiKey.CREATE_DELEGATION_TOKEN, request, version=version),
        lab.ask(ApiKey.DESCRIBE_DELEGATION_TOKEN, DescribeDelegationTokenRequest(owners=None), version=version),
    ]


@probe(each=[0, 1, 2])
def elect_leaders(lab: Lab, version: int) -> Answer:
    topic = lab.topic("elected", partitions=2)

    def ask(name: str, *partitions: int, kind: int = 0) -> Answer:
        wanted = (TopicPartitions(topic=name, partitions=partitions),)
        request = ElectLeadersRequest(topic_partitions=wanted, election_type=kind, timeout_ms=5000)
        return lab.ask(ApiKey.ELECT_LEADERS, request, version=version)

    told = {"preferred": ask(topic, 0, 1, 7), "unknown topic": ask(lab.name("absent"), 0)}
    if version >= 1:
        told |= {"unclean": ask(topic, 0, kind=1), "unknown kind": ask(topic, 0, kind=7)}
    return told


@probe()
def reassignments(lab: Lab) -> Answer:
    topic = lab.topic("elected", partitions=2)

    def ask(*names: str) -> Answer:
        wanted = tuple(ListPartitionReassignmentsTopics(name=name, partition_indexes=(0, 9)) for name in names)
        return lab.ask(ApiKey.LIST_PARTITION_REASSIGNMENTS, ListPartitionReassignmentsRequest(topics=wanted or None))

    return [ask(), ask(topic), ask(lab.name("absent"))]


@probe(each=versions(ApiKey.DESCRIBE_QUORUM))
def quorum(lab: Lab, version: int) -> Answer:
    """Epochs and offsets of the metadata log are the cluster's own."""

    def ask(name: str, partition: int) -> Answer:
        partitions = (DescribeQuorumRequestPartitionData(partition_index=partition),)
        request = DescribeQuorumRequest(
            topics=(DescribeQuorumRequestTopicData(topic_name=name, partitions=partitions),)
        )
        answer = lab.ask(ApiKey.DESCRIBE_QUORUM, request, version=version)
        for entry in answer["topics"][0]["partitions"] if answer.get("topics") else []:
            entry.pop("leader_epoch", None)
            entry.pop("high_watermark", None)
            for voter in entry.get("current_voters", ()):
                voter.pop("log_end_offset")
                voter.pop("replica_directory_id", None)
            for observer in entry.get("observers", ()):
                observer.pop("log_end_offset")
        answer.pop("nodes", None)
        return answer

    return [ask("__cluster_metadata", 0), ask("__cluster_metadata", 1), ask("x", 0)]


@probe(each=versions(ApiKey.DESCRIBE_LOG_DIRS))
def log_dirs(lab: Lab, version: int) -> Answer:
    topic = lab.topic("sized", partitions=2)
    lab.produce(topic, Batch().encode())

    def ask(*topics: DescribableLogDirTopic) -> Answer:
        request = DescribeLogDirsRequest(topics=topics)
        return lab.ask(ApiKey.DESCRIBE_LOG_DIRS, request, version=version)

    return {
        "both": ask(DescribableLogDirTopic(topic=topic, partitions=(0, 1))),
        "unknown partition": ask(DescribableLogDirTopic(topic=topic, partitions=(9,))),
        "unknown topic": ask(DescribableLogDirTopic(topic=lab.name("absent"), partitions=(0,))),
        "nothing": ask(),
    }


@probe(each=versions(ApiKey.UPDATE_FEATURES))
def update_features(lab: Lab, version: int) -> Answer:
    """Only what cannot succeed."""

    def ask(*updates: FeatureUpdateKey, **fields: Any) -> Answer:
        return lab.ask(
            ApiKey.UPDATE_FEATURES, UpdateFeaturesRequest(feature_updates=updates, **fields), version=version
        )

    return {
        "nothing": ask(),
        "unknown feature": ask(FeatureUpdateKey(feature="no.such.feature", max_version_level=1)),
        "unknown feature to 0": ask(FeatureUpdateKey(feature="no.such.feature", max_version_level=0)),
        "level too high": ask(FeatureUpdateKey(feature="metadata.version", max_version_level=9999)),
        "level too low": ask(FeatureUpdateKey(feature="metadata.version", max_version_level=1)),
        "empty name": ask(FeatureUpdateKey(feature="", max_version_level=1)),
    }


@probe(each=versions(ApiKey.INIT_PRODUCER_ID))
def init_producer_id(lab: Lab, version: int) -> Answer:
    """Of idempotent producers."""

    def ask(**fields: Any) -> Answer:
        return lab.ask(ApiKey.INIT_PRODUCER_ID, InitProducerIdRequest(**fields), version=version)

    told = {
        "plain": ask(transaction_timeout_ms=1000),
        "no timeout": ask(transaction_timeout_ms=-1),
        "empty transactional id": ask(transactional_id="", transaction_timeout_ms=1000),
    }
    if version >= 3:
        told |= {
            "with a producer id": ask(transaction_timeout_ms=1000, producer_id=5, producer_epoch=1),
            "id without epoch": ask(transaction_timeout_ms=1000, producer_id=5),
            "epoch without id": ask(transaction_timeout_ms=1000, producer_epoch=5),
            "id -2": ask(transaction_timeout_ms=1000, producer_id=-2, producer_epoch=-2),
        }
    return told


@probe(each=[0, 1])
def sasl_on_a_plain_listener(lab: Lab, version: int) -> Answer:
    authenticate = SaslAuthenticateRequest(auth_bytes=b"\0a\0b")
    return [
        lab.ask(ApiKey.SASL_HANDSHAKE, SaslHandshakeRequest(mechanism="PLAIN"), version=version),
        lab.ask(ApiKey.SASL_AUTHENTICATE, authenticate, version=version),
    ]
