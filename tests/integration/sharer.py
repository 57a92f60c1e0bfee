"""A member of a share group on a connection of its own, with single requests."""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages import share_acknowledge
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.share_fetch import FetchPartition, FetchTopic, PartitionData, ShareFetchRequest
from ottla.protocol.messages.share_group_heartbeat import ShareGroupHeartbeatRequest
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.wire import Wire

GAP, ACCEPT, RELEASE, REJECT, RENEW = range(5)
GROUP_CONFIGS = 32

Acquired = list[tuple[int, int, int]]
"""First offset, last offset, delivery count."""


def configure(wire: Wire, group: str, **configs: str) -> None:
    """Set configs of a group; an underscore in a name is a dot."""
    rows = tuple(AlterableConfig(name=name.replace("_", "."), value=value) for name, value in configs.items())
    resource = AlterConfigsResource(resource_type=GROUP_CONFIGS, resource_name=group, configs=rows)
    response = wire.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, IncrementalAlterConfigsRequest(resources=(resource,)))
    assert response.responses[0].error_code is ErrorCode.NONE, response


class Sharer(Wire):
    """Fetches partition 0 of a topic; a member from `with` on."""

    def __init__(self, broker: BrokerProcess, group: str, topic: str) -> None:
        super().__init__(broker.port)
        self.group, self.topic = group, topic
        self.member_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        request = MetadataRequest(topics=(MetadataRequestTopic(name=topic),))
        (found,) = self.ask(ApiKey.METADATA, 12, request).topics
        self.topic_id: uuid.UUID = found.topic_id
        self.member_epoch = 0
        self.epoch = 0

    def __enter__(self) -> Sharer:
        """Become a member, and wait for partition 0."""
        try:
            self._join()
        except BaseException:
            self.close()
            raise
        return self

    def _join(self) -> None:
        find = FindCoordinatorRequest(coordinator_keys=(self.group,))
        assert self.ask(ApiKey.FIND_COORDINATOR, 6, find).coordinators[0].error_code is ErrorCode.NONE
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            request = ShareGroupHeartbeatRequest(
                group_id=self.group,
                member_id=self.member_id,
                member_epoch=self.member_epoch,
                subscribed_topic_names=(self.topic,),
            )
            response = self.ask(ApiKey.SHARE_GROUP_HEARTBEAT, 1, request)
            assert response.error_code is ErrorCode.NONE, response
            self.member_epoch = response.member_epoch
            if response.assignment is not None and response.assignment.topic_partitions:
                return
        raise AssertionError("nothing is assigned")

    def leave(self) -> None:
        request = ShareGroupHeartbeatRequest(group_id=self.group, member_id=self.member_id, member_epoch=-1)
        assert self.ask(ApiKey.SHARE_GROUP_HEARTBEAT, 1, request).error_code is ErrorCode.NONE

    def begin_fetch(self, *, max_wait_ms: int = 10_000, max_records: int = 500, epoch: int | None = None) -> None:
        """Send a fetch; `end_fetch` takes its answer."""
        partition = FetchPartition(partition_index=0)
        topics = (FetchTopic(topic_id=self.topic_id, partitions=(partition,)),) if self.epoch == 0 else ()
        request = ShareFetchRequest(
            group_id=self.group,
            member_id=self.member_id,
            share_session_epoch=self.epoch if epoch is None else epoch,
            max_wait_ms=max_wait_ms,
            min_bytes=1,
            max_records=max_records,
            batch_size=max_records,
            topics=topics,
        )
        self.send(ApiKey.SHARE_FETCH, 2, request)

    def end_fetch(self) -> PartitionData:
        response = self.receive(ApiKey.SHARE_FETCH, 2)
        assert response.error_code is ErrorCode.NONE, response
        self.epoch += 1
        rows = [partition for topic in response.responses for partition in topic.partitions]
        return rows[0] if rows else PartitionData()

    def fetch(self, **fields: Any) -> Acquired:
        self.begin_fetch(**fields)
        found = self.end_fetch()
        assert found.error_code is ErrorCode.NONE, found
        return [(one.first_offset, one.last_offset, one.delivery_count) for one in found.acquired_records]

    def acknowledge(self, first_offset: int, last_offset: int, kind: int) -> ErrorCode:
        batch = share_acknowledge.AcknowledgementBatch(
            first_offset=first_offset, last_offset=last_offset, acknowledge_types=(kind,)
        )
        row = share_acknowledge.AcknowledgePartition(partition_index=0, acknowledgement_batches=(batch,))
        request = share_acknowledge.ShareAcknowledgeRequest(
            group_id=self.group,
            member_id=self.member_id,
            share_session_epoch=self.epoch,
            topics=(share_acknowledge.AcknowledgeTopic(topic_id=self.topic_id, partitions=(row,)),),
        )
        response = self.ask(ApiKey.SHARE_ACKNOWLEDGE, 2, request)
        if response.error_code is not ErrorCode.NONE:
            return response.error_code  # type: ignore[no-any-return]
        self.epoch += 1
        return response.responses[0].partitions[0].error_code  # type: ignore[no-any-return]
