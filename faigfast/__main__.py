"""`python -m faigfast` and the script `faigfast`."""

import sys


def main() -> int:
    """Run the command line and return its exit code; 2 where jsonargparse is not installed."""
    try:
        from faigfast.cli.main import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("jsonargparse", "yaml"):
            raise
        print(
            f"faigfast: error: the command line needs {error.name}: pip install 'faigfast[cli]'",
            file=sys.stderr,
        )
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
