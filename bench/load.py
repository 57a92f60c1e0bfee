"""Load from Kafka's own perf tools, and what they print."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

RUN_SECONDS_MAX = 300


@dataclass(frozen=True, slots=True)
class Tools:
    """Kafka's tools, run from its jars."""

    jars: Path

    def run(self, tool: str, *args: str) -> str:
        """Run a class of org.apache.kafka.tools. Raises RuntimeError with its last words."""
        command = ["java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{self.jars}/*"]
        done = subprocess.run(
            [*command, f"org.apache.kafka.tools.{tool}", *args],
            check=False, capture_output=True, text=True, timeout=RUN_SECONDS_MAX,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{tool}: {done.stdout[-500:]}{done.stderr[-1500:]}")
        return done.stdout

    def create_topic(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.run(
            "TopicCommand", "--bootstrap-server", bootstrap, "--create", "--topic", topic,
            "--partitions", str(partitions), "--replication-factor", "1",
        )  # fmt: skip

    def produce(
        self,
        bootstrap: str,
        topic: str,
        *,
        records: int,
        record_bytes: int,
        properties: list[str],
        transaction_ms: int | None = None,
    ) -> float:
        """Write as fast as it goes, in transactions of `transaction_ms` if that is given; returns records a second."""
        transactions = [] if transaction_ms is None else ["--transaction-duration-ms", str(transaction_ms)]
        out = self.run(
            "ProducerPerformance", "--bootstrap-server", bootstrap, "--topic", topic, "--throughput", "-1",
            "--num-records", str(records), "--record-size", str(record_bytes), *transactions,
            "--command-property", *properties,
        )  # fmt: skip
        found = re.findall(rf"^{records} records sent, ([\d.]+) records/sec", out, re.MULTILINE)
        if not found:
            raise RuntimeError(f"ProducerPerformance: {out[-500:]}")
        return float(found[-1])

    def consume(self, bootstrap: str, topic: str, *, records: int) -> float:
        """Read from the start; returns MiB a second of fetching, without the join."""
        out = self.run(
            "ConsumerPerformance", "--bootstrap-server", bootstrap, "--topic", topic, "--num-records", str(records)
        )
        row = out.strip().splitlines()[-1].split(", ")
        if int(row[4]) < records:
            raise RuntimeError(f"{row[4]} of {records} records came")
        return float(row[8])

    def copy(
        self, bootstrap: str, source: str, target: str, *, records: int, transaction_records: int, name: str
    ) -> tuple[float, int]:
        """Consume a partition, produce what was read and commit how far, in one transaction after the other.

        Args:
            name: Of the group, which goes on where it was, and the transactional id.
        Returns:
            Records a second, from the first transaction to the last but one, and the number of transactions.
        """
        return copied(
            self.run(
                "TransactionalMessageCopier", "--broker-list", bootstrap, "--input-topic", source,
                "--input-partition", "0", "--output-topic", target, "--max-messages", str(records),
                "--transaction-size", str(transaction_records), "--consumer-group", name, "--transactional-id", name,
            ),
            records,
        )  # fmt: skip

    def share(self, bootstrap: str, topic: str, *, group: str, records: int) -> float:
        """Read and accept records as a share group of one consumer; returns MiB a second, without the join."""
        return shared(
            self.run(
                "ShareConsumerPerformance", "--bootstrap-server", bootstrap, "--topic", topic, "--group", group,
                "--num-records", str(records), "--timeout", str(RUN_SECONDS_MAX * 1000),
                "--show-detailed-stats", "--reporting-interval", "250",
            ),
            records,
        )  # fmt: skip

    def end_to_end(self, bootstrap: str, topic: str, *, records: int) -> tuple[float, float, float]:
        """One record at a time there and back; returns mean, p99 and p99.9 in milliseconds."""
        out = self.run("EndToEndLatency", bootstrap, topic, str(records), "all", "100")
        mean = re.search(r"Avg latency: ([\d.]+) ms", out)
        tail = re.search(r"99th = (\d+), 99.9th = (\d+)", out)
        if mean is None or tail is None:
            raise RuntimeError(f"EndToEndLatency: {out[-500:]}")
        return float(mean[1]), float(tail[1]), float(tail[2])


def copied(out: str, records: int) -> tuple[float, int]:
    """What TransactionalMessageCopier's progress says: records a second, and the number of transactions.

    It reports before each transaction and once at the end, some time after the last one. Raises: RuntimeError.
    """
    reports = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if not reports or reports[-1]["totalProcessed"] < records:
        raise RuntimeError(f"TransactionalMessageCopier: {out[-500:]}")
    loops: list[tuple[datetime, int]] = []
    for report in reports:
        done = int(report["totalProcessed"])
        if report["stage"] == "ProcessLoop" and (not loops or done > loops[-1][1] or done == 0):
            if done == 0:
                loops.clear()  # nothing was read yet
            loops.append((datetime.strptime(report["time"], "%Y/%m/%d %H:%M:%S:%f"), done))
    (began, _), (ended, done) = loops[0], loops[-1]
    if done == 0:
        raise RuntimeError("TransactionalMessageCopier: one transaction is too little to measure")
    return done / (ended - began).total_seconds(), len(loops)


def shared(out: str, records: int) -> float:
    """What ShareConsumerPerformance's reports say: MiB a second from the first records on. Raises: RuntimeError."""
    reports: list[tuple[datetime, float]] = []
    rows = [line.split(", ") for line in out.splitlines() if re.match(r"\d{4}-", line)]
    for _, at, mib, *_ in rows[:-1]:
        reports.append((datetime.strptime(at, "%Y-%m-%d %H:%M:%S:%f"), float(mib)))
    if len(reports) < 2 or int(rows[-1][5]) < records:
        raise RuntimeError(f"ShareConsumerPerformance: {out[-500:]}")
    (began, before), (ended, after) = reports[0], reports[-1]
    return (after - before) / (ended - began).total_seconds()
