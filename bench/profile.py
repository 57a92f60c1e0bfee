"""`make profile`: where a broker's time goes under each load, as flame graphs in docs/profiles.

`perf` sees every thread and the kernel, and knows nothing of Python; `py-spy` sees the Python functions of the event
loop's thread with what they call, and no thread that Rust started. So loads of bytes are profiled by the first, those
that Python answers by the second.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Final

from bench import memory
from bench.load import Tools
from bench.scenarios import SCENARIOS
from bench.servers import Ottla

SAMPLES_A_SECOND: Final = 199
"""No divisor of what else happens at regular times."""
STACK_BYTES: Final = 8192
"""Of each sample's stack, for `perf` to unwind: Rust's release builds have no frame pointers."""
NARROWEST_PERCENT: Final = 0.8
FLAME_GRAPH: Final = ("--minwidth", str(NARROWEST_PERCENT), "--deterministic", "--colors", "rust")


class Recorder(ABC):
    """Samples a process from `__enter__` to `draw`."""

    def __init__(self, pid: int, directory: Path) -> None:
        self.recording = directory / "recording"
        self._command = self.command(pid)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self, pid: int) -> list[str]:
        """What records until it is interrupted."""

    @abstractmethod
    def folded(self) -> bytes:
        """The recording, a stack and its count in a line."""

    def __enter__(self) -> Recorder:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            _, complaint = self._process.communicate(timeout=120)
            if not self.recording.exists():
                raise RuntimeError(f"{self._command[0]}: {complaint.decode(errors='replace')[-1000:]}")

    def draw(self, title: str, path: Path) -> None:
        """Write the flame graph. Raises: CalledProcessError."""
        command = ["inferno-flamegraph", "--title", title, *FLAME_GRAPH]
        drawn = subprocess.run(command, input=self.folded(), check=True, capture_output=True)
        path.write_bytes(drawn.stdout)


class Perf(Recorder):
    def command(self, pid: int) -> list[str]:
        events = ["-e", "cpu-clock", "-F", str(SAMPLES_A_SECOND), "--call-graph", f"dwarf,{STACK_BYTES}"]
        return ["perf", "record", *events, "-p", str(pid), "-o", str(self.recording)]

    def folded(self) -> bytes:
        script = subprocess.run(
            ["perf", "script", "--no-inline", "-i", str(self.recording)], check=True, capture_output=True
        )
        collapsed = subprocess.run(["inferno-collapse-perf"], input=script.stdout, check=True, capture_output=True)
        return collapsed.stdout


class PySpy(Recorder):
    def command(self, pid: int) -> list[str]:
        py_spy = str(Path(sys.executable).with_name("py-spy"))
        how = ["--native", "--format", "raw", "--rate", str(SAMPLES_A_SECOND), "--duration", "600"]
        return [py_spy, "record", *how, "--pid", str(pid), "--output", str(self.recording)]

    def folded(self) -> bytes:
        return self.recording.read_bytes()


PROFILED: Final[dict[str, type[Recorder]]] = {
    "100 B records": Perf,
    "1000 B records": Perf,
    "1000 B records gzip": Perf,
    "500 small producers": Perf,
    "end to end": Perf,
    "offset commits": PySpy,
    "consume-transform-produce": PySpy,
    "50 members join at once, KIP-848": PySpy,
    "heartbeats of 1000 members, classic": PySpy,
}
"""The profiler of each load."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.profile", description=__doc__)
    parser.add_argument("--jars", type=Path, required=True, help="directory with Apache Kafka's jars")
    parser.add_argument("--only", nargs="*", default=list(PROFILED), help="loads to profile (default: all)")
    parser.add_argument("--out", type=Path, default=Path("docs/profiles"), help="where the pictures go")
    args = parser.parse_args()
    missing = [tool for tool in ("perf", "inferno-collapse-perf", "inferno-flamegraph") if shutil.which(tool) is None]
    if missing:
        parser.error(f"not found: {', '.join(missing)}")
    args.out.mkdir(parents=True, exist_ok=True)
    memory.touch_free_memory()
    for scenario in SCENARIOS:
        if scenario.name not in args.only:
            continue
        print(scenario.name, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="ottla-profile-") as directory:
            with Ottla(Path(directory) / "ottla") as server:
                recorder = PROFILED[scenario.name](server.process.pid, Path(directory))
                with recorder:
                    scenario.run(server, Tools(args.jars))
            picture = args.out / f"{scenario.name.replace(',', '').replace(' ', '-')}.svg"
            recorder.draw(f"Ottla: {scenario.name}", picture)
            print(f"  {picture}: {picture.stat().st_size >> 10} KiB", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
