"""Each field wrong in turn: ACLs, quotas, credentials, tokens, elections, features, the quorum, log directories."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.create_acls import AclCreation, CreateAclsRequest
from ottla.protocol.messages.create_delegation_token import CreatableRenewers, CreateDelegationTokenRequest
from ottla.protocol.messages.delete_acls import DeleteAclsFilter, DeleteAclsRequest
from ottla.protocol.messages.describe_acls import DescribeAclsRequest
from ottla.protocol.messages.describe_client_quotas import ComponentData, DescribeClientQuotasRequest
from ottla.protocol.messages.describe_cluster import DescribeClusterRequest
from ottla.protocol.messages.describe_delegation_token import (
    DescribeDelegationTokenOwner,
    DescribeDelegationTokenRequest,
)
from ottla.protocol.messages.describe_log_dirs import DescribableLogDirTopic, DescribeLogDirsRequest
from ottla.protocol.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestPartitionData,
    DescribeQuorumRequestTopicData,
)
from ottla.protocol.messages.describe_user_scram_credentials import DescribeUserScramCredentialsRequest, UserName
from ottla.protocol.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from ottla.protocol.messages.expire_delegation_token import ExpireDelegationTokenRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)
from ottla.protocol.messages.renew_delegation_token import RenewDelegationTokenRequest
from ottla.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.odd import odd
from tests.golden.wire import CLOSED

TOPIC_RESOURCE, LITERAL, READ, ALLOW = 2, 3, 3, 3


def reduced_api_versions(_lab: Lab, answer: Answer) -> Answer:
    return answer if answer == CLOSED else answer.get("error_code", "NONE")


@odd(ApiKey.API_VERSIONS, reduce=reduced_api_versions)
def client_software(_lab: Lab, _name: str) -> Any:
    return ApiVersionsRequest(client_software_name="a", client_software_version="1")


@odd(ApiKey.DESCRIBE_ACLS)
def described_acls(_lab: Lab, _name: str) -> Any:
    return DescribeAclsRequest(
        resource_type_filter=TOPIC_RESOURCE,
        resource_name_filter="t",
        pattern_type_filter=LITERAL,
        principal_filter="User:a",
        host_filter="*",
        operation=READ,
        permission_type=ALLOW,
    )


@odd(ApiKey.CREATE_ACLS)
def created_acls(_lab: Lab, _name: str) -> Any:
    new = AclCreation(
        resource_type=TOPIC_RESOURCE,
        resource_name="t",
        resource_pattern_type=LITERAL,
        principal="User:a",
        host="*",
        operation=READ,
        permission_type=ALLOW,
    )
    return CreateAclsRequest(creations=(new,))


@odd(ApiKey.DELETE_ACLS)
def deleted_acls(_lab: Lab, _name: str) -> Any:
    some = DeleteAclsFilter(
        resource_type_filter=TOPIC_RESOURCE,
        resource_name_filter="t",
        pattern_type_filter=LITERAL,
        principal_filter="User:a",
        host_filter="*",
        operation=READ,
        permission_type=ALLOW,
    )
    return DeleteAclsRequest(filters=(some,))


@odd(ApiKey.DESCRIBE_CLIENT_QUOTAS)
def quotas_by_name(_lab: Lab, _name: str) -> Any:
    return DescribeClientQuotasRequest(components=(ComponentData(entity_type="user", match_type=0, match="a"),))


@odd(ApiKey.DESCRIBE_CLIENT_QUOTAS, stem="-default")
def quotas_of_the_default(_lab: Lab, _name: str) -> Any:
    return DescribeClientQuotasRequest(components=(ComponentData(entity_type="client-id", match_type=1),))


@odd(ApiKey.DESCRIBE_CLIENT_QUOTAS, stem="-any")
def quotas_of_any(_lab: Lab, _name: str) -> Any:
    return DescribeClientQuotasRequest(components=(ComponentData(entity_type="ip", match_type=2),), strict=True)


@odd(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS)
def scram_users(_lab: Lab, _name: str) -> Any:
    return DescribeUserScramCredentialsRequest(users=(UserName(name="a"), UserName(name="b")))


@odd(ApiKey.CREATE_DELEGATION_TOKEN)
def created_tokens(_lab: Lab, _name: str) -> Any:
    renewer = CreatableRenewers(principal_type="User", principal_name="a")
    return CreateDelegationTokenRequest(renewers=(renewer,), max_lifetime_ms=1000)


@odd(ApiKey.RENEW_DELEGATION_TOKEN)
def renewed_tokens(_lab: Lab, _name: str) -> Any:
    return RenewDelegationTokenRequest(hmac=b"some", renew_period_ms=1000)


@odd(ApiKey.EXPIRE_DELEGATION_TOKEN)
def expired_tokens(_lab: Lab, _name: str) -> Any:
    return ExpireDelegationTokenRequest(hmac=b"some", expiry_time_period_ms=1000)


@odd(ApiKey.DESCRIBE_DELEGATION_TOKEN)
def described_tokens(_lab: Lab, _name: str) -> Any:
    return DescribeDelegationTokenRequest(owners=(DescribeDelegationTokenOwner(principal_type="User"),))


@odd(ApiKey.DESCRIBE_CLUSTER)
def described_cluster(_lab: Lab, _name: str) -> Any:
    return DescribeClusterRequest(endpoint_type=1)


@odd(ApiKey.ELECT_LEADERS, leave_out=["topic_partitions null"])
def elections(lab: Lab, _name: str) -> Any:
    wanted = (TopicPartitions(topic=lab.topic("odd-elected", partitions=2), partitions=(0,)),)
    return ElectLeadersRequest(topic_partitions=wanted, timeout_ms=5000)


@probe(each=versions(ApiKey.ELECT_LEADERS))
def elections_of_one_topic_in_two_entries(lab: Lab, version: int) -> Answer:
    topic = lab.topic("odd-elected", partitions=2)

    def ask(*partitions: tuple[int, ...]) -> Answer:
        wanted = tuple(TopicPartitions(topic=topic, partitions=indexes) for indexes in partitions)
        request = ElectLeadersRequest(topic_partitions=wanted, timeout_ms=5000)
        return lab.ask(ApiKey.ELECT_LEADERS, request, version=version)

    return [ask((0,), (1,)), ask((0,), (0,)), ask((0,), ()), ask((1, 7, 1))]


@odd(ApiKey.LIST_PARTITION_REASSIGNMENTS)
def listed_reassignments(lab: Lab, _name: str) -> Any:
    topic = lab.topic("odd-elected", partitions=2)
    wanted = ListPartitionReassignmentsTopics(name=topic, partition_indexes=(0,))
    return ListPartitionReassignmentsRequest(topics=(wanted,), timeout_ms=5000)


@odd(ApiKey.UPDATE_FEATURES)
def features(_lab: Lab, _name: str) -> Any:
    """That the feature is unknown keeps it from succeeding."""
    update = FeatureUpdateKey(feature="no.such.feature", max_version_level=1)
    return UpdateFeaturesRequest(feature_updates=(update,), timeout_ms=5000)


@odd(ApiKey.UPDATE_FEATURES, stem="-validated")
def features_validated(_lab: Lab, _name: str) -> Any:
    update = FeatureUpdateKey(feature="group.version", max_version_level=1)
    return UpdateFeaturesRequest(feature_updates=(update,), timeout_ms=5000, validate_only=True)


def reduced_quorum(_lab: Lab, answer: Answer) -> Answer:
    """Epochs and offsets of the metadata log are the cluster's own."""
    for topic in answer.get("topics", ()):
        for entry in topic.get("partitions", ()):
            for key in ("leader_epoch", "high_watermark"):
                entry.pop(key, None)
            for replica in (*entry.get("current_voters", ()), *entry.get("observers", ())):
                replica.pop("log_end_offset", None)
                replica.pop("replica_directory_id", None)
    answer.pop("nodes", None)
    return answer


@odd(ApiKey.DESCRIBE_QUORUM, reduce=reduced_quorum)
def described_quorum(_lab: Lab, _name: str) -> Any:
    partition = DescribeQuorumRequestPartitionData(partition_index=0)
    topic = DescribeQuorumRequestTopicData(topic_name="__cluster_metadata", partitions=(partition,))
    return DescribeQuorumRequest(topics=(topic,))


@odd(ApiKey.DESCRIBE_LOG_DIRS, leave_out=["topics null"])
def log_dirs(lab: Lab, _name: str) -> Any:
    topic = lab.topic("odd-sized", partitions=2)
    return DescribeLogDirsRequest(topics=(DescribableLogDirTopic(topic=topic, partitions=(0, 1)),))


@probe(each=versions(ApiKey.DESCRIBE_LOG_DIRS))
def log_dirs_of_one_topic_in_two_entries(lab: Lab, version: int) -> Answer:
    topic = lab.topic("odd-sized", partitions=2)

    def ask(*partitions: tuple[int, ...]) -> Answer:
        wanted = tuple(DescribableLogDirTopic(topic=topic, partitions=indexes) for indexes in partitions)
        return lab.ask(ApiKey.DESCRIBE_LOG_DIRS, DescribeLogDirsRequest(topics=wanted), version=version)

    return [ask((0,), (1,)), ask((1,), (0, 1)), ask((0,), ()), ask((1, 7, 1))]


@odd(ApiKey.INIT_PRODUCER_ID, stem="-idempotent", leave_out=["transactional_id illegal", "transactional_id long"])
def idempotent_producer(_lab: Lab, _name: str) -> Any:
    return InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1000)
