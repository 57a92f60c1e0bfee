"""Ottla answers odd requests as Apache Kafka does: what `tests.golden.record` recorded is the specification."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.golden.deviations import DEVIATIONS
from tests.golden.lab import Lab, NotAdvertised, all_probes, differences
from tests.golden.record import as_stored, expected, load

PROBES = all_probes()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """At an own broker, or at the one named by OTTLA_COMPAT_BOOTSTRAP (an Apache Kafka, to test the probes)."""
    if bootstrap := os.environ.get("OTTLA_COMPAT_BOOTSTRAP"):
        host, _, port = bootstrap.rpartition(":")
        with closing(Lab((host, int(port)), settle_seconds=0.15)) as lab:
            yield prepared(lab)
        return
    data_dir: Path = tmp_path_factory.mktemp("golden") / "data"
    with BrokerProcess(data_dir) as broker:
        with closing(Lab(("127.0.0.1", broker.port))) as lab:
            yield prepared(lab)


def prepared(lab: Lab) -> Lab:
    try:
        lab.need(ApiKey.CREATE_TOPICS)
        lab.wait_for_coordinators()
    except NotAdvertised as error:
        pytest.skip(f"{error} is not advertised")
    return lab


@pytest.mark.parametrize("key", PROBES)
def test_answers_as_kafka_does(lab: Lab, key: str) -> None:
    probe = PROBES[key]
    try:
        answer = as_stored(probe.run(lab))
    except NotAdvertised as error:
        pytest.skip(f"{error} is not advertised")
    different = differences(expected(probe), answer)
    unexpected = [line for line in different if not any(deviation.covers(key, line) for deviation in DEVIATIONS)]
    assert not unexpected, "\n".join(unexpected)
    if "OTTLA_COMPAT_BOOTSTRAP" not in os.environ:
        gone = [d for d in DEVIATIONS if d.probe == key and not any(d.covers(key, line) for line in different)]
        assert not gone, f"no longer different: {gone}"


def test_every_recorded_answer_has_its_probe() -> None:
    recorded = {f"{area}/{name}" for area in {probe.area for probe in PROBES.values()} for name in load(area)}
    assert recorded == set(PROBES)
