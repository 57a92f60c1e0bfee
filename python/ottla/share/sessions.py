"""Share sessions: what a member fetches from this broker, so that it need not say it each time.

Source: Kafka's `SharePartitionManager` (newContext, acknowledgeSessionUpdate) and `ShareSessionCache` (KIP-932).
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ottla.errors import ErrorCode, KafkaError

INITIAL_EPOCH: Final = 0
FINAL_EPOCH: Final = -1
EPOCH_MAX: Final = 2**31 - 1
TOO_MANY: Final = "There are more partitions in the session than in the cluster."

TopicPartition = tuple[uuid.UUID | None, int]
"""Topic id (None: all zeros) and partition."""


class SessionKey(NamedTuple):
    group_id: str
    member_id: str


@dataclass(slots=True)
class ShareSession:
    """What one member fetches."""

    connection_id: int
    """With this connection it ends."""
    epoch: int = 1
    """Of the request that comes next."""
    partitions: dict[TopicPartition, None] = field(default_factory=dict)
    """In the order in which they came."""

    def rotated(self) -> list[TopicPartition]:
        """The partitions, each time with another one first, so that each has its turn where not all find room."""
        found = list(self.partitions)
        if not found:
            return found
        first = (self.epoch - 1) % len(found)
        return found[first:] + found[:first]


class ShareSessions:
    """All share sessions of a broker."""

    def __init__(self, sessions_max: int) -> None:
        self.sessions_max = sessions_max
        self._sessions: dict[SessionKey, ShareSession] = {}
        self._of_connections: dict[int, set[SessionKey]] = {}
        self._of_groups: Counter[str] = Counter()

    def has_group(self, group_id: str) -> bool:
        """Whether a member of the group has a session."""
        return group_id in self._of_groups

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: SessionKey) -> ShareSession | None:
        return self._sessions.get(key)

    def fetch(
        self,
        key: SessionKey,
        epoch: int,
        *,
        connection_id: int,
        wanted: Iterable[TopicPartition],
        forgotten: Iterable[TopicPartition],
        acknowledges: bool,
        partitions_max: int,
    ) -> ShareSession:
        """Take a ShareFetch in: a session begins, goes on, or is about to end (`end` it when it is answered).

        Args:
            partitions_max: As many may be in a session; those that are not there are kept, as they may come.
        Raises: KafkaError (SHARE_SESSION_NOT_FOUND, INVALID_SHARE_SESSION_EPOCH, SHARE_SESSION_LIMIT_REACHED,
        INVALID_REQUEST: a session that begins has nothing to acknowledge, or there are too many partitions).
        """
        if epoch == INITIAL_EPOCH:
            if acknowledges:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Nothing can be acknowledged as a session begins.")
            begun = ShareSession(connection_id, partitions=dict.fromkeys(wanted))
            if len(begun.partitions) > partitions_max:
                raise KafkaError(ErrorCode.INVALID_REQUEST, TOO_MANY)
            return self._begin(key, begun)
        session = self._checked(key, epoch)
        if epoch != FINAL_EPOCH:
            added = dict.fromkeys(wanted)
            if (
                len(session.partitions) + len(added) > partitions_max
                and len(session.partitions | added) > partitions_max
            ):
                raise KafkaError(ErrorCode.INVALID_REQUEST, TOO_MANY)
            self._go_on(session)
            session.partitions.update(added)
            for partition in forgotten:
                session.partitions.pop(partition, None)
        return session

    def acknowledge(self, key: SessionKey, epoch: int) -> ShareSession:
        """Take a ShareAcknowledge in. Raises: KafkaError (SHARE_SESSION_NOT_FOUND, INVALID_SHARE_SESSION_EPOCH)."""
        if epoch == INITIAL_EPOCH:
            raise KafkaError(ErrorCode.INVALID_SHARE_SESSION_EPOCH)
        session = self._checked(key, epoch)
        if epoch != FINAL_EPOCH:
            self._go_on(session)
        return session

    def end(self, key: SessionKey) -> None:
        """A session is over."""
        session = self._sessions.pop(key, None)
        if session is not None:
            self._of_groups[key.group_id] -= 1
            if not self._of_groups[key.group_id]:
                del self._of_groups[key.group_id]
            keys = self._of_connections[session.connection_id]
            keys.discard(key)
            if not keys:
                del self._of_connections[session.connection_id]

    def on_connection_closed(self, connection_id: int) -> list[SessionKey]:
        """End the sessions of a connection; returns whose they were."""
        keys = list(self._of_connections.get(connection_id, ()))
        for key in keys:
            self.end(key)
        return keys

    def _begin(self, key: SessionKey, session: ShareSession) -> ShareSession:
        self.end(key)
        if len(self._sessions) >= self.sessions_max:
            raise KafkaError(ErrorCode.SHARE_SESSION_LIMIT_REACHED)
        self._sessions[key] = session
        self._of_groups[key.group_id] += 1
        self._of_connections.setdefault(session.connection_id, set()).add(key)
        return session

    def _checked(self, key: SessionKey, epoch: int) -> ShareSession:
        session = self._sessions.get(key)
        if session is None:
            raise KafkaError(ErrorCode.SHARE_SESSION_NOT_FOUND)
        if epoch not in (session.epoch, FINAL_EPOCH):
            raise KafkaError(ErrorCode.INVALID_SHARE_SESSION_EPOCH)
        return session

    @staticmethod
    def _go_on(session: ShareSession) -> None:
        session.epoch = 1 if session.epoch == EPOCH_MAX else session.epoch + 1
