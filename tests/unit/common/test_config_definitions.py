"""Our tables of keys against those of Apache Kafka 4.3.1 (its ConfigDef objects, written down as JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from ottla.common.config import (
    BROKER_KEYS,
    CLIENT_METRICS_KEYS,
    DEVIATIONS,
    GROUP_KEYS,
    TOPIC_KEYS,
    ConfigKey,
    InvalidConfig,
)

KAFKAS: Final = json.loads((Path(__file__).parents[2] / "golden" / "config" / "definitions.json").read_text())
OURS: Final[Mapping[str, Mapping[str, ConfigKey]]] = {
    "broker": BROKER_KEYS,
    "topic": TOPIC_KEYS,
    "group": GROUP_KEYS,
    "client_metrics": CLIENT_METRICS_KEYS,
}
DEVIATING: Final = {deviation.name: deviation for deviation in DEVIATIONS}
UNCHECKED: Final = {"controller.quorum.bootstrap.servers", "controller.quorum.voters", "authorizer.class.name"}
"""Keys that Kafka checks in a way of its own; the voters are checked by `ottla.broker.roles`, the others do nothing."""


@pytest.mark.parametrize("kind", OURS)
def test_the_keys_are_kafkas(kind: str) -> None:
    assert {name for name in OURS[kind] if not name.startswith("ottla.")} == set(KAFKAS[kind])


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in OURS for name in KAFKAS[kind]])
def test_a_key_is_as_in_kafka(kind: str, name: str) -> None:
    key, kafkas = OURS[kind][name], KAFKAS[kind][name]
    assert key.type.name == kafkas["type"]
    assert key.internal == kafkas["internal"]
    if name not in UNCHECKED:
        assert key.valid.text == kafkas["accepts"]
    if not key.internal:
        assert key.importance.value == kafkas["importance"]
    if name in DEVIATING and kind == "broker":
        assert DEVIATING[name].kafka == kafkas["default"] != key.default == DEVIATING[name].ottla
    else:
        assert key.default == kafkas["default"]
    if kind == "broker" and not key.internal:
        assert key.mode.value == kafkas["update"]


def all_keys() -> list[Any]:
    return [pytest.param(key, id=f"{kind}: {name}") for kind, keys in OURS.items() for name, key in keys.items()]


@pytest.mark.parametrize("key", all_keys())
def test_a_key_accepts_its_default_and_shows_it_as_it_was(key: ConfigKey) -> None:
    if key.default is not None:
        assert key.format(key.parse(key.default)) == key.default


@pytest.mark.parametrize("key", all_keys())
def test_a_key_is_documented_in_sentences(key: ConfigKey) -> None:
    if key.internal:
        return
    text = key.full_documentation
    assert text[0].isupper()
    assert text.endswith(".")
    assert 15 < len(text) < 400


def test_a_deviation_says_why() -> None:
    for deviation in DEVIATIONS:
        assert deviation.reason.endswith(".")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("retention.ms", "x"),
        ("retention.ms", "-2"),
        ("retention.ms", ""),
        ("retention.ms", "9223372036854775808"),
        ("retention.ms", "1_000"),
        ("segment.bytes", "2147483648"),
        ("segment.bytes", "1048575"),
        ("min.cleanable.dirty.ratio", "1.01"),
        ("min.cleanable.dirty.ratio", "0_1"),
        ("preallocate", "1"),
        ("cleanup.policy", "delete,,compact"),
        ("cleanup.policy", "Delete"),
        ("compression.type", "brotli"),
        ("compression.gzip.level", "10"),
        ("leader.replication.throttled.replicas", "*,1:2"),
    ],
)
def test_what_a_topic_does_not_accept(name: str, text: str) -> None:
    with pytest.raises(InvalidConfig, match=name.replace(".", "\\.")):
        TOPIC_KEYS[name].parse(text)


def test_a_secret_is_not_repeated_in_a_refusal() -> None:
    key = ConfigKey(
        name="k",
        type=BROKER_KEYS["ssl.key.password"].type,
        default=None,
        valid=TOPIC_KEYS["compression.type"].valid,
    )
    with pytest.raises(InvalidConfig) as refused:
        key.parse("hunter2")
    assert "hunter2" not in str(refused.value)
