"""What a ConsumerGroupHeartbeat must have, and whether it says anything.

Source: Kafka's `GroupCoordinatorService` (throwIfConsumerGroupHeartbeatRequestIsInvalid).
"""

from __future__ import annotations

from collections.abc import Collection

from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.consumer import LEAVE_EPOCH, STATIC_LEAVE_EPOCH, ConsumerGroup, ConsumerMember, Refused
from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest

CLIENT_MADE_MEMBER_ID_VERSION_MIN = 1


def check(request: ConsumerGroupHeartbeatRequest, api_version: int, assignors: Collection[str]) -> None:
    """Raises: Refused (INVALID_REQUEST, UNSUPPORTED_ASSIGNOR)."""
    epoch = request.member_epoch
    must_name_member = api_version >= CLIENT_MADE_MEMBER_ID_VERSION_MIN or epoch > 0 or epoch == LEAVE_EPOCH
    wrong = None
    if must_name_member and not request.member_id.strip():
        wrong = "There is no member id."
    elif not request.group_id.strip():
        wrong = "There is no group id."
    elif request.instance_id is not None and not request.instance_id.strip():
        wrong = "The instance id is empty."
    elif request.rack_id is not None and not request.rack_id.strip():
        wrong = "The rack id is empty."
    elif epoch == 0 and request.rebalance_timeout_ms == -1:
        wrong = "A member that joins has to give its rebalance timeout."
    elif epoch == 0 and (request.topic_partitions is None or request.topic_partitions):
        wrong = "A member that joins has no partitions."
    elif epoch == 0 and request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
        wrong = "A member that joins has to subscribe, if only to nothing."
    elif epoch == STATIC_LEAVE_EPOCH and request.instance_id is None:
        wrong = "Only a member with an instance id can leave for a while."
    elif epoch < STATIC_LEAVE_EPOCH:
        wrong = f"There is no member epoch {epoch}."
    if wrong is not None:
        raise Refused(ErrorCode.INVALID_REQUEST, wrong)
    if request.server_assignor is not None and request.server_assignor not in assignors:
        raise Refused(ErrorCode.UNSUPPORTED_ASSIGNOR, f"The assignors here are {', '.join(assignors)}.")


def describes_nothing(request: ConsumerGroupHeartbeatRequest, caller: Caller, member: ConsumerMember) -> bool:
    """Whether a member says nothing of itself that is not known; what it has is another matter."""
    return (
        request.subscribed_topic_names is None
        and request.subscribed_topic_regex is None
        and request.instance_id is None
        and request.rack_id is None
        and request.server_assignor is None
        and request.rebalance_timeout_ms == -1
        and not member.is_classic
        and member.metadata.client_id == caller.client_id
        and member.metadata.client_host == caller.client_host
    )


def changes_nothing(request: ConsumerGroupHeartbeatRequest, caller: Caller, group: ConsumerGroup | None) -> bool:
    """Whether a member that has all it is to have says only that it is there, which nearly every heartbeat is.

    Such a heartbeat has no records, whatever else is looked at; False is always safe.
    """
    member = None if group is None else group.members.get(request.member_id)
    if group is None or member is None or request.member_epoch != member.member_epoch:
        return False
    # Expressions may have to be looked at again when their time has come.
    return (
        request.topic_partitions is None
        and describes_nothing(request, caller, member)
        and group.checked_at_epoch is not None
        and group.checked_at_epoch <= group.epoch <= group.assignment_epoch
        and member.is_reconciled(group.assignment_epoch)
        and not group.wishes.regexes
    )
