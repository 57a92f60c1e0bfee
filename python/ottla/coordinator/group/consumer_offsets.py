"""Who may commit and read offsets of a consumer group (KIP-848, KIP-1251).

A member commits with its epoch. One that has not yet heard of its new epoch may still commit for a partition that it
has had since the old one.

Source: Kafka's `ConsumerGroup` (validateOffsetCommit, validateOffsetFetch).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TypeAlias

from ottla.coordinator.group.consumer import ConsumerGroup
from ottla.errors import ErrorCode

MEMBER_EPOCH_VERSION_MIN = 9
"""The first OffsetCommit that members of consumer groups may use."""

Partition: TypeAlias = tuple[uuid.UUID | None, int]


def check_commit(
    group: ConsumerGroup,
    partitions: Iterable[Partition],
    *,
    member_id: str,
    instance_id: str | None,
    epoch: int,
    api_version: int | None,
) -> ErrorCode:
    """Whether a member may commit for `partitions`.

    Args:
        api_version: Of OffsetCommit; None: it is TxnOffsetCommit, which need not name a member.
    """
    if epoch < 0 and not len(group.members):
        return ErrorCode.NONE  # an administrator, or a consumer without a group
    if api_version is None and epoch < 0 and not member_id and instance_id is None:
        return ErrorCode.NONE
    member = group.members.get(member_id)
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if api_version is not None and not member.is_classic and api_version < MEMBER_EPOCH_VERSION_MIN:
        return ErrorCode.UNSUPPORTED_VERSION
    if epoch == member.member_epoch:
        return ErrorCode.NONE
    if epoch < member.member_epoch:
        assigned = [member.assignment_epoch(topic_id, partition) for topic_id, partition in partitions]
        if all(since is not None and since <= epoch for since in assigned):
            return ErrorCode.NONE
    is_generation = member.is_classic or api_version is None
    return ErrorCode.ILLEGAL_GENERATION if is_generation else ErrorCode.STALE_MEMBER_EPOCH


def check_fetch(group: ConsumerGroup, *, member_id: str | None, epoch: int, is_committed: bool) -> ErrorCode:
    """Whether a member may read offsets; those who do not say that they are one may.

    Args:
        is_committed: Go by what is committed of the group.
    """
    if member_id is None and epoch < 0:
        return ErrorCode.NONE
    known = group.members.get_committed if is_committed else group.members.get
    member = None if member_id is None else known(member_id)
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if epoch == member.member_epoch:
        return ErrorCode.NONE
    return ErrorCode.ILLEGAL_GENERATION if member.is_classic else ErrorCode.STALE_MEMBER_EPOCH
