"""Share fetches of KIP-932: sessions, what a member acquires, and what becomes of what it acknowledges."""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages import share_acknowledge
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from ottla.protocol.messages.share_fetch import (
    AcknowledgementBatch,
    FetchPartition,
    FetchTopic,
    ForgottenTopic,
    ShareFetchRequest,
)
from ottla.protocol.versions import ApiKey
from tests.golden.batch import Batch, values
from tests.golden.lab import Answer, Lab, probe
from tests.golden.probes.share_groups import Group
from tests.golden.probes.transactional_writes import Transactional
from tests.golden.wire import CLOSED, ClosedByBroker

GAP, ACCEPT, RELEASE, REJECT, RENEW = range(5)
NOWHERE = uuid.UUID(int=78)
GROUP_CONFIG = 32

Range = tuple[int, int, int]


def batch_of(count: int) -> bytes:
    return Batch(records=values(*(b"%d" % i for i in range(count)))).encode()


def acked(*ranges: tuple[int, ...]) -> tuple[AcknowledgementBatch, ...]:
    """First offset, last offset, and one type for all or one for each."""
    return tuple(AcknowledgementBatch(first_offset=r[0], last_offset=r[1], acknowledge_types=r[2:]) for r in ranges)


class Sharing:
    """A share group at the beginning of a topic of its own, whose partition 0 has batches of so many records."""

    def __init__(self, lab: Lab, stem: str, *counts: int, partitions: int = 1, **configs: str) -> None:
        self.group = Group(lab, stem)
        self.lab, self.group_id = lab, self.group.group
        self.topic = lab.topic(f"fetched-{stem}", partitions=partitions)
        self.topic_id: uuid.UUID | None = lab.topic_id(self.topic)
        self.configure(**{"share_auto_offset_reset": "earliest"} | configs)
        self.produce(*counts)
        self.members = 0
        self.first = self.enter()
        self.group.wait_for_states(partitions)
        self.first.beat()

    def configure(self, **configs: str) -> Answer:
        rows = tuple(AlterableConfig(name=k.replace("_", "."), value=v) for k, v in configs.items())
        resource = AlterConfigsResource(resource_type=GROUP_CONFIG, resource_name=self.group_id, configs=rows)
        answer = self.lab.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest(resources=(resource,)))
        self.lab.settle()
        return answer

    def produce(self, *counts: int, partition: int = 0) -> None:
        self.lab.produce(self.topic, *(batch_of(count) for count in counts), partition=partition)

    def enter(self) -> Member:
        self.members += 1
        number = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.group_id}{self.members}")
        member = Member(self, base64.urlsafe_b64encode(number.bytes).rstrip(b"=").decode())
        self.group.enter(member.member_id, self.topic)
        return member


class Member:
    """A member with a connection of its own, as share sessions end with their connections."""

    def __init__(self, sharing: Sharing, member_id: str) -> None:
        self.sharing, self.member_id = sharing, member_id
        self.connection = sharing.lab.connect()
        self.epoch = 0

    def beat(self) -> Answer:
        return self.sharing.group.beat(self.member_id, 1)

    def call(self, api: ApiKey, message: Any, version: int) -> Any:
        answer = self.connection.call(api, version, message)
        if answer.error_code is ErrorCode.NONE and message.share_session_epoch == self.epoch:
            self.epoch += 1
        return answer

    def ask(self, api: ApiKey, message: Any, version: int) -> Answer:
        try:
            return self.sharing.lab.plain(self.call(api, message, version))
        except ClosedByBroker:
            return CLOSED

    def request(
        self,
        *acknowledged: tuple[int, ...],
        epoch: int | None = None,
        partitions: tuple[int, ...] | None = None,
        **fields: Any,
    ) -> ShareFetchRequest:
        if epoch is None:
            epoch = self.epoch
        if partitions is None:
            partitions = (0,) if epoch == 0 or acknowledged else ()
        rows = tuple(
            FetchPartition(partition_index=i, acknowledgement_batches=acked(*acknowledged)) for i in partitions
        )
        topics = (FetchTopic(topic_id=self.sharing.topic_id, partitions=rows),) if rows else ()
        given: dict[str, Any] = {
            "group_id": self.sharing.group_id,
            "member_id": self.member_id,
            "max_wait_ms": 400,
            "min_bytes": 1,
            "max_records": 500,
            "batch_size": 500,
            "topics": topics,
        }
        return ShareFetchRequest(share_session_epoch=epoch, **given | fields)

    def fetch(self, *acknowledged: tuple[int, ...], version: int = 2, **fields: Any) -> Answer:
        return self.ask(ApiKey.SHARE_FETCH, self.request(*acknowledged, **fields), version)

    def acquire(self, *acknowledged: tuple[int, ...], **fields: Any) -> list[Range] | str:
        """What was acquired in partition 0, as first offset, last offset and delivery count; or the error."""
        wait_ms = fields.pop("wait_ms", 3_000)
        deadline = time.monotonic() + wait_ms / 1000
        while True:
            response = self.call(ApiKey.SHARE_FETCH, self.request(*acknowledged, **fields), 2)
            if response.error_code is not ErrorCode.NONE:
                return str(response.error_code.name)
            acknowledged = ()
            found = [p for t in response.responses for p in t.partitions if p.partition_index == 0]
            for partition in found:
                if partition.error_code is not ErrorCode.NONE:
                    return str(partition.error_code.name)
                if partition.acknowledge_error_code:
                    return f"acknowledgement: {ErrorCode(partition.acknowledge_error_code).name}"
                if partition.acquired_records:
                    return [(r.first_offset, r.last_offset, r.delivery_count) for r in partition.acquired_records]
            if time.monotonic() > deadline:
                return []

    def acknowledge(
        self,
        *acknowledged: tuple[int, ...],
        epoch: int | None = None,
        partition: int = 0,
        version: int = 2,
        **fields: Any,
    ) -> Answer:
        if epoch is None:
            epoch = self.epoch
        batches = tuple(
            share_acknowledge.AcknowledgementBatch(first_offset=r[0], last_offset=r[1], acknowledge_types=r[2:])
            for r in acknowledged
        )
        row = share_acknowledge.AcknowledgePartition(partition_index=partition, acknowledgement_batches=batches)
        topic = share_acknowledge.AcknowledgeTopic(topic_id=self.sharing.topic_id, partitions=(row,))
        given: dict[str, Any] = {
            "group_id": self.sharing.group_id,
            "member_id": self.member_id,
            "topics": (topic,),
        } | fields
        request = share_acknowledge.ShareAcknowledgeRequest(share_session_epoch=epoch, **given)
        return self.ask(ApiKey.SHARE_ACKNOWLEDGE, request, version)

    def error(self, *acknowledged: tuple[int, ...], **fields: Any) -> str:
        """What the acknowledgement came to, in a word."""
        answer = self.acknowledge(*acknowledged, **fields)
        if isinstance(answer, str):
            return answer
        if "error_code" in answer:
            return f"all: {answer['error_code']}"
        (topic,) = answer["responses"]
        (partition,) = topic["partitions"]
        return str(partition.get("error_code", "NONE"))


@probe(each=[1, 2])
def each_version(lab: Lab, version: int) -> Answer:
    sharing = Sharing(lab, f"version-{version}", 3, 2)
    member = sharing.first
    return {
        "first": member.fetch(version=version, max_wait_ms=5_000),
        "nothing more": member.fetch(version=version, max_wait_ms=0),
        "acknowledged": member.acknowledge((0, 4, ACCEPT), version=version),
        "with a fetch": member.fetch((0, 0, ACCEPT), version=version, max_wait_ms=0),
        "end": member.fetch(version=version, epoch=-1),
        "after the end": member.fetch(version=version, epoch=-1),
    }


@probe()
def sessions(lab: Lab) -> Answer:
    sharing = Sharing(lab, "sessions", 3, partitions=2)
    member = sharing.first
    found = {
        "no session": member.fetch(epoch=1),
        "no session to end": member.fetch(epoch=-1),
        "acknowledgement without session": member.acknowledge((0, 0, ACCEPT), epoch=1),
        "acknowledgement at epoch 0": member.acknowledge((0, 0, ACCEPT), epoch=0),
        "final acknowledgement without session": member.acknowledge((0, 0, ACCEPT), epoch=-1),
        "begin": member.acquire(epoch=0, wait_ms=0) in ([], [(0, 2, 1)]),
        "too high": member.fetch(epoch=3),
        "anew": member.fetch(epoch=0, partitions=(1,)),
        "negative": member.fetch(epoch=-2),
        "acknowledgement too high": member.acknowledge((0, 0, ACCEPT), epoch=7),
        "begin with acknowledgement": member.fetch((0, 0, ACCEPT), epoch=0),
        "end with partitions": member.fetch(epoch=-1, partitions=(0,)),
    }
    member.epoch = 0
    return found


@probe()
def requests_without_sense(lab: Lab) -> Answer:
    sharing = Sharing(lab, "senseless", 3)
    member = sharing.first
    found = {
        "no group": member.fetch(epoch=0, group_id=None),
        "empty group": member.fetch(epoch=0, group_id=""),
        "no member": member.fetch(epoch=0, member_id=None),
        "empty member": member.fetch(epoch=0, member_id=""),
        "acquire mode 2": member.fetch(epoch=0, share_acquire_mode=2),
        "acquire mode -1": member.fetch(epoch=0, share_acquire_mode=-1),
        "no records": member.fetch(epoch=0, max_records=0),
        "no bytes": member.fetch(epoch=0, max_bytes=0),
        "negative bytes": member.fetch(epoch=0, max_bytes=-1),
        "renewal announced": member.fetch(epoch=0, is_renew_ack=True),
        "no group to acknowledge": member.acknowledge((0, 0, ACCEPT), epoch=1, group_id=None),
        "member to acknowledge that is no id": member.acknowledge((0, 0, ACCEPT), epoch=1, member_id="member"),
    }
    found["member that is no id"] = member.fetch(epoch=0, member_id="member", max_wait_ms=5_000)
    found["unknown member"] = member.fetch(epoch=0, member_id="AAAAAAAAAAAAAAAAAAAAAQ", max_wait_ms=0)
    for name, fields in {
        "negative records": {"max_records": -1},
        "no batch size": {"batch_size": 0},
        "negative wait": {"max_wait_ms": -1},
    }.items():
        sharing.produce(2)
        member.epoch = 0
        found[name] = member.fetch(**fields)
    other = sharing.enter()
    unknown = FetchTopic(topic_id=NOWHERE, partitions=(FetchPartition(partition_index=0),))
    beyond = FetchTopic(topic_id=sharing.topic_id, partitions=(FetchPartition(partition_index=7),))
    found["unknown topic"] = other.fetch(epoch=0, topics=(unknown,))
    found["unknown partition"] = other.fetch(epoch=0, topics=(beyond,))
    found["no topics"] = other.fetch(epoch=0, topics=())
    found["forgotten"] = other.fetch(
        epoch=1, topics=(), forgotten_topics_data=(ForgottenTopic(topic_id=NOWHERE, partitions=(0,)),), max_wait_ms=0
    )
    return found


@probe()
def a_group_that_is_not_there(lab: Lab) -> Answer:
    """Its members' fetches, without a heartbeat before."""
    sharing = Sharing(lab, "there", 3)
    member = sharing.first
    return {"fetch": member.fetch(epoch=0, group_id=lab.name("not-there"), max_wait_ms=2_000)}


@probe()
def acquired_batches(lab: Lab) -> Answer:
    """How maximum and batch size cut what is acquired, in both modes (KIP-1206)."""
    found = {}
    for name, fields in {
        "optimized": {"max_records": 4},
        "limited": {"max_records": 4, "share_acquire_mode": 1},
        "one": {"max_records": 1},
        "limited to one": {"max_records": 1, "share_acquire_mode": 1},
        "small batches": {"batch_size": 2},
        "batches of 4": {"batch_size": 4},
        "limited and small": {"max_records": 5, "batch_size": 2, "share_acquire_mode": 1},
        "few bytes": {"max_bytes": 1},
    }.items():
        sharing = Sharing(lab, name.replace(" ", "-"), 3, 5, 2, 1)
        member = sharing.first
        # Once the first records came, nothing has to be waited for any more.
        found[name] = [member.acquire(**fields), *(member.acquire(wait_ms=0, **fields) for _ in range(2))]
        found[name].append(member.acquire(wait_ms=0, max_wait_ms=0))
    return found


@probe()
def acknowledgements(lab: Lab) -> Answer:
    sharing = Sharing(lab, "acks", 10)
    one = sharing.first
    found: dict[str, Answer] = {"all": one.acquire()}
    found["backwards"] = one.error((3, 2, ACCEPT))
    found["no type"] = one.error((0, 2))
    found["too few types"] = one.error((0, 2, ACCEPT, ACCEPT))
    found["too many types"] = one.error((0, 1, ACCEPT, ACCEPT, ACCEPT))
    found["type 5"] = one.error((0, 0, 5))
    found["type -1"] = one.error((0, 0, -1))
    found["out of order"] = one.error((5, 5, ACCEPT), (1, 1, ACCEPT))
    found["overlapping"] = one.error((1, 3, ACCEPT), (3, 4, ACCEPT))
    found["beyond the end"] = one.error((8, 12, ACCEPT))
    found["wholly beyond"] = one.error((50, 52, ACCEPT))
    found["none of it happened"] = one.error((1, 8, ACCEPT, RELEASE, REJECT, GAP, RELEASE, RELEASE, ACCEPT, RELEASE))
    found["accepted again"] = one.error((1, 1, ACCEPT))
    found["released again"] = one.error((2, 2, RELEASE))
    found["rejected again"] = one.error((3, 3, ACCEPT))
    found["partly again"] = one.error((8, 9, ACCEPT))
    found["still its own"] = one.error((9, 9, ACCEPT))
    found["released"] = one.acquire()
    two = sharing.enter()
    found["nothing for another"] = two.acquire(wait_ms=0)
    found["another's"] = two.error((2, 2, ACCEPT))
    found["in a fetch, of another"] = two.fetch((2, 2, ACCEPT), max_wait_ms=0)
    found["in a fetch, without sense"] = two.fetch((2, 1, ACCEPT), max_wait_ms=0)
    found["in a fetch, of a partition that is not there"] = two.fetch((2, 2, ACCEPT), partitions=(7,), max_wait_ms=0)
    found["unknown partition"] = two.acknowledge((0, 0, ACCEPT), partition=9)
    found["nothing acknowledged"] = two.acknowledge()
    found["first of all"] = one.error((0, 0, ACCEPT))
    found["below the start"] = one.error((0, 0, ACCEPT))
    found["across the start"] = one.error((0, 2, ACCEPT))
    found["negative"] = one.error((-1, 2, ACCEPT))
    return found


@probe()
def renewals(lab: Lab) -> Answer:
    sharing = Sharing(lab, "renewals", 10)
    one = sharing.first
    nothing = {"max_bytes": 0, "max_records": 0, "min_bytes": 0, "max_wait_ms": 0}
    found: dict[str, Answer] = {"all": one.acquire()}
    found["unannounced"] = one.error((0, 0, RENEW))
    found["announced"] = one.error((0, 0, RENEW), is_renew_ack=True)
    found["beside others"] = one.error((0, 2, RENEW, ACCEPT, RELEASE), is_renew_ack=True)
    found["announced for nothing"] = one.error((0, 0, ACCEPT), is_renew_ack=True)
    found["of what is not its own"] = one.error((1, 1, RENEW), is_renew_ack=True)
    found["in a fetch"] = one.fetch((3, 3, RENEW), is_renew_ack=True)
    found["in a fetch of nothing"] = one.fetch((3, 3, RENEW), is_renew_ack=True, **nothing)
    found["in a fetch, unannounced"] = one.fetch((3, 3, RENEW), max_wait_ms=0)
    found["in a fetch, announced for nothing"] = one.fetch((3, 3, ACCEPT), is_renew_ack=True, **nothing)
    for name in nothing:
        some = nothing | {name: 1}
        found[f"in a fetch, with {name}"] = one.fetch((4, 4, RENEW), is_renew_ack=True, **some)
    found["version 1"] = one.error((5, 5, RENEW), version=1)
    sharing.configure(share_renew_acknowledge_enable="false")
    found["not allowed"] = one.error((6, 6, RENEW), is_renew_ack=True)
    found["not allowed in a fetch"] = one.fetch((6, 6, RENEW), is_renew_ack=True, **nothing)
    return found


@probe()
def overlapping_renewals(lab: Lab) -> Answer:
    """An offset that is named twice, once or twice to be renewed: each time of a batch that nobody has touched."""
    sharing = Sharing(lab, "overlaps", 5, 5, 5, 5, 5, 5, 5)
    one = sharing.first
    found: dict[str, Answer] = {"all": one.acquire()}
    pairs: tuple[tuple[str, int, int], ...] = (
        ("renewed twice", RENEW, RENEW),
        ("renewed and accepted", RENEW, ACCEPT),
        ("accepted and renewed", ACCEPT, RENEW),
        ("renewed and released", RENEW, RELEASE),
        ("accepted twice", ACCEPT, ACCEPT),
    )
    for number, (name, before, after) in enumerate(pairs):
        first = 5 * number
        found[name] = one.error((first, first + 4, before), (first + 4, first + 4, after), is_renew_ack=True)
        found[f"{name}: then the last"] = one.error((first + 4, first + 4, ACCEPT))
        found[f"{name}: then the first"] = one.error((first, first, ACCEPT))
    found["whole batches twice"] = one.error((25, 29, RENEW), (25, 29, ACCEPT), is_renew_ack=True)
    found["a batch and its neighbours"] = one.error((25, 34, RENEW), (30, 34, ACCEPT), is_renew_ack=True)
    return found


@probe()
def partitions_that_nobody_fetched(lab: Lab) -> Answer:
    """Acknowledgements for partitions that are there, but of which the group has never read."""
    sharing = Sharing(lab, "unread", 3, partitions=3)
    one = sharing.first
    found: dict[str, Answer] = {"of the first": one.acquire()}
    found["not in the session"] = one.acknowledge((0, 0, ACCEPT), partition=1)
    found["in a fetch"] = one.fetch((0, 0, ACCEPT), partitions=(2,), max_wait_ms=0)
    found["in a fetch, again"] = one.fetch((0, 0, ACCEPT), partitions=(2,), max_wait_ms=0)
    found["beyond the last"] = one.acknowledge((0, 0, ACCEPT), partition=3)
    found["of a group that reads nothing"] = sharing.enter().acknowledge((0, 0, ACCEPT), partition=1, epoch=1)
    return found


@probe()
def partitions_of_a_session(lab: Lab) -> Answer:
    """Partitions that are added and forgotten, and which are in an answer."""
    sharing = Sharing(lab, "session", 1, partitions=3)
    for partition in (1, 2):
        sharing.produce(2, partition=partition)
    member = sharing.first
    for partition in (1, 2):  # each state is read by the first fetch of its partition
        member.fetch(epoch=0, partitions=(partition,), max_wait_ms=5_000)
        member.fetch(epoch=-1)

    def forget(*partitions: int) -> tuple[ForgottenTopic, ...]:
        return (ForgottenTopic(topic_id=sharing.topic_id, partitions=partitions),)

    member.epoch = 0
    found: dict[str, Answer] = {
        "one": member.fetch(partitions=(1,)),
        "another": member.fetch(partitions=(2,)),
        "both forgotten": member.fetch(partitions=(), forgotten_topics_data=forget(1, 2), max_wait_ms=0),
        "forgotten again": member.fetch(partitions=(), forgotten_topics_data=forget(1), max_wait_ms=0),
    }
    sharing.produce(1, partition=1)
    found["not in the session"] = member.fetch(partitions=(), max_wait_ms=0)
    found["acknowledged and forgotten"] = member.fetch(
        (0, 0, ACCEPT), partitions=(1,), forgotten_topics_data=forget(1), max_wait_ms=0
    )
    found["still not in the session"] = member.fetch(partitions=(), max_wait_ms=0)
    found["acknowledged, and so in it"] = member.fetch((1, 1, ACCEPT), partitions=(1,))
    return found


def write_transactions(lab: Lab, topic: str) -> None:
    """Offsets 0 a plain record, 1-2 aborted, 3 marker, 4-5 committed, 6 marker, 7 plain, 8-9 open, 10 plain."""
    producer = Transactional(lab, lab.name(f"writes-{topic}")).init()
    lab.produce(topic, batch_of(1))
    sequence = 0
    for commit in (False, True):
        producer.add(topic, 0)
        for number in (sequence, sequence + 1):
            assert producer.produce(11, topic, producer.batch(number))[0][0] == "NONE"
        sequence += 2
        producer.end(commit=commit)
    lab.produce(topic, batch_of(1))
    producer.add(topic, 0)
    for number in (sequence, sequence + 1):
        assert producer.produce(11, topic, producer.batch(number))[0][0] == "NONE"
    lab.produce(topic, batch_of(1))


@probe()
def transactions(lab: Lab) -> Answer:
    """Aborted and open transactions, by both isolation levels."""
    found = {}
    for level in ("read_uncommitted", "read_committed"):
        sharing = Sharing(lab, level, share_isolation_level=level)
        write_transactions(lab, sharing.topic)
        member = sharing.first
        ranges = [*member.acquire(), *member.acquire(wait_ms=500), *member.acquire(wait_ms=500)]
        found[level] = [offset for first, last, _ in ranges for offset in range(first, last + 1)]
    return found


@probe()
def throttled(lab: Lab) -> Answer:
    """Records that were delivered in vain come in smaller and smaller parts, so that the bad one is found."""
    sharing = Sharing(lab, "throttled", 16, 4)
    member = sharing.first
    rounds = []
    for _ in range(70):
        acquired = member.acquire(wait_ms=300, max_wait_ms=100)
        rounds.append(acquired)
        if not acquired:
            break
        member.error(*((first, last, RELEASE) for first, last, _ in acquired))
    return rounds


@probe()
def ends_of_sessions(lab: Lab) -> Answer:
    """What a member had is there again, and how often it counts as delivered."""
    sharing = Sharing(lab, "ends", 4)
    one, two = sharing.first, sharing.enter()
    found: dict[str, Answer] = {"first": one.acquire(), "second": two.acquire(wait_ms=0)}
    found["final"] = one.fetch((0, 0, ACCEPT), epoch=-1)
    found["after a final fetch"] = two.acquire()
    found["final acknowledgement"] = two.acknowledge((1, 3, RELEASE), epoch=-1)
    one.epoch = 0
    found["after a final acknowledgement"] = one.acquire()
    one.connection.close()
    two.epoch = 0
    found["after a lost connection"] = two.acquire()
    two.epoch = 0
    found["after a session begun anew"] = two.acquire(wait_ms=1_000)
    return found


@probe()
def deliveries(lab: Lab) -> Answer:
    """Releases until a record is given up, and what the coordinator is told."""
    sharing = Sharing(lab, "deliveries", 2)
    member = sharing.first
    found: dict[str, Answer] = {"offsets before": sharing.group.offsets()}
    found["acquired"] = member.acquire()
    found["offsets while acquired"] = sharing.group.offsets()
    member.error((0, 0, ACCEPT), (1, 1, RELEASE))
    found["offsets after one"] = sharing.group.offsets()
    rounds = []
    for _ in range(5):
        rounds.append(member.acquire(wait_ms=600, max_wait_ms=100))
        if rounds[-1]:
            member.error((1, 1, RELEASE))
    found["rounds"] = rounds
    found["offsets at the end"] = sharing.group.offsets()
    sharing.produce(2)
    found["later"] = member.acquire()
    found["accepted"] = member.error((2, 3, ACCEPT))
    found["offsets later"] = sharing.group.offsets()
    return found


@probe()
def limits(lab: Lab) -> Answer:
    """Records in flight and locks that time out."""
    sharing = Sharing(
        lab, "limits", *([50] * 5), share_partition_max_record_locks="100", share_record_lock_duration_ms="15000"
    )
    one, two = sharing.first, sharing.enter()
    found: dict[str, Answer] = {"first": one.acquire(), "lock": one.fetch(max_wait_ms=0)}
    found["no more"] = two.acquire(wait_ms=500)
    one.error((0, 19, ACCEPT))
    found["some more"] = two.acquire()
    return found
