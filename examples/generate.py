"""Write the click log and the payment log of `ottla demo` into a directory: `python examples/generate.py [DIR]`."""

from __future__ import annotations

import sys
from pathlib import Path

from ottla.cli.sample_logs import write_sample_logs

if __name__ == "__main__":
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for path in write_sample_logs(directory):
        print(path)
