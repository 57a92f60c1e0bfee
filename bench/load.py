"""Load from Kafka's own perf tools, and what they print."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
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

    def produce(self, bootstrap: str, topic: str, *, records: int, record_bytes: int, properties: list[str]) -> float:
        """Write as fast as it goes; returns records a second."""
        out = self.run(
            "ProducerPerformance", "--bootstrap-server", bootstrap, "--topic", topic, "--throughput", "-1",
            "--num-records", str(records), "--record-size", str(record_bytes), "--command-property", *properties,
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

    def end_to_end(self, bootstrap: str, topic: str, *, records: int) -> tuple[float, float, float]:
        """One record at a time there and back; returns mean, p99 and p99.9 in milliseconds."""
        out = self.run("EndToEndLatency", bootstrap, topic, str(records), "all", "100")
        mean = re.search(r"Avg latency: ([\d.]+) ms", out)
        tail = re.search(r"99th = (\d+), 99.9th = (\d+)", out)
        if mean is None or tail is None:
            raise RuntimeError(f"EndToEndLatency: {out[-500:]}")
        return float(mean[1]), float(tail[1]), float(tail[2])
