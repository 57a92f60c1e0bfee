"""Apache Kafka's command-line tools, run one after the other in one JVM (`java/Tools.java`)."""

from __future__ import annotations

import subprocess
import threading
from base64 import b64decode, b64encode
from types import TracebackType

from tests.compat.batteries import JAVA

CLASSES = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "share-groups": "org.apache.kafka.tools.consumer.group.ShareGroupCommand",
    "groups": "org.apache.kafka.tools.GroupsCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "console-share-consumer": "org.apache.kafka.tools.consumer.ConsoleShareConsumer",
    "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
    "share-consumer-perf-test": "org.apache.kafka.tools.ShareConsumerPerformance",
    "e2e-latency": "org.apache.kafka.tools.EndToEndLatency",
    "verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
    "verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "verifiable-share-consumer": "org.apache.kafka.tools.VerifiableShareConsumer",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "features": "org.apache.kafka.tools.FeatureCommand",
    "cluster": "org.apache.kafka.tools.ClusterTool",
    "leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "replica-verification": "org.apache.kafka.tools.ReplicaVerificationTool",
    "dump-log": "org.apache.kafka.tools.DumpLogSegments",
}


def run_alone(tool: str, *arguments: str, timeout_s: float = 90) -> str:
    """Run a tool in a JVM of its own, for those that finish their work in a shutdown hook of the runtime."""
    command = [*JAVA, CLASSES[tool], *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout_s).stdout


class JavaTools:
    """A JVM that waits for commands."""

    def __enter__(self) -> JavaTools:
        self.process = subprocess.Popen([*JAVA, "Tools"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def run(
        self,
        tool: str,
        *arguments: str,
        text: str = "",
        status: int | None = 0,
        complaints: bool = False,
        timeout_s: float = 90,
    ) -> str:
        """Run one tool and return what it printed.

        Args:
            text: Its standard input.
            status: The exit status to insist on, None for any.
            complaints: Return standard error, too, as always where a failure is not excluded.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        fields = [CLASSES[tool], text, *arguments]
        guard = threading.Timer(timeout_s, self.process.kill)
        guard.start()
        try:
            self.process.stdin.write(" ".join(b64encode(field.encode()).decode() for field in fields) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        finally:
            guard.cancel()
        assert answer, f"{tool} {' '.join(arguments)}: no answer within {timeout_s} s"
        exit_status, out, err = answer.rstrip("\n").split(" ")
        printed, complained = b64decode(out).decode(), b64decode(err).decode()
        assert status is None or int(exit_status) == status, f"exit status {exit_status}\n{printed}\n{complained}"
        return printed + complained if complaints or status != 0 else printed
