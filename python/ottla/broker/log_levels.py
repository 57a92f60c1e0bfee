"""The broker's loggers and their levels, by Kafka's names (KIP-412). They last until the broker stops."""

from __future__ import annotations

import logging
from typing import Final

from ottla.errors import ErrorCode, KafkaError

ROOT: Final = "root"
"""Kafka's name of the logger above all others: here, of the package."""
_PACKAGE: Final = "ottla"
_LEVELS: Final = {
    "TRACE": 5,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}


def log_levels() -> dict[str, str]:
    """Every logger of the broker and the level in force for it."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(f"{_PACKAGE}.")]
    return {name: _name_of_level(_logger(name).getEffectiveLevel()) for name in [ROOT, *sorted(names)]}


def check_log_level(name: str, level: str | None) -> None:
    """Whether a logger can have this level; None stands for its parent's.

    Raises: KafkaError with INVALID_CONFIG (no such logger or level) or INVALID_REQUEST (the root must have one).
    """
    if name not in log_levels():
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"There is no logger named {name}.")
    if level is None and name == ROOT:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "The root logger must have a level.")
    if level is not None and level not in _LEVELS:
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"{level} is no level; there are {', '.join(_LEVELS)}.")


def set_log_level(name: str, level: str | None) -> None:
    """Set a level that `check_log_level` allows."""
    _logger(name).setLevel(logging.NOTSET if level is None else _LEVELS[level])


def _logger(name: str) -> logging.Logger:
    return logging.getLogger(_PACKAGE if name == ROOT else name)


def _name_of_level(level: int) -> str:
    return next((name for name, number in _LEVELS.items() if level <= number), "FATAL")
