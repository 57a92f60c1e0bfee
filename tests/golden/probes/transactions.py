"""What the transaction coordinator says: every step right, repeated, late, by somebody else, and out of order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_transactions import ListTransactionsRequest
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions


class Client:
    """A transactional id. Producer ids show in answers by the order of their appearance: `id 0`, `id 1`."""

    def __init__(self, lab: Lab, stem: str) -> None:
        for api in (ApiKey.ADD_PARTITIONS_TO_TXN, ApiKey.END_TXN, ApiKey.DESCRIBE_TRANSACTIONS):
            lab.need(api)
        self.lab = lab
        self.transactional_id = lab.name(stem)
        self._ids: list[int] = []
        find = FindCoordinatorRequest(key_type=1, coordinator_keys=(self.transactional_id,))
        for _ in range(300):
            is_found = lab.call(ApiKey.FIND_COORDINATOR, find).coordinators[0].error_code is ErrorCode.NONE
            if is_found and lab.transaction(self.transactional_id).error_code is ErrorCode.TRANSACTIONAL_ID_NOT_FOUND:
                return
            time.sleep(0.05)
        raise AssertionError("no transaction coordinator after 15 s")

    def id(self, index: int) -> int:
        return self._ids[index]

    def label(self, producer_id: int) -> str | None:
        if producer_id < 0:
            return None
        if producer_id not in self._ids:
            self._ids.append(producer_id)
        return f"id {self._ids.index(producer_id)}"

    def init(self, *, version: int = 5, producer: tuple[int, int] = (-1, -1), **fields: Any) -> Answer:
        values = {"transactional_id": self.transactional_id, "transaction_timeout_ms": 60_000, **fields}
        request = InitProducerIdRequest(producer_id=producer[0], producer_epoch=producer[1], **values)
        answer = self.lab.call(ApiKey.INIT_PRODUCER_ID, request, version=version)
        return [answer.error_code.name, self.label(answer.producer_id), answer.producer_epoch]

    def add(
        self,
        epoch: int,
        topics: Sequence[tuple[str, tuple[int, ...]]],
        *,
        version: int = 3,
        producer_id: int | None = None,
        transactional_id: str | None = None,
        verify_only: bool = False,
    ) -> Answer:
        wanted = tuple(AddPartitionsToTxnTopic(name=name, partitions=partitions) for name, partitions in topics)
        name = self.transactional_id if transactional_id is None else transactional_id
        number = self.id(0) if producer_id is None else producer_id
        if version < 4:
            request = AddPartitionsToTxnRequest(
                v3_and_below_transactional_id=name,
                v3_and_below_producer_id=number,
                v3_and_below_producer_epoch=epoch,
                v3_and_below_topics=wanted,
            )
        else:
            one = AddPartitionsToTxnTransaction(
                transactional_id=name, producer_id=number, producer_epoch=epoch, verify_only=verify_only, topics=wanted
            )
            request = AddPartitionsToTxnRequest(transactions=(one,))
        answer = self.lab.call(ApiKey.ADD_PARTITIONS_TO_TXN, request, version=version)
        results = [*answer.results_by_topic_v3_and_below]
        results += [t for transaction in answer.results_by_transaction for t in transaction.topic_results]
        return sorted(
            [self.lab.plain(t.name), p.partition_index, p.partition_error_code.name]
            for t in results
            for p in t.results_by_partition
        )

    def end(
        self, epoch: int, *, commit: bool, version: int = 3, producer_id: int | None = None, name: str | None = None
    ) -> Answer:
        """End the transaction and wait until its markers are written."""
        request = EndTxnRequest(
            transactional_id=self.transactional_id if name is None else name,
            producer_id=self.id(0) if producer_id is None else producer_id,
            producer_epoch=epoch,
            committed=commit,
        )
        answer = self.lab.call(ApiKey.END_TXN, request, version=version)
        self.wait_for_markers()
        return [answer.error_code.name, self.label(answer.producer_id), answer.producer_epoch]

    def wait_for_markers(self) -> None:
        self.lab.wait_for_markers(self.transactional_id)

    def describe(self) -> Answer:
        state = self.lab.transaction(self.transactional_id)
        return {
            "error": state.error_code.name,
            "state": state.transaction_state,
            "timeout_ms": state.transaction_timeout_ms,
            "has_begun": state.transaction_start_time_ms >= 0,
            "producer": self.label(state.producer_id),
            "epoch": state.producer_epoch,
            "topics": sorted([self.lab.plain(t.topic), sorted(t.partitions)] for t in state.topics),
        }


@probe(each=versions(ApiKey.INIT_PRODUCER_ID))
def init_producer_id(lab: Lab, version: int) -> Answer:
    client = Client(lab, f"init-{version}")
    answers = {
        "no name": client.init(version=version, transactional_id=""),
        "timeout 0": client.init(version=version, transaction_timeout_ms=0),
        "timeout below 0": client.init(version=version, transaction_timeout_ms=-1),
        "timeout too long": client.init(version=version, transaction_timeout_ms=900_001),
        "longest timeout": client.init(version=version, transaction_timeout_ms=900_000),
        "again": client.init(version=version),
    }
    if version < 3:
        return answers
    first = client.id(0)
    return answers | {
        "id without epoch": client.init(version=version, producer=(first, -1)),
        "epoch without id": client.init(version=version, producer=(-1, 1)),
        "goes on": client.init(version=version, producer=(first, 1)),
        "repeated": client.init(version=version, producer=(first, 1)),
        "older epoch": client.init(version=version, producer=(first, 0)),
        "epoch of the future": client.init(version=version, producer=(first, 9)),
        "another's id": client.init(version=version, producer=(first + 1_000_000, 2)),
        "a new instance": client.init(version=version),
        "fenced by it": client.init(version=version, producer=(first, 2)),
        "described": client.describe(),
    }


@probe(each=versions(ApiKey.ADD_PARTITIONS_TO_TXN))
def add_partitions(lab: Lab, version: int) -> Answer:
    topic, absent = lab.topic(f"added-{version}", partitions=3), lab.name("absent")
    client = Client(lab, f"add-{version}")
    client.init()
    client.init()
    answers = {
        "no name": client.add(1, [(topic, (0,))], version=version, transactional_id=""),
        "unknown name": client.add(1, [(topic, (0,))], version=version, transactional_id=absent),
        "another's id": client.add(1, [(topic, (0,))], version=version, producer_id=client.id(0) + 1_000_000),
        "older epoch": client.add(0, [(topic, (0,))], version=version),
        "epoch of the future": client.add(2, [(topic, (0,))], version=version),
        "unknown topic": client.add(1, [(topic, (0, 1)), (absent, (0,))], version=version),
        "unknown partition": client.add(1, [(topic, (0, 7))], version=version),
        "before": client.describe(),
        "good": client.add(1, [(topic, (0, 1))], version=version),
        "known": client.add(1, [(topic, (1,))], version=version),
        "one more": client.add(1, [(topic, (2,))], version=version),
        "nothing": client.add(1, [], version=version),
        "after": client.describe(),
    }
    if version >= 4:
        answers |= {
            "verified": client.add(1, [(topic, (0, 2))], version=version, verify_only=True),
            "verified, older epoch": client.add(0, [(topic, (0,))], version=version, verify_only=True),
            "verified, unknown name": client.add(
                1, [(topic, (0,))], version=version, verify_only=True, transactional_id=absent
            ),
            "verified, another's id": client.add(
                1, [(topic, (0,))], version=version, verify_only=True, producer_id=client.id(0) + 1_000_000
            ),
        }
        client.end(1, commit=True)
        answers["verified, ended"] = client.add(1, [(topic, (0,))], version=version, verify_only=True)
    return answers


@probe(each=versions(ApiKey.ADD_OFFSETS_TO_TXN))
def add_offsets(lab: Lab, version: int) -> Answer:
    client = Client(lab, f"offsets-{version}")
    client.init()
    client.init()

    def add(**fields: Any) -> Answer:
        values = {
            "transactional_id": client.transactional_id,
            "producer_id": client.id(0),
            "producer_epoch": 1,
            "group_id": "group",
            **fields,
        }
        return lab.call(ApiKey.ADD_OFFSETS_TO_TXN, AddOffsetsToTxnRequest(**values), version=version).error_code.name

    return {
        "no name": add(transactional_id=""),
        "unknown name": add(transactional_id=lab.name("absent")),
        "another's id": add(producer_id=client.id(0) + 1_000_000),
        "older epoch": add(producer_epoch=0),
        "epoch of the future": add(producer_epoch=2),
        "no group": add(group_id=""),
        "good": add(),
        "again": add(),
        "described": client.describe(),
    }


@probe(each=[0, 1, 2, 3, 4])
def end_by_old_rules(lab: Lab, version: int) -> Answer:
    topic = lab.topic(f"ended-{version}")
    client = Client(lab, f"end-{version}")
    client.init()
    client.init()

    def end(epoch: int, **fields: Any) -> Answer:
        return client.end(epoch, version=version, **fields)

    answers = {
        "no name": end(1, commit=True, name=""),
        "unknown name": end(1, commit=True, name=lab.name("absent")),
        "empty": [end(1, commit=True), end(1, commit=False)],
        "added": client.add(1, [(topic, (0,))]),
        "another's id": end(1, commit=True, producer_id=client.id(0) + 1_000_000),
        "older epoch": end(0, commit=True),
        "epoch of the future": end(2, commit=True),
        "commit": end(1, commit=True),
        "again": end(1, commit=True),
        "other way": end(1, commit=False),
        "described": client.describe(),
        "next added": client.add(1, [(topic, (0,))]),
        "abort": end(1, commit=False),
        "abort again": end(1, commit=False),
        "commit after abort": end(1, commit=True),
        "described again": client.describe(),
    }
    client.add(1, [(topic, (0,))])
    return answers | {
        "open": client.describe(),
        "a new instance": client.init(),
        "markers": client.wait_for_markers(),
        "aborted": client.describe(),
        "fenced": [end(1, commit=True), end(1, commit=False)],
        "a new instance again": client.init(),
        "described at the end": client.describe(),
    }


@probe(each=[5])
def end_by_new_rules(lab: Lab, version: int) -> Answer:
    topic = lab.topic(f"ended-{version}")
    client = Client(lab, f"end-{version}")
    client.init()
    client.init()

    def end(epoch: int, **fields: Any) -> Answer:
        return client.end(epoch, version=version, **fields)

    def add(epoch: int) -> Answer:
        return client.add(epoch, [(topic, (0,))], version=5)

    return {
        "no name": end(1, commit=True, name=""),
        "unknown name": end(1, commit=True, name=lab.name("absent")),
        "commit of nothing": end(1, commit=True),
        "abort of nothing": end(1, commit=False),
        "repeated": end(1, commit=False),
        "commit instead": end(1, commit=True),
        "abort of nothing again": end(2, commit=False),
        "described": client.describe(),
        "older epoch is added": add(2),
        "added": add(3),
        "another's id": end(3, commit=True, producer_id=client.id(0) + 1_000_000),
        "older epoch": end(2, commit=True),
        "epoch of the future": end(4, commit=True),
        "commit": end(3, commit=True),
        "commit repeated": end(3, commit=True),
        "abort instead": end(3, commit=False),
        "commit again": end(4, commit=True),
        "abort after commit": end(4, commit=False),
        "described again": client.describe(),
        "next added": add(5),
        "abort": end(5, commit=False),
        "abort repeated": end(5, commit=False),
        "commit after abort": end(6, commit=True),
        "old rules": [client.end(6, commit=False, version=4), client.end(6, commit=True, version=4)],
        "last added": add(6),
        "a new instance": client.init(),
        "markers": client.wait_for_markers(),
        "aborted": client.describe(),
        "fenced": [end(6, commit=True), end(6, commit=False)],
        "goes on": client.init(producer=(client.id(0), 6)),
        "a new instance again": client.init(),
    }


@probe()
def listed(lab: Lab) -> Answer:
    topic = lab.topic("listed")
    clients = {stem: Client(lab, stem) for stem in ("list-empty", "list-open", "list-done")}
    for client in clients.values():
        client.init()
    clients["list-open"].add(0, [(topic, (0,))])
    clients["list-done"].add(0, [(topic, (0,))])
    clients["list-done"].end(0, commit=True)
    ids = {stem: client.id(0) for stem, client in clients.items()}
    mine = "list-.*-" + lab.run

    def ask(version: int, **fields: Any) -> Answer:
        answer = lab.call(ApiKey.LIST_TRANSACTIONS, ListTransactionsRequest(**fields), version=version)
        return {
            "error": answer.error_code.name,
            "unknown": sorted(answer.unknown_state_filters),
            "found": sorted(
                [lab.plain(s.transactional_id), s.transaction_state]
                for s in answer.transaction_states
                if s.producer_id in ids.values()
            ),
        }

    every = tuple(ids.values())
    return {
        "all": [ask(version, producer_id_filters=every) for version in (0, 1, 2)],
        "open": ask(2, state_filters=("Ongoing",)),
        "states": ask(2, state_filters=("Empty", "CompleteCommit", "Dead", "PrepareEpochFence", "nonsense", "")),
        "nonsense alone": ask(2, state_filters=("nonsense",)),
        "one id": ask(2, producer_id_filters=(ids["list-open"],)),
        "no id": ask(2, producer_id_filters=(ids["list-open"] + 1_000_000,)),
        "old": ask(2, producer_id_filters=every, duration_filter=3_600_000),
        "young": ask(2, producer_id_filters=every, duration_filter=0),
        "pattern": ask(2, transactional_id_pattern=mine),
        "part of a pattern": ask(2, transactional_id_pattern="list-open"),
        "no pattern": ask(2, producer_id_filters=every, transactional_id_pattern=""),
        "broken pattern": ask(2, transactional_id_pattern="(list"),
    }


@probe()
def described(lab: Lab) -> Answer:
    client = Client(lab, "described-id")
    request = DescribeTransactionsRequest(transactional_ids=("", lab.name("absent"), client.transactional_id))
    return lab.ask(ApiKey.DESCRIBE_TRANSACTIONS, request)


@probe(each=versions(ApiKey.FIND_COORDINATOR))
def coordinator(lab: Lab, version: int) -> Answer:
    Client(lab, f"found-{version}")
    name = lab.name("found")
    keys = {"coordinator_keys": (name, "")} if version >= 4 else {"key": name}
    if version == 0:
        keys = {"key": name}
    else:
        keys["key_type"] = 1  # type: ignore[assignment]
    return lab.ask(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest(**keys), version=version)  # type: ignore[arg-type]
