"""Write docs/compatibility.md: what is advertised, what the clients' tests showed, and where defaults differ.

`python -m tests.compat.report`, after `make compat`; `--check` fails when the committed page says something else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ottla.broker.dispatch import ADVERTISED
from ottla.common.config import DEVIATIONS
from ottla.protocol.versions import API_VERSIONS, ApiKey
from tests.golden.deviations import DEVIATIONS as ANSWERS_THAT_DIFFER

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
RESULTS = ROOT / ".tools" / "compat-results.json"
KAFKA = "4.3.1"


def name_of(api: ApiKey) -> str:
    return "".join(part.title() for part in api.name.split("_"))


def apis() -> Iterator[str]:
    yield "| key | API | Ottla | Kafka |"
    yield "|---|---|---|---|"
    for api, (low, high) in API_VERSIONS.items():
        ours = ADVERTISED.get(api)
        yield f"| {int(api)} | {name_of(api)} | {f'{ours[0]} to {ours[1]}' if ours else ''} | {low} to {high} |"


def clients() -> Iterator[str]:
    results = json.loads(RESULTS.read_text())
    yield "| client | version | passed | what |"
    yield "|---|---|---|---|"
    for name, found in sorted(results.items(), key=lambda item: item[0].lower()):
        outcomes: dict[str, str] = found["outcomes"]
        passed = [phrase for phrase, outcome in outcomes.items() if outcome == "passed"]
        failed = [phrase for phrase, outcome in outcomes.items() if outcome == "failed"]
        what = "; ".join(passed) + (f" **Failed:** {'; '.join(failed)}" if failed else "")
        yield f"| {name} | {found['version']} | {len(passed)} of {len(passed) + len(failed)} | {what} |"


def deviations() -> Iterator[str]:
    yield "| key | Ottla | Kafka | why |"
    yield "|---|---|---|---|"
    for deviation in DEVIATIONS:
        kafka = "must be set" if deviation.kafka is None else f"`{deviation.kafka}`"
        yield f"| `{deviation.name}` | `{deviation.ottla}` | {kafka} | {deviation.reason} |"


def answers() -> Iterator[str]:
    yield "| asked by | why the answer differs |"
    yield "|---|---|"
    for deviation in ANSWERS_THAT_DIFFER:
        yield f"| `{deviation.probe}` | {deviation.reason} |"


def page() -> str:
    parts = [
        "# Compatibility",
        f"Compared with Apache Kafka {KAFKA}. Written by `python -m tests.compat.report` from what the broker "
        "advertises and from the last `make compat`.",
        "## Clients",
        "Unmodified clients and tools, run by `tests/compat` against a broker on its defaults.",
        "\n".join(clients()),
        "## APIs",
        "The versions that ApiVersions names. An empty field means that the API is not served.",
        "\n".join(apis()),
        "## Defaults that differ on purpose",
        "\n".join(deviations()),
        "`ottla serve` without options listens on `127.0.0.1:9092` (Kafka: on every address), because nothing is "
        "authenticated so far, and keeps its data in `./ottla-data` (Kafka: `/tmp/kafka-logs`), which no restart of "
        "the machine empties. Without `advertised.listeners` clients are told the address that they connected to "
        "(Kafka: the name of the host), which is right wherever addresses are not translated. On a node that was "
        "formatted as a lone broker internal topics have one replica, whatever `offsets.topic.replication.factor` and "
        "its like say, because three, Kafka's default, could not be had there.",
        "## Answers that differ on purpose",
        "Of the odd requests in `tests/golden`, which keeps Apache Kafka's answers to them, these are answered "
        "otherwise. Texts for humans are our own everywhere.",
        "\n".join(answers()),
        "Beside these, two answers come sooner: a topic that a Metadata request creates is in the answer to that "
        "request, where Kafka says UNKNOWN_TOPIC_OR_PARTITION until it is asked again (so a client that lists a topic "
        "which it has just deleted, and lets it be created, sees it at once), and FindCoordinator answers when the "
        "coordinator's topic is served, where Kafka says COORDINATOR_NOT_AVAILABLE while it is made.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page says something else")
    arguments = parser.parse_args()
    text = page()
    if not arguments.check:
        PAGE.write_text(text)
        return 0
    if PAGE.read_text() != text:
        print("docs/compatibility.md is out of date: python -m tests.compat.report", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
