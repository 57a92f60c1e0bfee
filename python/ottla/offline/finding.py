"""What a check has to say of a file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Severity(Enum):
    """NOTE: normal after a crash, mended at the next start. WARNING: rebuilt from the log. DAMAGE: records are lost."""

    NOTE = "note"
    WARNING = "warning"
    DAMAGE = "damage"


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    path: Path
    message: str
    position: int | None = None
