"""What the transaction coordinator's machine is told by itself: by its timers, and by its writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class TransactionTimesOut:
    """A transaction has been open for as long as its producer allowed."""

    transactional_id: str


@dataclass(frozen=True, slots=True)
class EndingDue:
    """It is time to look whether a decided transaction still has to be ended: a write was lost, or not heard of."""

    transactional_id: str


@dataclass(frozen=True, slots=True)
class PatienceEnds:
    """Requests that wait for a transaction to be ended may have waited long enough."""

    transactional_id: str


@dataclass(frozen=True, slots=True)
class ExpiryCheckDue:
    """It is time to look for transactional ids that nobody uses."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The decision to end a transaction was written."""

    transactional_id: str


@dataclass(frozen=True, slots=True)
class Settled:
    """It was written that a transaction has ended everywhere, or what followed: those who wait may be looked at."""

    transactional_id: str


TimerEvent: TypeAlias = TransactionTimesOut | EndingDue | PatienceEnds | ExpiryCheckDue
WriteEvent: TypeAlias = Prepared | Settled
