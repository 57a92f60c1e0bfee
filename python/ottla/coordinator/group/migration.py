"""A group in use that changes its protocol (KIP-848): what a classic group becomes when a consumer of the other kind
joins, and what is left when the last of these has gone.

Source: Kafka's `ConsumerGroup.fromClassicGroup`, `ClassicGroup.fromConsumerGroup` and their callers in
`GroupMetadataManager`.
"""

from __future__ import annotations

from collections.abc import Collection

from ottla.coordinator.group import consumer_records, records
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.consumer import ConsumerGroup, ConsumerMember, Refused, target_value
from ottla.coordinator.group.consumer_records import (
    ClassicMemberMetadata,
    ClassicProtocol,
    ConsumerGroupKey,
    ConsumerKey,
    ConsumerValue,
    GroupEpochValue,
    MemberMetadataValue,
    TargetMemberKey,
    TargetMetadataKey,
    TargetMetadataValue,
)
from ottla.coordinator.group.record_schema import RecordContent
from ottla.coordinator.group.records import GroupMetadataValue, MemberMetadata
from ottla.coordinator.group.subscription import (
    CONSUMER_PROTOCOL_TYPE,
    encode_assignment,
    parse_assignment,
    parse_subscription,
)
from ottla.coordinator.group.topic_metadata import Topics
from ottla.coordinator.shard import CoordinatorRecord
from ottla.coordinator.timeline import Timeline
from ottla.errors import ErrorCode


def upgrade(classic: ClassicGroup, topics: Topics) -> list[CoordinatorRecord]:
    """The records that make a consumer group of a classic one, with the assignment that it has.

    Raises: Refused (GROUP_ID_NOT_FOUND: it is no group of consumers, or its members' bytes mean nothing here).
    """
    group_id = classic.group_id
    if classic.protocol_type != CONSUMER_PROTOCOL_TYPE:
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"{group_id} is not a group of consumers.")
    protocol = classic.protocol_name or classic.select_protocol()
    epoch = classic.generation_id
    members = []
    for member in classic.members.values():
        subscription = parse_subscription(member.metadata(protocol))
        assigned = parse_assignment(member.assignment)
        if subscription is None or assigned is None:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"What {group_id} has of {member.member_id} cannot be read.")
        if assigned.has_user_data:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"{group_id} uses an assignor of its own.")
        topic_ids = topics.image.topic_ids
        members.append(
            ConsumerMember(
                member_id=member.member_id,
                metadata=MemberMetadataValue(
                    instance_id=member.group_instance_id,
                    rack_id=subscription.rack_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    subscribed_topic_names=tuple(sorted(set(subscription.topics))),
                    subscribed_topic_regex="",
                    rebalance_timeout_ms=member.rebalance_timeout_ms,
                    server_assignor=None,
                    classic_member_metadata=ClassicMemberMetadata(
                        session_timeout_ms=member.session_timeout_ms,
                        supported_protocols=tuple(
                            ClassicProtocol(name=p.name, metadata=p.metadata) for p in member.protocols
                        ),
                    ),
                ),
                member_epoch=epoch,
                previous_member_epoch=epoch,
                assigned={
                    topic_ids[name]: dict.fromkeys(sorted(partitions), epoch)
                    for name, partitions in assigned.partitions.items()
                    if name in topic_ids and partitions
                },
            )
        )
    names = {name for member in members for name in member.metadata.subscribed_topic_names}
    content: list[tuple[ConsumerKey, ConsumerValue]] = [member.metadata_record(group_id) for member in members]
    content.append(
        (ConsumerGroupKey(group=group_id), GroupEpochValue(epoch=epoch, metadata_hash=topics.hash_of(names)))
    )
    for made in members:
        target = {topic_id: frozenset(epochs) for topic_id, epochs in made.assigned.items()}
        content.append((TargetMemberKey(group=group_id, member=made.member_id), target_value(target)))
    content.append((TargetMetadataKey(group=group_id), TargetMetadataValue(assignment_epoch=epoch)))
    content += [member.assignment_record(group_id) for member in members]
    return [
        records.group_metadata_tombstone(group_id),
        *[consumer_records.record(key, value) for key, value in content],
    ]


def as_replayed(group_id: str, written: Collection[CoordinatorRecord]) -> ConsumerGroup:
    """The group that records make, aside from the one in the table: to decide on before they are written."""
    group = ConsumerGroup(group_id, Timeline())
    for offset, record in enumerate(written):
        content = record.content
        if isinstance(content, RecordContent) and isinstance(content.key, ConsumerKey):
            group.replay(content.key, content.value, offset=offset)  # type: ignore[arg-type]
    return group


def downgrade(group: ConsumerGroup, leaving: Collection[str], topics: Topics, *, wall_ms: int) -> GroupMetadataValue:
    """The classic group that is left when `leaving` are gone; all others speak the classic protocol."""
    stay = [m for _, m in group.members.items() if m.member_id not in leaving]
    supported = [
        {p.name: p.metadata for p in m.metadata.classic_member_metadata.supported_protocols}
        for m in stay
        if m.metadata.classic_member_metadata is not None
    ]
    assert len(supported) == len(stay)
    protocol = next(name for name in supported[0] if all(name in others for others in supported))
    members = []
    for member, protocols in zip(stay, supported, strict=True):
        assert member.metadata.classic_member_metadata is not None
        subscription = parse_subscription(protocols[protocol])
        partitions = {topics.name_of(t): p for t, p in group.target_of(member.member_id).items()}
        members.append(
            MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.metadata.client_id,
                client_host=member.metadata.client_host,
                rebalance_timeout_ms=member.metadata.rebalance_timeout_ms,
                session_timeout_ms=member.metadata.classic_member_metadata.session_timeout_ms,
                subscription=protocols[protocol],
                assignment=encode_assignment(
                    {name: p for name, p in partitions.items() if name is not None},
                    version=0 if subscription is None else subscription.version,
                ),
            )
        )
    return GroupMetadataValue(
        protocol_type=CONSUMER_PROTOCOL_TYPE,
        generation=group.epoch,
        protocol=protocol,
        leader=members[0].member_id,
        current_state_timestamp_ms=wall_ms,
        members=tuple(members),
    )
