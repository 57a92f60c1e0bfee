"""Where the command `ottla` starts.

A broker with plain options starts from here, without the libraries that explain a command line: importing them takes
a third of what a start takes. Everything else, and whatever has to be explained, goes to `ottla.cli.main`.
"""

from __future__ import annotations

import contextlib
import sys


def main() -> None:
    """The entry point."""
    if sys.argv[1:2] == ["serve"]:
        from ottla.broker.command_line import Unclear, parse

        with contextlib.suppress(Unclear):  # `ottla.cli.serve` will say what is unclear
            settings = parse(sys.argv[2:])
            from ottla.broker.foreground import run

            sys.exit(run(settings))
    from ottla.cli.main import main as explain_or_run

    explain_or_run()
