"""`python -m ottla.broker`: a broker in the foreground. `ottla serve` is the same, and explains itself."""

from __future__ import annotations

import sys

from ottla.broker.command_line import Unclear, parse
from ottla.broker.foreground import run

if __name__ == "__main__":
    try:
        settings = parse(sys.argv[1:])
    except Unclear as unclear:
        print(f"cannot start: {unclear}", file=sys.stderr)
        sys.exit(2)
    sys.exit(run(settings))
