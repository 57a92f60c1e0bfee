"""What is configured for a share group, out of its own settings and the broker's."""

from __future__ import annotations

import pytest

from ottla.broker.share_settings import EARLIEST, LATEST, share_group_settings
from ottla.common.config import BrokerConfig


def test_defaults_are_kafkas() -> None:
    settings = share_group_settings(BrokerConfig.load({}), {})
    assert settings.partitions == (30_000, 5, 2_000, True)
    assert (settings.committed_only, settings.start) == (False, LATEST)


def test_a_groups_own_within_what_the_broker_allows() -> None:
    texts = {
        "share.record.lock.duration.ms": "100000",
        "share.delivery.count.limit": "7",
        "share.partition.max.record.locks": "1",
        "share.renew.acknowledge.enable": "false",
        "share.isolation.level": "read_committed",
    }
    settings = share_group_settings(BrokerConfig.load({}), texts)
    assert settings.partitions == (60_000, 7, 100, False)
    assert settings.committed_only


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("latest", LATEST),
        ("earliest", EARLIEST),
        ("by_duration:PT1S", 1_000),
        ("by_duration:PT0.25S", 250),
        ("by_duration:P1DT2H3M4.5S", ((26 * 60 + 3) * 60 + 4) * 1_000 + 500),
        ("by_duration:P2D", 2 * 86_400_000),
    ],
)
def test_where_it_begins(text: str, start: int) -> None:
    assert share_group_settings(BrokerConfig.load({}), {"share.auto.offset.reset": text}).start == start
