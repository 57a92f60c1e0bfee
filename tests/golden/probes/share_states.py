"""The share coordinator: states that are begun, read, written and deleted, and who may not."""

from __future__ import annotations

import uuid
from typing import Any

from ottla.protocol.messages import (
    delete_share_group_state,
    initialize_share_group_state,
    read_share_group_state,
    read_share_group_state_summary,
    write_share_group_state,
)
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe

NOWHERE = uuid.UUID(int=78)


class States:
    """The states of one group in a topic with three partitions."""

    def __init__(self, lab: Lab, stem: str) -> None:
        self.lab, self.group = lab, lab.name(f"states-{stem}")
        self.topic_id: uuid.UUID | None = lab.topic_id(lab.topic("states", partitions=3))
        find = FindCoordinatorRequest(key_type=2, coordinator_keys=(f"{self.group}:AAAAAAAAAAAAAAAAAAAAAA:0",))
        for _ in range(100):
            (found,) = lab.call(ApiKey.FIND_COORDINATOR, find).coordinators
            if found.error_code == 0:
                break
            lab.settle()

    def ask(self, api: ApiKey, message: Any, **options: Any) -> Answer:
        for _ in range(100):
            answer = self.lab.ask(api, message, **options)
            codes = [p.get("error_code") for t in answer.get("results", ()) for p in t["partitions"]]
            if not {"COORDINATOR_LOAD_IN_PROGRESS", "NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE"} & set(codes):
                return in_order(answer)
            self.lab.settle()
        return answer

    def initialize(self, *partitions: int, start: int = 5, epoch: int = 0, **fields: Any) -> Answer:
        rows = tuple(
            initialize_share_group_state.PartitionData(partition=i, state_epoch=epoch, start_offset=start)
            for i in partitions
        )
        topics = (initialize_share_group_state.InitializeStateData(topic_id=self.topic_id, partitions=rows),)
        given = {"group_id": self.group, "topics": topics} | fields
        request = initialize_share_group_state.InitializeShareGroupStateRequest(**given)
        return self.ask(ApiKey.INITIALIZE_SHARE_GROUP_STATE, request)

    def read(self, *partitions: int, leader: int = -1, **fields: Any) -> Answer:
        rows = tuple(read_share_group_state.PartitionData(partition=i, leader_epoch=leader) for i in partitions)
        topics = (read_share_group_state.ReadStateData(topic_id=self.topic_id, partitions=rows),)
        given = {"group_id": self.group, "topics": topics} | fields
        return self.ask(ApiKey.READ_SHARE_GROUP_STATE, read_share_group_state.ReadShareGroupStateRequest(**given))

    def write(
        self,
        partition: int,
        *batches: tuple[int, int, int, int],
        leader: int = -1,
        epoch: int = 0,
        start: int = -1,
        complete: int = 0,
        **fields: Any,
    ) -> Answer:
        row = write_share_group_state.PartitionData(
            partition=partition,
            state_epoch=epoch,
            leader_epoch=leader,
            start_offset=start,
            delivery_complete_count=complete,
            state_batches=tuple(
                write_share_group_state.StateBatch(
                    first_offset=first, last_offset=last, delivery_state=state, delivery_count=count
                )
                for first, last, state, count in batches
            ),
        )
        topics = (write_share_group_state.WriteStateData(topic_id=self.topic_id, partitions=(row,)),)
        given = {"group_id": self.group, "topics": topics} | fields
        return self.ask(ApiKey.WRITE_SHARE_GROUP_STATE, write_share_group_state.WriteShareGroupStateRequest(**given))

    def delete(self, *partitions: int, **fields: Any) -> Answer:
        rows = tuple(delete_share_group_state.PartitionData(partition=i) for i in partitions)
        topics = (delete_share_group_state.DeleteStateData(topic_id=self.topic_id, partitions=rows),)
        given = {"group_id": self.group, "topics": topics} | fields
        request = delete_share_group_state.DeleteShareGroupStateRequest(**given)
        return self.ask(ApiKey.DELETE_SHARE_GROUP_STATE, request)

    def summary(self, *partitions: int, version: int = 1, **fields: Any) -> Answer:
        rows = tuple(read_share_group_state_summary.PartitionData(partition=i, leader_epoch=-1) for i in partitions)
        topics = (read_share_group_state_summary.ReadStateSummaryData(topic_id=self.topic_id, partitions=rows),)
        given = {"group_id": self.group, "topics": topics} | fields
        request = read_share_group_state_summary.ReadShareGroupStateSummaryRequest(**given)
        return self.ask(ApiKey.READ_SHARE_GROUP_STATE_SUMMARY, request, version=version)


def in_order(answer: Answer) -> Answer:
    """Kafka's partitions come in the order of a hash."""
    for topic in answer.get("results", ()):
        topic["partitions"].sort(key=lambda partition: partition.get("partition", 0))
    return answer


@probe()
def requests_without_content(lab: Lab) -> Answer:
    states = States(lab, "contentless")
    empty = {
        "initialize": states.initialize(),
        "read": states.read(),
        "write without topics": states.write(0, topics=()),
        "delete": states.delete(),
        "summary": states.summary(),
    }
    nobody = {
        "initialize": states.initialize(0, group_id=""),
        "read": states.read(0, group_id=""),
        "write": states.write(0, group_id=""),
        "delete": states.delete(0, group_id=""),
        "summary": states.summary(0, group_id=""),
    }
    return {"empty": empty, "nobody": nobody}


@probe()
def partitions_that_do_not_exist(lab: Lab) -> Answer:
    states = States(lab, "missing")
    found = {
        "initialize": states.initialize(0, 3, -1),
        "read": states.read(0, 3, -1),
        "write": [states.write(i) for i in (3, -1)],
        "delete": states.delete(0, 3, -1),
        "summary": states.summary(0, 3, -1),
    }
    answers = {"partitions": found}
    for name, topic_id in (("topic", NOWHERE), ("zero", None)):
        states.topic_id = topic_id
        answers[name] = {
            "initialize": states.initialize(0),
            "read": states.read(0),
            "write": states.write(0),
            "delete": states.delete(0),
            "summary": states.summary(0),
        }
    return answers


@probe()
def life_of_a_state(lab: Lab) -> Answer:
    states = States(lab, "life")
    return {
        "read before": states.read(0),
        "write before": states.write(0),
        "summary before": states.summary(0),
        "delete before": states.delete(0),
        "begin": states.initialize(0, 1),
        "begin without offset": states.initialize(2, start=-1),
        "read": states.read(0, 1, 2),
        "summary": states.summary(0, 1, 2),
        "write": states.write(0, (5, 9, 2, 1), (10, 19, 0, 1), complete=5),
        "read batches": states.read(0),
        "overlap": states.write(0, (8, 12, 0, 2), (19, 25, 4, 1), start=7, complete=6),
        "read overlap": states.read(0),
        "lower count": states.write(0, (7, 30, 2, 0)),
        "read lower count": states.read(0),
        "summary after": states.summary(0),
        "summary after, version 0": states.summary(0, version=0),
        "begin again": states.initialize(0, start=40, epoch=1),
        "read begun again": states.read(0),
        "delete": states.delete(0),
        "read deleted": states.read(0),
        "summary deleted": states.summary(0),
    }


@probe()
def epochs(lab: Lab) -> Answer:
    states = States(lab, "epochs")
    return {
        "begin": states.initialize(0, epoch=3),
        "leader 2": states.read(0, leader=2),
        "summary": states.summary(0),
        "leader 2 again": states.read(0, leader=2),
        "leader 1": states.read(0, leader=1),
        "leader 1 writes": states.write(0, leader=1, epoch=3),
        "leader 2 writes": states.write(0, (5, 5, 2, 1), leader=2, epoch=3),
        "leader 4 writes": states.write(0, (6, 6, 2, 1), leader=4, epoch=3),
        "leader after that": states.summary(0),
        "epoch 2 writes": states.write(0, (7, 7, 2, 1), leader=2, epoch=2),
        "epoch 4 writes": states.write(0, (8, 8, 2, 1), leader=2, epoch=4),
        "no epochs": states.write(0, (9, 9, 2, 1), epoch=-1),
        "epoch 2 begins": states.initialize(0, epoch=2),
        "no epoch begins": states.initialize(1, epoch=-1),
        "epoch 5 begins": states.initialize(0, epoch=5, start=50),
        "leader 1 after that": states.read(0, leader=1),
        "read": states.read(0),
        "summary at last": states.summary(0),
    }


@probe()
def keys_of_share_partitions(lab: Lab) -> Answer:
    keys = ("g", "g:t:0", "g:AAAAAAAAAAAAAAAAAAAAAA:x", "a:b:AAAAAAAAAAAAAAAAAAAAAA:0", ":AAAAAAAAAAAAAAAAAAAAAA:0", "")
    request = FindCoordinatorRequest(key_type=2, coordinator_keys=keys)
    return {version: lab.ask(ApiKey.FIND_COORDINATOR, request, version=version) for version in (4, 6)}
