"""On which brokers the replicas of new partitions go: striped over racks, then over the brokers of each rack.

Consecutive partitions start on consecutive racks, so leaders spread over racks, and every rack hands out its brokers
in rotation, so replicas spread over brokers. A partition's replicas take each rack once before any rack twice.
Brokers that are fenced come last within their rack and never lead. After as many partitions as there are live
brokers, everything is shuffled anew, so that the same brokers do not follow each other for ever. The idea is that of
Kafka's StripedReplicaPlacer (KIP-455, KIP-631).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from ottla.controller.result import RandomSource, Refused, shuffled
from ottla.errors import ErrorCode


def check_replicas(replicas: Sequence[int], *, brokers: Container[int]) -> None:
    """Check what an administrator assigns to one partition. Raises: Refused."""
    if not replicas:
        raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, "An assignment names no broker.")
    for broker_id, count in sorted(Counter(replicas).items()):
        if broker_id not in brokers:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"An assignment names broker {broker_id}, which is not registered.",
            )
        if count > 1:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"An assignment names broker {broker_id} more than once."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableBroker:
    """A broker that may hold replicas."""

    broker_id: int
    rack: str | None
    fenced: bool


class _Rotation:
    """Brokers of one rack in one state: each round starts one broker further."""

    __slots__ = ("_brokers", "_round", "_start", "_taken")

    def __init__(self, brokers: list[int]) -> None:
        self._brokers = brokers
        self._round = -1
        self._start = -1
        self._taken = 0

    def take(self, round_: int) -> int | None:
        """The next broker of this round; None when all have been taken."""
        if not self._brokers:
            return None
        if round_ != self._round:
            self._round, self._taken = round_, 0
            self._start = (self._start + 1) % len(self._brokers)
        if self._taken == len(self._brokers):
            return None
        self._taken += 1
        return self._brokers[(self._start + self._taken - 1) % len(self._brokers)]


class _Rack:
    __slots__ = ("fenced", "live")

    def __init__(self, brokers: list[UsableBroker], random: RandomSource) -> None:
        self.live = _Rotation(shuffled([b.broker_id for b in brokers if not b.fenced], random))
        self.fenced = _Rotation(shuffled([b.broker_id for b in brokers if b.fenced], random))

    def take(self, round_: int) -> int | None:
        broker = self.live.take(round_)
        return self.fenced.take(round_) if broker is None else broker


def place_replicas(
    brokers: Iterable[UsableBroker], *, partitions: int, replication_factor: int, random: RandomSource
) -> list[tuple[int, ...]]:
    """Choose the replicas of new partitions, preferred leader first.

    Raises: Refused with INVALID_REPLICATION_FACTOR when there are too few brokers.
    """
    by_rack: dict[str | None, list[UsableBroker]] = {}
    for broker in sorted(brokers, key=lambda broker: broker.broker_id):
        by_rack.setdefault(broker.rack, []).append(broker)
    total = sum(len(members) for members in by_rack.values())
    live = sum(not broker.fenced for members in by_rack.values() for broker in members)
    if replication_factor > total:
        raise Refused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"A replication factor of {replication_factor} needs as many brokers; {total} can take replicas.",
        )
    if not live:
        raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, "No broker is in service, so nobody could lead.")

    placed = []
    racks: list[_Rack] = []
    for number in range(partitions):
        if number % live == 0:
            names = shuffled(sorted(by_rack, key=lambda rack: (rack is not None, rack or "")), random)
            racks = [_Rack(by_rack[name], random) for name in names]
        placed.append(_place_one(racks, round_=number, replication_factor=replication_factor))
    return placed


def _place_one(racks: list[_Rack], *, round_: int, replication_factor: int) -> tuple[int, ...]:
    order = [racks[(round_ + step) % len(racks)] for step in range(len(racks))]
    replicas: list[int] = []
    leading: _Rack | None = None
    for rack in order:
        leader = rack.live.take(round_)
        if leader is not None:
            replicas.append(leader)
            leading = rack
            break
    while len(replicas) < replication_factor:
        for rack in order:
            if rack is leading:
                # The leader was this rack's share of the first lap.
                leading = None
                continue
            if len(replicas) == replication_factor:
                break
            broker = rack.take(round_)
            if broker is not None:
                replicas.append(broker)
    return tuple(replicas)
