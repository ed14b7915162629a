"""Options of `faigfast sweep`, without the imports that it needs."""

from faigfast.cli.common_options import Add, quiet

HELP = (
    "Attribute every combination of pairs, degradations, settings and images of a plan. "
    "Interrupted, the same command goes on; a larger plan computes what is new."
)


def sweep(add: Add) -> None:
    """Options of the command."""
    add("plan", type=str, help="YAML file with the plan; or the word status: how far OUTPUT is")
    add("output", type=str, metavar="OUTPUT", help="folder that receives the results")
    add(
        "--dry_run",
        action="store_true",
        help="only count units and bytes, and estimate the time from three images; write nothing",
    )
    add("--engine", choices=["local", "ray"], default="local", help="processes, or actors of Ray")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="number of workers; default as many as the processors allow; 0: this process alone",
    )
    add(
        "--address",
        type=str,
        help="of a running cluster of Ray: auto, HOST:PORT or ray://HOST:PORT",
    )
    add(
        "--worker_memory",
        type=str,
        metavar="SIZE",
        help="memory that Ray reserves for a worker, such as 4GB",
    )
    add(
        "--unit_timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="a worker that takes longer for a unit counts as hung and is replaced; 0: never",
    )
    add(
        "--retries",
        type=int,
        default=4,
        metavar="N",
        help="times that a unit is tried again after a crash, or an error that may pass",
    )
    add(
        "--max_failures",
        type=int,
        default=100,
        metavar="N",
        help="images that may fail, and are reported, before the sweep stops",
    )
    add(
        "--verify",
        action="store_true",
        help="read every finished file again and compare its digest",
    )
    quiet(add)
