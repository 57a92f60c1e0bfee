"""Which setting wins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.common.config import (
    BROKER_KEYS,
    BrokerConfig,
    ConfigSource,
    InvalidConfig,
    LogConfig,
    check_broker_config,
)
from ottla.common.config.definition import java_double


def test_a_topics_value_comes_from_the_nearest_place_that_has_one() -> None:
    static = BrokerConfig.load({"log.retention.ms": "4"})
    for_all = static.with_dynamic(default={"log.retention.ms": "3"})
    for_one = static.with_dynamic(default={"log.retention.ms": "3"}, broker={"log.retention.ms": "2"})
    assert LogConfig.resolve({}, BrokerConfig()).retention_ms == 7 * 24 * 3_600_000
    assert LogConfig.resolve({}, static).retention_ms == 4
    assert LogConfig.resolve({}, for_all).retention_ms == 3
    assert LogConfig.resolve({}, for_one).retention_ms == 2
    assert LogConfig.resolve({"retention.ms": "1"}, for_one).retention_ms == 1


def test_finer_units_win_over_coarser_ones() -> None:
    hours = {"log.retention.hours": "1", "log.roll.hours": "2", "log.roll.jitter.hours": "3"}
    config = LogConfig.resolve({}, BrokerConfig.load(hours))
    assert (config.retention_ms, config.segment_ms, config.segment_jitter_ms) == (3_600_000, 7_200_000, 10_800_000)
    minutes = hours | {"log.retention.minutes": "1"}
    assert LogConfig.resolve({}, BrokerConfig.load(minutes)).retention_ms == 60_000
    milliseconds = minutes | {"log.retention.ms": "5"}
    assert LogConfig.resolve({}, BrokerConfig.load(milliseconds)).retention_ms == 5


def test_no_limit_is_no_limit_in_every_unit() -> None:
    assert LogConfig.resolve({}, BrokerConfig.load({"log.retention.hours": "-1"})).retention_ms == -1


def test_the_sync_interval_falls_back_to_the_scheduler() -> None:
    config = BrokerConfig.load({"log.flush.scheduler.interval.ms": "9"})
    assert LogConfig.resolve({}, config).flush_ms == 9


def test_every_value_can_be_written_down_and_read_back() -> None:
    config = LogConfig.resolve({"cleanup.policy": "compact, delete", "preallocate": "TRUE"}, BrokerConfig())
    texts = config.texts()
    assert texts["cleanup.policy"] == "compact,delete"
    assert texts["preallocate"] == "true"
    assert len(texts) == 33
    assert LogConfig.resolve(texts, BrokerConfig()) == config


def test_node_id_and_broker_id_are_one() -> None:
    assert BrokerConfig.load({"broker.id": "7"}).integer("node.id") == 7
    assert BrokerConfig.load({"node.id": "7"}).integer("broker.id") == 7


def test_a_key_of_nobodys_is_kept() -> None:
    assert BrokerConfig.load({"my.plugin": "x"}).static["my.plugin"] == "x"


def test_what_is_set_shows_in_order_with_defaults_last() -> None:
    config = BrokerConfig.load({"min.insync.replicas": "4"}).with_dynamic(default={"min.insync.replicas": "3"})
    settings = config.settings(BROKER_KEYS["min.insync.replicas"])
    assert [(setting.text, setting.source) for setting in settings] == [
        ("3", ConfigSource.DYNAMIC_DEFAULT_BROKER),
        ("4", ConfigSource.STATIC_BROKER),
        ("1", ConfigSource.DEFAULT),
    ]


@pytest.mark.parametrize(
    "static",
    [
        {"group.min.session.timeout.ms": "5000", "group.max.session.timeout.ms": "4000"},
        {"log.cleaner.min.compaction.lag.ms": "5", "log.cleaner.max.compaction.lag.ms": "4"},
        {"log.dir": ""},
    ],
)
def test_settings_that_contradict_are_refused(static: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig):
        check_broker_config(BrokerConfig.load(static))


def test_a_broker_does_not_start_with_what_it_cannot_read() -> None:
    with pytest.raises(InvalidConfig, match=r"num\.partitions"):
        BrokerConfig.load({"num.partitions": "many"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (0.5, "0.5"),
        (100.0, "100.0"),
        (0.001, "0.001"),
        (1e-4, "1.0E-4"),
        (1e7, "1.0E7"),
        (123456789.0, "1.23456789E8"),
        (-2.5e-9, "-2.5E-9"),
        (1.7976931348623157e308, "1.7976931348623157E308"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (float("nan"), "NaN"),
    ],
)
def test_doubles_look_as_java_writes_them(value: float, text: str) -> None:
    assert java_double(value) == text


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_survive(value: float) -> None:
    assert float(java_double(value)) == value
