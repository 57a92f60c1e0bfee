"""An Apache Kafka beside Ottla: random sequences of requests are answered alike, one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from types import ModuleType
from uuid import uuid4

import pytest

from bench.servers import ApacheKafka
from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import TOOLS
from tests.compat.sequences import compare, consumer_groups, transactions
from tests.golden.lab import Lab

CLIENT = ("Apache Kafka beside it", "4.3.1")
STEPS = 80
SEEDS = 8
"""A run; each is another sequence."""
SETTLE_SECONDS = 0.1


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Lab]]:
    """At Kafka and at Ottla."""
    directory = tmp_path_factory.mktemp("sequences")
    with (
        ApacheKafka(directory / "kafka", TOOLS / "java" / "lib") as kafka,
        BrokerProcess(directory / "ottla") as ottla,
        closing(Lab(("127.0.0.1", kafka.port), settle_seconds=SETTLE_SECONDS)) as expected,
        closing(Lab(("127.0.0.1", ottla.port))) as found,
    ):
        for lab in (expected, found):
            lab.wait_for_coordinators()
        yield expected, found


@pytest.mark.parametrize("sequences", [transactions, consumer_groups], ids=["transactions", "consumer groups"])
def test_random_sequences_are_answered_alike(labs: tuple[Lab, Lab], sequences: ModuleType) -> None:
    """Random sequences of requests for transactions and consumer groups are answered as Kafka answers them."""
    compared = 0
    for _ in range(SEEDS):
        seed = random.randrange(1 << 32)
        run = uuid4().hex[:10]
        for lab in labs:
            lab.start_run()
            lab.run = run
        sides = tuple(sequences.World(lab) for lab in labs)
        alike, different = compare(sides, sequences.Draws(random.Random(seed)), steps=STEPS)
        compared += alike
        assert not different, f"seed {seed}:\n" + "\n".join(different)
        for lab in labs:
            lab.close()
    assert compared > SEEDS * STEPS / 2, "Kafka itself was stuck most of the time"
