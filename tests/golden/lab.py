"""What a probe works with: requests to one broker, topics of its own, and the table of all probes."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.codec import MalformedMessage
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
from ottla.protocol.versions import API_VERSIONS, ApiKey
from tests.golden.wire import CLOSED, ClosedByBroker, Connection, newest, plain

Answer = Any


GROUP, TRANSACTION = 0, 1
"""Kinds of keys that have a coordinator."""

GUESSED_PRODUCER_ID_MAX = 7

ENDING = {"PrepareCommit", "PrepareAbort", "PrepareEpochFence"}
"""The states of a transaction whose markers are on their way."""


class NotAdvertised(Exception):
    """The broker does not offer an API that the probe needs."""


class Lab:
    """Requests to one broker. A run's name keeps its topics and groups apart from those of other runs."""

    def __init__(self, address: tuple[str, int], *, settle_seconds: float = 0.0) -> None:
        self.address = address
        self.run = ""
        self.settle_seconds = settle_seconds
        self._connections: list[Connection] = []
        self._kept: dict[str | None, Connection] = {}
        self._served: set[str] = set()
        with self.connect() as connection:
            versions = connection.call(
                ApiKey.API_VERSIONS, 3, ApiVersionsRequest(client_software_name="probe", client_software_version="1")
            )
        self.advertised = {entry.api_key for entry in versions.api_keys}
        self.start_run()

    def start_run(self) -> None:
        """From now on all that is named is new: no probe finds what another has left."""
        self.run = uuid.uuid4().hex[:10]
        self._served.clear()

    def connect(self, *, client_id: str | None = "probe") -> Connection:
        connection = Connection(self.address, client_id=client_id)
        self._connections.append(connection)
        return connection

    def close(self) -> None:
        """Close what probes have left open."""
        self._kept.clear()
        while self._connections:
            self._connections.pop().close()

    def plain(self, value: Any) -> Answer:
        return plain(value, run=self.run)

    def need(self, api: ApiKey) -> None:
        if api not in self.advertised:
            raise NotAdvertised(api.name)

    def call(self, api: ApiKey, message: Any, *, version: int | None = None, client_id: str | None = "probe") -> Any:
        """Send on a connection that only such calls use and return the answer as a dataclass. Raises ClosedByBroker."""
        self.need(api)
        if api is ApiKey.DELETE_TOPICS:
            self._served.clear()
        connection = self._kept.pop(client_id, None) or self.connect(client_id=client_id)
        try:
            answer = connection.call(api, newest(api) if version is None else version, message)
        except BaseException:
            connection.close()
            raise
        self._kept[client_id] = connection
        return answer

    def ask(self, api: ApiKey, message: Any, *, version: int | None = None, client_id: str | None = "probe") -> Answer:
        """Like `call`, with the answer as plain values, or CLOSED."""
        try:
            return self.plain(self.call(api, message, version=version, client_id=client_id))
        except ClosedByBroker:
            return CLOSED
        except MalformedMessage as error:  # kio has no value for "no time" in some answers: their bytes are compared
            return str(error)

    def settle(self) -> None:
        """Give a change time to be seen: Kafka answers before its broker has applied it."""
        time.sleep(self.settle_seconds)

    def name(self, stem: str) -> str:
        """A name that nobody else uses. It shows in answers as `stem-RUN`."""
        return f"{stem}-{self.run}"

    def topic(self, stem: str, *, partitions: int = 1, **configs: str) -> str:
        """Create a topic and wait until it is served. Config keys are written with underscores."""
        name = self.name(stem)
        if name in self._served:
            return name
        entries = {"retention.ms": "-1"} | {key.replace("_", "."): value for key, value in configs.items()}
        wanted = CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=1,
            configs=tuple(CreatableTopicConfig(name=key, value=value) for key, value in entries.items()),
        )
        answer = self.call(ApiKey.CREATE_TOPICS, CreateTopicsRequest(topics=(wanted,)))
        assert answer.topics[0].error_code in {ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS}, answer
        self.wait_for_topic(name)
        self._served.add(name)
        return name

    def wait_for_topic(self, name: str) -> None:
        """Wait until the partition leaders answer: Kafka tells of a topic a little before they do."""
        for _ in range(200):
            found = self.metadata(name).partitions
            if found:
                wanted = tuple(ListOffsetsPartition(partition_index=p.partition_index, timestamp=-1) for p in found)
                request = ListOffsetsRequest(replica_id=-1, topics=(ListOffsetsTopic(name=name, partitions=wanted),))
                answer = self.call(ApiKey.LIST_OFFSETS, request).topics[0].partitions
                if all(partition.error_code is ErrorCode.NONE for partition in answer):
                    return
            time.sleep(0.02)
        raise AssertionError(f"{name} is not served after 4 s")

    def metadata(self, name: str) -> Any:
        request = MetadataRequest(topics=(MetadataRequestTopic(name=name),), allow_auto_topic_creation=False)
        return self.call(ApiKey.METADATA, request).topics[0]

    def topic_id(self, name: str) -> uuid.UUID:
        found: uuid.UUID = self.metadata(name).topic_id
        return found

    def produce(self, name: str, *batches: bytes, partition: int = 0) -> list[PartitionProduceResponse]:
        """Append batches one request each; every one has to be taken."""
        found = []
        for records in batches:
            data = PartitionProduceData(index=partition, records=records)
            request = ProduceRequest(
                acks=-1, timeout_ms=5000, topic_data=(TopicProduceData(name=name, partition_data=(data,)),)
            )
            answer = self.call(ApiKey.PRODUCE, request, version=12).responses[0].partition_responses[0]
            assert answer.error_code is ErrorCode.NONE, answer
            found.append(answer)
        return found

    def end_offset(self, name: str, *, partition: int = 0) -> int:
        wanted = ListOffsetsTopic(
            name=name, partitions=(ListOffsetsPartition(partition_index=partition, timestamp=-1),)
        )
        answer = self.call(ApiKey.LIST_OFFSETS, ListOffsetsRequest(replica_id=-1, topics=(wanted,)))
        offset: int = answer.topics[0].partitions[0].offset
        return offset

    def wait_for_coordinators(self) -> None:
        """Have the topics of groups and transactions created, and producer ids ready beyond those that probes guess."""
        for _ in range(300):
            errors = {self._coordinator_error(key_type) for key_type in (GROUP, TRANSACTION)}
            producer = self.call(ApiKey.INIT_PRODUCER_ID, InitProducerIdRequest(transaction_timeout_ms=1000))
            if errors | {producer.error_code} != {ErrorCode.NONE}:
                time.sleep(0.05)
            elif producer.producer_id > GUESSED_PRODUCER_ID_MAX:
                return
        raise AssertionError("no coordinators after 15 s")

    def _coordinator_error(self, key_type: int) -> ErrorCode:
        request = FindCoordinatorRequest(key_type=key_type, coordinator_keys=(self.name("first"),))
        error: ErrorCode = self.call(ApiKey.FIND_COORDINATOR, request).coordinators[0].error_code
        return error

    def transaction(self, transactional_id: str) -> Any:
        """What DescribeTransactions says of it."""
        request = DescribeTransactionsRequest(transactional_ids=(transactional_id,))
        (state,) = self.call(ApiKey.DESCRIBE_TRANSACTIONS, request).transaction_states
        return state

    def wait_for_markers(self, transactional_id: str) -> None:
        """Wait until those of a transaction that was ended are written."""
        for _ in range(300):
            if self.transaction(transactional_id).transaction_state not in ENDING:
                return
            time.sleep(0.02)
        raise AssertionError("the markers are not written after 6 s")


@dataclass(frozen=True)
class Probe:
    """A question to a broker. `each` are the variants (API versions, mostly) that are asked one after the other.

    With `is_by_version` the answer is a dictionary of dictionaries by version.
    """

    area: str
    name: str
    ask: Callable[..., Answer]
    each: tuple[Any, ...] | None
    is_by_version: bool = False

    def run(self, lab: Lab) -> Answer:
        lab.start_run()
        try:
            if self.each is None:
                return lab.plain(self.ask(lab))
            return {str(variant): lab.plain(self.ask(lab, variant)) for variant in self.each}
        finally:
            lab.close()

    def stored(self, answer: Answer) -> Answer:
        """Join what is the same, to be read and kept."""
        if self.is_by_version:
            return fold({what: fold(by_version) for what, by_version in answer.items()})
        return answer if self.each is None else fold(answer)

    def loaded(self, stored: Answer) -> Answer:
        """The answer that was `stored`."""
        if self.is_by_version:
            return {what: unfold(by_version) for what, by_version in unfold(stored).items()}
        return stored if self.each is None else unfold(stored)


_probes: dict[str, Probe] = {}


def probe(*, each: Iterable[Any] | None = None) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Register a function as a probe named after its module and itself."""

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        area = function.__module__.rpartition(".")[2]
        register_probe(Probe(area, function.__name__, function, None if each is None else tuple(each)))
        return function

    return register


def register_probe(found: Probe) -> None:
    key = f"{found.area}/{found.name}"
    assert key not in _probes, key
    _probes[key] = found


def all_probes() -> dict[str, Probe]:
    """Import every module of tests.golden.probes and return what they registered, by area and name."""
    package = importlib.import_module("tests.golden.probes")
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    return dict(_probes)


def versions(api: ApiKey, *, least: int = 0, most: int = 99) -> Iterator[int]:
    low, high = API_VERSIONS[api]
    return iter(range(max(low, least), min(high, most) + 1))


def fold(answers: dict[str, Answer]) -> Answer:
    """Join neighbouring variants with the same answer, to be read and kept: [[["3", "4"], ...], [["5"], ...]]."""
    return [[list(group), answer] for answer, group in itertools.groupby(answers, key=answers.__getitem__)]


def unfold(folded: Answer) -> dict[str, Answer]:
    return {variant: answer for group, answer in folded for variant in group}


def differences(expected: Answer, found: Answer, path: str = "") -> list[str]:
    """Name every place where two answers differ, from the outside in."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = dict.fromkeys([*expected, *found])
        return [line for key in keys for line in differences(expected.get(key), found.get(key), f"{path}/{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for index, (old, new) in pairs for line in differences(old, new, f"{path}/{index}")]
    if found == "<text>" and expected is None:  # an explanation where Kafka has none
        return []
    return [] if expected == found else [f"{path}: Kafka answers {expected!r}, not {found!r}"]
