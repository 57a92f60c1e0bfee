"""What a virtual machine does with memory that nobody has used yet: its host finds each page when it is first touched.

That takes longer than all that a broker does with the bytes it writes there, counts as the broker's CPU time, and says
nothing about it. So all free memory is touched before a broker starts. A host that takes back what is free (free page
reporting: a sixteenth of it every two seconds) finds it anew, so as much as a load can need is touched again before
each: what was freed last is used first.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Final

KEPT_BACK_BYTES: Final = 1 << 30
"""Left alone, so that nothing is pushed out."""
LOAD_BYTES: Final = 4 << 30
"""More than any load writes and its programs use."""


def free_bytes(meminfo: str) -> int:
    """What nothing is in, according to the text of /proc/meminfo."""
    kib = next(line.split()[1] for line in meminfo.splitlines() if line.startswith("MemFree:"))
    return int(kib) * 1024


def touch(size_bytes: int) -> None:
    """Have the kernel fill so many bytes, and give them back."""
    if size_bytes > 0:
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def touch_free_memory(most_bytes: int = sys.maxsize) -> None:
    """Touch free memory, in a process of its own: the kernel ends that one if it is too much."""
    subprocess.run([sys.executable, "-m", "bench.memory", str(most_bytes)], check=False)


if __name__ == "__main__":
    touch(min(int(sys.argv[1]), free_bytes(Path("/proc/meminfo").read_text()) - KEPT_BACK_BYTES))
