"""Our controller against the answers of Apache Kafka 4.3.1 to the same requests (tests/golden/admin)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from ottla.common.config import DEVIATIONS, ConfigSource
from ottla.controller.describe_configs import ConfigDescriber
from ottla.protocol.codec import decode_response, encode_response
from ottla.protocol.messages.describe_configs import DescribeConfigsRequest
from ottla.protocol.messages.list_config_resources import ListConfigResourcesRequest
from ottla.protocol.versions import API_VERSIONS
from tests.golden.admin.ask_kafka import ANSWERS
from tests.golden.admin.plain import plain
from tests.golden.admin.scenario import SETTINGS, STEPS, Step
from tests.unit.controller.helpers import Cluster

DIFFERENT: Final = {
    "grow: 10001 more": "Kafka fails with UNKNOWN_SERVER_ERROR beyond 10000 new partitions; we say POLICY_VIOLATION, "
    "as for CreateTopics.",
    "describe: broker": "Kafka forgets log.retention.hours of its file while log.retention.ms is set dynamically.",
}
"""Steps answered in another way on purpose."""


def comparable(answer: Any) -> Any:
    """Without keys that are ours, and without the defaults of keys whose default is."""
    if isinstance(answer, list):
        kafkas = [e for e in answer if not (isinstance(e, dict) and str(e.get("name")).startswith("ottla."))]
        return [comparable(entry) for entry in kafkas]
    if not isinstance(answer, dict):
        return answer
    if answer.get("name") in {deviation.name for deviation in DEVIATIONS} and "synonyms" in answer:
        set_somewhere = [synonym for synonym in answer["synonyms"] if synonym["source"] != ConfigSource.DEFAULT]
        return {**answer, "synonyms": set_somewhere}
    return {name: comparable(value) for name, value in answer.items()}


class Broker:
    """The scenario's broker."""

    def __init__(self) -> None:
        self.cluster = Cluster(config=SETTINGS).start(1)

    def ask(self, step: Step) -> Any:
        version = API_VERSIONS[step.api][1] if step.version is None else step.version
        describer = ConfigDescriber(
            node_id=1,
            image=self.cluster.image(),
            static=self.cluster.config,
            log_levels={},
        )
        if isinstance(step.request, DescribeConfigsRequest):
            response = describer.describe(step.request)
        elif isinstance(step.request, ListConfigResourcesRequest):
            response = describer.list_resources(step.request, api_version=version)
        else:
            response = self.cluster.call(step.request)
        return plain(decode_response(step.api, version, encode_response(step.api, version, response)))


Answers = Mapping[str, Any]
"""By the name of their step."""


@pytest.fixture(scope="module")
def ours() -> Answers:
    broker = Broker()
    return {step.name: broker.ask(step) for step in STEPS}


@pytest.fixture(scope="module")
def kafkas() -> Answers:
    return {entry["step"]: entry["answer"] for entry in json.loads(ANSWERS.read_text())}


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_answers_like_kafka(step: str, ours: Answers, kafkas: Answers) -> None:
    if step in DIFFERENT:
        assert comparable(ours[step]) != comparable(kafkas[step]), "no longer different: take it off the list"
    else:
        assert comparable(ours[step]) == comparable(kafkas[step])


def test_a_new_partition_too_many_is_a_violation_of_policy(ours: Answers) -> None:
    assert [result["error_code"] for result in ours["grow: 10001 more"]["results"]] == ["POLICY_VIOLATION"]
