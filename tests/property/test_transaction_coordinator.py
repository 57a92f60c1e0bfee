"""The transaction coordinator under any order of requests, markers, lost writes, restarts and time.

What must hold: a transaction is decided once, for all its partitions, and never the other way later; who was told that
it is committed sees it committed; partitions that were acknowledged are ended with it; no two producers share an
epoch; nothing is ended before its decision is committed; and in the end no transaction hangs.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ottla.coordinator.transaction.ending import Ending
from ottla.coordinator.transaction.transaction import PREPARED, TransactionState
from ottla.errors import ErrorCode
from tests.unit.coordinator.transaction.bench import TIMEOUT_MS, TransactionBench

NAMES = st.sampled_from(["tx", "other"])
CLIENTS = st.sampled_from([0, 1, 2])
PARTITION = st.sampled_from([("t", i) for i in range(3)])
VERSIONS = st.sampled_from([0, 2])
Producer = tuple[int, int]


class Client:
    """A program with a transactional id: what it holds, and what it asked and is not answered."""

    def __init__(self) -> None:
        self.producer: Producer | None = None
        self.added: set[tuple[str, int]] = set()
        """Acknowledged in the transaction that it believes to be open."""
        self.asked: tuple[str, int, object] | None = None


class TransactionCoordinatorModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.bench = TransactionBench()
        self.clients = {(name, i): Client() for name in ("tx", "other") for i in range(3)}
        self.given: set[Producer] = set()
        self.committed: dict[tuple[str, Producer], set[tuple[str, int]]] = {}
        """What clients of the new rules were told is committed, by transaction: its partitions."""
        self.seen: dict[tuple[str, int, int], Ending] = {}
        """Endings by the epoch of their markers."""
        self.marked: set[Ending] = set()

    # Clients

    @rule(name=NAMES, i=CLIENTS, goes_on=st.booleans())
    def init(self, name: str, i: int, *, goes_on: bool) -> None:
        client = self.clients[name, i]
        producer = client.producer if goes_on and client.producer else (-1, -1)
        client.producer, client.added = None, set()
        client.asked = ("init", self.bench.send_init(name, producer), None)
        self.hear()

    @rule(name=NAMES, i=CLIENTS, at=PARTITION, version=VERSIONS)
    def add(self, name: str, i: int, at: tuple[str, int], version: int) -> None:
        client = self.clients[name, i]
        if client.producer is not None and client.asked is None:
            token = self.bench.send_add(client.producer, at, name=name, client_version=version)
            client.asked = ("add", token, at)
            self.hear()

    @rule(name=NAMES, i=CLIENTS, commit=st.booleans(), version=VERSIONS)
    def end(self, name: str, i: int, version: int, *, commit: bool) -> None:
        client = self.clients[name, i]
        self.bench.advance(1)  # no two transactions are decided in the same millisecond
        if client.producer is not None and client.asked is None:
            token = self.bench.send_end(client.producer, commit=commit, name=name, client_version=version)
            client.asked = ("end", token, (commit, version))
            self.hear()

    def hear(self) -> None:
        """Take what was answered."""
        for (name, _), client in self.clients.items():
            if client.asked is None or client.asked[1] not in self.bench.replies:
                continue
            (kind, token, detail), client.asked = client.asked, None
            if self.bench.replies[token].error is not ErrorCode.NONE:
                client.producer = None  # nobody knows what became of it: start again
            elif kind == "init":
                self.on_initialised(client, *self.bench.initialised(token))
            elif kind == "add":
                self.on_added(client, self.bench.added(token), detail)
            else:
                assert isinstance(detail, tuple)
                self.on_ended(name, client, self.bench.ended(token), *detail)

    def on_initialised(self, client: Client, error: ErrorCode, producer_id: int, epoch: int) -> None:
        if error is ErrorCode.NONE:
            producer = (producer_id, epoch)
            # A repetition may be told the same epoch again, but only the one whose epoch went before.
            assert producer not in self.given or all(c.producer != producer for c in self.clients.values())
            self.given.add(producer)
            client.producer = producer

    def on_added(self, client: Client, error: ErrorCode, at: object) -> None:
        if error is ErrorCode.NONE:
            client.added.add(at)  # type: ignore[arg-type]
        elif error is not ErrorCode.CONCURRENT_TRANSACTIONS:
            client.producer = None

    def on_ended(
        self, name: str, client: Client, answer: tuple[ErrorCode, int, int], commit: bool, version: int
    ) -> None:
        error, producer_id, epoch = answer
        assert client.producer is not None
        if error is ErrorCode.NONE:
            if commit and client.added and version == 2:
                self.committed[name, client.producer] = set(client.added)
            client.added = set()
            if version == 2:
                client.producer = (producer_id, epoch)
                self.given.add(client.producer)
        elif error is not ErrorCode.CONCURRENT_TRANSACTIONS:
            client.producer = None

    # The world

    @rule()
    def hold(self) -> None:
        self.bench.holding = True

    @rule(part=st.floats(0, 1))
    def let_go(self, part: float) -> None:
        behind = len(self.bench.log) - self.bench.high_watermark
        self.bench.holding = part < 1
        self.bench.let_go(self.bench.high_watermark + round(behind * part))
        self.hear()

    @rule()
    def lose(self) -> None:
        self.bench.lose()
        self.hear()

    @rule(fails=st.booleans())
    def fail_appends(self, *, fails: bool) -> None:
        self.bench.append_error = ErrorCode.KAFKA_STORAGE_ERROR if fails else None

    @precondition(lambda self: self.bench.endings)
    @rule(data=st.data())
    def markers_are_written(self, data: st.DataObject) -> None:
        ending = data.draw(st.sampled_from(self.bench.endings))
        self.marked.add(ending)
        self.bench.complete(ending)
        self.hear()

    @rule(milliseconds=st.sampled_from([1, 100, 1_000, TIMEOUT_MS]))
    def time_passes(self, milliseconds: int) -> None:
        self.bench.advance(milliseconds)
        self.hear()

    @rule()
    def restart(self) -> None:
        self.bench = self.bench.again()
        for client in self.clients.values():
            if client.asked is not None:
                client.asked, client.producer = None, None

    # What must hold

    @invariant()
    def endings_are_decided_once_and_from_committed_records(self) -> None:
        for ending in self.bench.endings:
            at = (ending.transactional_id, ending.producer_id, ending.producer_epoch)
            if ending.transaction_version == 2:
                # Old clients end one transaction after another with the same epoch.
                assert self.seen.setdefault(at, ending) == ending, "decided twice"
            found = self.bench.machine.describe(ending.transactional_id)
            assert found is not None
            assert found.state in PREPARED or ending in self.marked

    @invariant()
    def what_was_acknowledged_is_carried_out(self) -> None:
        for (name, (producer_id, epoch)), partitions in self.committed.items():
            ending = self.seen.get((name, producer_id, epoch + 1))
            if ending is not None:
                assert ending.commit
                assert partitions <= ending.partitions

    def teardown(self) -> None:
        """Let everything come to rest: nothing may hang."""
        if not hasattr(self, "bench"):
            return
        bench = self.bench
        bench.append_error, bench.holding = None, False
        bench.let_go()
        for _ in range(10):
            bench.advance(TIMEOUT_MS)
            self.endings_are_decided_once_and_from_committed_records()
            for ending in list(bench.endings):
                bench.complete(ending)
        self.what_was_acknowledged_is_carried_out()
        for name, transaction in bench.machine.transactions():
            assert transaction.state not in {*PREPARED, TransactionState.ONGOING}, name
            reloaded = bench.again().machine.describe(name)
            assert reloaded == transaction._replace(last_producer_epoch=-1)


TransactionCoordinatorModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTransactionCoordinator = TransactionCoordinatorModel.TestCase
