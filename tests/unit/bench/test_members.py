"""Members of groups as the bench plays them: what they ask for next, and when they count as settled."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from bench.members import BEAT_S, ClassicMember, ConsumerMember
from ottla.errors import ErrorCode
from ottla.protocol.codec import decode_request
from ottla.protocol.header import encode_response_frame
from ottla.protocol.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatResponse,
    ConsumerGroupHeartbeatResponseTopicPartitions,
)
from ottla.protocol.messages.heartbeat import HeartbeatResponse
from ottla.protocol.messages.join_group import JoinGroupResponse, JoinGroupResponseMember
from ottla.protocol.messages.sync_group import SyncGroupResponse
from ottla.protocol.versions import ApiKey

API_OF = {
    JoinGroupResponse: ApiKey.JOIN_GROUP,
    SyncGroupResponse: ApiKey.SYNC_GROUP,
    HeartbeatResponse: ApiKey.HEARTBEAT,
    ConsumerGroupHeartbeatResponse: ApiKey.CONSUMER_GROUP_HEARTBEAT,
}
FLEXIBLE_HEAD = 2 + 2 + 4 + 2 + len("bench") + 1
HEAD = FLEXIBLE_HEAD - 1


class Led:
    """A life that is led by hand."""

    def __init__(self, member: ClassicMember | ConsumerMember) -> None:
        self._life = member.life()
        self.wish = next(self._life)

    def asked(self) -> Any:
        """The request that waits for its answer."""
        assert isinstance(self.wish, bytes)
        assert int.from_bytes(self.wish[:4]) == len(self.wish) - 4
        api, version = ApiKey(int.from_bytes(self.wish[4:6])), int.from_bytes(self.wish[6:8])
        head = FLEXIBLE_HEAD if api is ApiKey.CONSUMER_GROUP_HEARTBEAT else HEAD
        return decode_request(api, version, self.wish[4 + head :])

    def answer(self, response: Any) -> Any:
        """Answer the request; returns the next one, or the seconds that the member now waits."""
        assert isinstance(self.wish, bytes)
        version = int.from_bytes(self.wish[6:8])
        self.wish = self._life.send(encode_response_frame(API_OF[type(response)], version, response, correlation_id=1))
        return self.wish if isinstance(self.wish, float) else self.asked()

    def wait(self) -> Any:
        """Let the seconds pass that the member waits; returns the next request."""
        assert isinstance(self.wish, float)
        self.wish = next(self._life)
        return self.asked()


def test_a_classic_member_joins_syncs_beats_and_joins_again() -> None:
    member = ClassicMember("group", "topic")
    led = Led(member)
    assert led.asked().member_id == ""
    again = led.answer(JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED, member_id="m"))
    assert again.member_id == "m"
    everybody = (JoinGroupResponseMember(member_id="m"), JoinGroupResponseMember(member_id="n"))
    sync = led.answer(JoinGroupResponse(generation_id=3, member_id="m", leader="m", members=everybody))
    assert (sync.generation_id, [a.member_id for a in sync.assignments]) == (3, ["m", "n"])
    assert member.epoch == -1
    assert led.answer(SyncGroupResponse(assignment=b"assigned")) == BEAT_S
    assert member.epoch == 3
    assert led.wait().generation_id == 3
    assert led.answer(HeartbeatResponse()) == BEAT_S
    led.wait()
    rejoined = led.answer(HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))
    assert (rejoined.member_id, rejoined.protocol_type, member.epoch) == ("m", "consumer", -1)


def test_a_rebalance_before_the_assignment_sends_a_classic_member_back_to_the_join() -> None:
    led = Led(ClassicMember("group", "topic"))
    led.answer(JoinGroupResponse(generation_id=1, member_id="m", leader="n"))
    assert led.answer(SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS)).protocol_type == "consumer"


def test_any_other_error_ends_the_load() -> None:
    led = Led(ClassicMember("group", "topic"))
    with pytest.raises(RuntimeError, match="JoinGroup: NOT_COORDINATOR"):
        led.answer(JoinGroupResponse(error_code=ErrorCode.NOT_COORDINATOR))


def assigned(epoch: int, *partitions: int) -> ConsumerGroupHeartbeatResponse:
    topic = ConsumerGroupHeartbeatResponseTopicPartitions(topic_id=uuid.UUID(int=1), partitions=partitions)
    return ConsumerGroupHeartbeatResponse(member_epoch=epoch, assignment=Assignment(topic_partitions=(topic,)))


def test_a_consumer_says_at_once_what_it_has_given_up_and_taken() -> None:
    member = ConsumerMember("group", "topic")
    led = Led(member)
    assert (led.asked().member_epoch, led.asked().subscribed_topic_names) == (0, ("topic",))
    took = led.answer(assigned(1, 0, 1, 2))
    assert (took.member_epoch, took.topic_partitions[0].partitions) == (1, (0, 1, 2))
    assert member.owned == frozenset()  # the broker does not know yet
    assert led.answer(ConsumerGroupHeartbeatResponse(member_epoch=1)) == BEAT_S
    assert (member.epoch, member.owned) == (1, {0, 1, 2})
    assert led.wait().topic_partitions is None
    kept = led.answer(assigned(1, 0))
    assert (kept.topic_partitions[0].partitions, member.owned) == ((0,), {0})
    assert led.answer(ConsumerGroupHeartbeatResponse(member_epoch=2)) == BEAT_S
    assert (member.epoch, member.owned) == (2, {0})


def consumer(epoch: int, *owned: int) -> ConsumerMember:
    member = ConsumerMember("group", "topic")
    member.epoch, member.owned = epoch, frozenset(owned)
    return member


def test_members_are_settled_when_all_have_their_share_in_one_epoch() -> None:
    settled = ConsumerMember.are_settled
    assert settled([consumer(5, 0, 1), consumer(5, 2, 3)], 4)
    assert not settled([consumer(5, 0, 1), consumer(4, 2, 3)], 4)
    assert not settled([consumer(5, 0, 1), consumer(5, 2)], 4)
    assert not settled([consumer(5, 0, 1), consumer(5, 2, 3)], 5)
    with pytest.raises(RuntimeError, match="two owners"):
        settled([consumer(5, 0, 1), consumer(5, 1, 2)], 4)


def classic(generation: int) -> ClassicMember:
    member = ClassicMember("group", "topic")
    member.epoch = generation
    return member


@pytest.mark.parametrize(("generations", "expected"), [((3, 3), True), ((3, 2), False), ((3, -1), False)])
def test_classic_members_are_settled_in_one_generation(generations: tuple[int, ...], *, expected: bool) -> None:
    assert ClassicMember.are_settled([classic(generation) for generation in generations], 4) is expected
