"""`ottla cluster`."""

from __future__ import annotations

from typing import Any

import typer

from ottla.cli.clients import open_admin
from ottla.cli.options import BOOTSTRAP_DEFAULT, AsJson, Bootstrap
from ottla.cli.output import print_json, print_rows, run

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Show brokers and log directories.")


@app.command()
def describe(bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT, as_json: AsJson = False) -> None:
    """Show the cluster's id and its brokers.

    Example: ottla cluster describe -b localhost:9092
    """

    async def main() -> dict[str, Any]:
        async with open_admin(bootstrap_server) as admin:
            found = await admin.describe_cluster()
            brokers = [{"id": b.node_id, "host": b.host, "port": b.port, "rack": b.rack} for b in found.brokers]
            return {"cluster_id": found.cluster_id, "controller_id": found.controller_id, "brokers": brokers}

    cluster = run(main)
    if as_json:
        print_json(cluster)
        return
    print(f"cluster {cluster['cluster_id']}, controller {cluster['controller_id']}")
    print_rows(cluster["brokers"], ["id", "host", "port", "rack"], as_json=False, empty="There are no brokers.")


@app.command("log-dirs")
def log_dirs(bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT, as_json: AsJson = False) -> None:
    """Show where brokers keep partitions and how much room is left.

    Example: ottla cluster log-dirs
    """

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            return [
                {
                    "broker": d.broker_id,
                    "path": d.path,
                    "error": d.error.name,
                    "partitions": d.partitions_count,
                    "partitions_bytes": d.partitions_bytes,
                    "total_bytes": d.total_bytes,
                    "usable_bytes": d.usable_bytes,
                }
                for d in await admin.describe_log_dirs()
            ]

    columns = ["broker", "path", "error", "partitions", "partitions_bytes", "total_bytes", "usable_bytes"]
    print_rows(run(main), columns, as_json=as_json, empty="There are no log directories.")
