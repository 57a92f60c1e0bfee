"""Each field wrong in turn: consumer groups of KIP-848."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe
from tests.golden.odd import odd

MEMBER = "a-member"


def topic_of(lab: Lab) -> str:
    return lab.topic("odd-modern", partitions=2)


def entering(lab: Lab, group: str, **fields: Any) -> ConsumerGroupHeartbeatRequest:
    given: dict[str, Any] = {
        "member_id": MEMBER,
        "rebalance_timeout_ms": 30_000,
        "subscribed_topic_names": (topic_of(lab),),
        "topic_partitions": (),
    }
    return ConsumerGroupHeartbeatRequest(group_id=group, **(given | fields))


def enter(lab: Lab, group: str, **fields: Any) -> None:
    answer = lab.call(ApiKey.CONSUMER_GROUP_HEARTBEAT, entering(lab, group, **fields))
    assert answer.assignment is not None, answer


def own_member_id(_lab: Lab, answer: Answer) -> Answer:
    """Version 0 hands out ids."""
    if isinstance(answer, dict) and answer.get("member_id") not in (None, MEMBER):
        answer["member_id"] = "<handed out>"
    return answer


@odd(ApiKey.CONSUMER_GROUP_HEARTBEAT, reduce=own_member_id)
def first_heartbeat(lab: Lab, name: str) -> Any:
    return entering(lab, name)


@odd(ApiKey.CONSUMER_GROUP_HEARTBEAT, stem="-static", reduce=own_member_id)
def first_heartbeat_of_a_static_member(lab: Lab, name: str) -> Any:
    return entering(lab, name, instance_id="i", rack_id="r", server_assignor="range")


@odd(ApiKey.CONSUMER_GROUP_HEARTBEAT, stem="-expression", least=1, reduce=own_member_id)
def first_heartbeat_with_an_expression(lab: Lab, name: str) -> Any:
    return entering(lab, name, subscribed_topic_names=None, subscribed_topic_regex="nothing-.*")


@odd(ApiKey.CONSUMER_GROUP_HEARTBEAT, stem="-later", reduce=own_member_id)
def later_heartbeat(lab: Lab, name: str) -> Any:
    enter(lab, name)
    owned = ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=lab.topic_id(topic_of(lab)), partitions=(0, 1))
    return ConsumerGroupHeartbeatRequest(
        group_id=name,
        member_id=MEMBER,
        member_epoch=2,
        rebalance_timeout_ms=30_000,
        subscribed_topic_names=(topic_of(lab),),
        topic_partitions=(owned,),
    )


@odd(ApiKey.CONSUMER_GROUP_HEARTBEAT, stem="-bare", reduce=own_member_id)
def heartbeat_without_news(lab: Lab, name: str) -> Any:
    enter(lab, name, instance_id="i")
    return ConsumerGroupHeartbeatRequest(group_id=name, member_id=MEMBER, member_epoch=2, instance_id="i")


@odd(ApiKey.CONSUMER_GROUP_DESCRIBE)
def description(lab: Lab, name: str) -> Any:
    enter(lab, name)
    return ConsumerGroupDescribeRequest(group_ids=(name,))


@probe()
def subscriptions_of_odd_names(lab: Lab) -> Answer:
    told = {}
    for what, fields in {
        "empty name": {"subscribed_topic_names": ("",)},
        "illegal name": {"subscribed_topic_names": ("a b",)},
        "long name": {"subscribed_topic_names": ("x" * 300,)},
        "same name twice": {"subscribed_topic_names": (topic_of(lab), topic_of(lab))},
        "internal topic": {"subscribed_topic_names": ("__consumer_offsets",)},
        "empty expression": {"subscribed_topic_names": None, "subscribed_topic_regex": ""},
        "name and expression": {"subscribed_topic_regex": "none"},
        "names and empty expression": {"subscribed_topic_regex": ""},
        "nothing and empty expression": {"subscribed_topic_names": (), "subscribed_topic_regex": ""},
        "broken expression": {"subscribed_topic_names": None, "subscribed_topic_regex": "["},
    }.items():
        group = lab.name(f"odd-names-{what.replace(' ', '-')}")
        answer = lab.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, entering(lab, group, **fields))
        described = lab.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, ConsumerGroupDescribeRequest(group_ids=(group,)))
        told[what] = [answer, described]
    return told
