"""`ottla check DIR`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ottla.cli.output import print_json
from ottla.offline.check import Summary, check_directory
from ottla.offline.finding import Finding, Severity

app = typer.Typer(add_completion=False)


@app.command()
def check(
    directory: Annotated[
        Path, typer.Argument(help="A data directory, or one partition's.", exists=True, file_okay=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read every batch and index of a directory and say exactly what is damaged, and where.

    Changes nothing. The exit status is 1 if records are damaged, 0 otherwise: a torn tail is normal after a crash.

    Example: ottla check ./data
    """
    summary = Summary()
    findings = list(check_directory(directory, summary))
    damaged = any(f.severity is Severity.DAMAGE for f in findings)
    if as_json:
        print_json({**asdict(summary), "damaged": damaged, "findings": [_row(f) for f in findings]})
    else:
        for finding in findings:
            where = "" if finding.position is None else f" at byte {finding.position}"
            print(f"{finding.severity.value}: {finding.path}{where}: {finding.message}")
        print(
            f"{summary.partitions} partitions, {summary.segments} segments, {summary.batches} batches, "
            f"{summary.records} records, {summary.size_bytes} bytes: {'DAMAGED' if damaged else 'intact'}"
        )
    if damaged:
        raise typer.Exit(1)


def _row(finding: Finding) -> dict[str, object]:
    return {
        "severity": finding.severity.value,
        "path": str(finding.path),
        "position": finding.position,
        "message": finding.message,
    }
