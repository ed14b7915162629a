"""The command line: one parser, errors in one line, and the exit codes.

0 done, 1 an error, 2 wrong arguments, 130 interrupted (Ctrl-C), 141 the reader of a pipe has gone,
143 terminated (SIGTERM).
"""

import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import islice
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from faigfast.cli.options import COMMANDS
from faigfast.cli.signals import exit_code, no_lost_interrupt, terminable
from faigfast.version import __version__

# Any other exception is a bug of faigfast.
EXPECTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)


class _Parser(ArgumentParser):
    """Reports wrong arguments in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        _complain(f"{' '.join(message.split())} (faigfast --help, faigfast COMMAND --help)")
        raise SystemExit(2)


def build_parser() -> ArgumentParser:
    """Make the parser of all commands; each takes `--config FILE.yaml` and `--print_config`."""
    parser = _Parser(
        prog="faigfast",
        version=__version__,
        description="Filter attribution with integrated gradients (FAIG): which filters of a "
        "restoration network remove which degradation.",
    )
    commands = parser.add_subcommands(dest="command", title="commands")
    for name, (text, add_arguments) in COMMANDS.items():
        command = _Parser(description=text)
        command.add_argument(
            "--config",
            action="config",
            help="YAML file of options; what stands on the command line overrides it",
        )
        add_arguments(command.add_argument)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        commands.add_subcommand(name, command, help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after "faigfast"; None: the arguments of the process.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    SystemExit
        After `--help`, `--version` and `--print_config`, and with code 2 for wrong arguments.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = False
    try:
        try:
            with terminable(), no_lost_interrupt(), warnings.catch_warnings():
                warnings.showwarning = _note_warning  # type: ignore[assignment]
                _check_words(words)
                arguments = build_parser().parse_args(_config_first(words))
                options = arguments[arguments.command]
                debug = options.debug
                import_module(f"faigfast.cli.{arguments.command}").run(options, words)
        finally:
            sys.stdout.flush()  # here, where a broken pipe is caught
        return 0
    except KeyboardInterrupt as stop:
        if argv is None:  # the process ends: half-made objects print no errors
            sys.unraisablehook = lambda _: None
        print(f"faigfast: interrupted{f': {stop}' if stop.args else ''}", file=sys.stderr)
        return exit_code(stop)
    except BrokenPipeError:
        # Python flushes once more when it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if debug:
            traceback.print_exc()
        elif isinstance(error, EXPECTED):
            _complain(_describe(error))
        else:
            _complain(f"{type(error).__name__}: {_describe(error)} (--debug shows where)")
        return 1


def _check_words(words: Sequence[str]) -> None:
    """Refuse words that no manifest could hold, before anything is computed."""
    for word in words:
        if word != word.encode(errors="ignore").decode():
            raise ValueError(f"{word!r} is not valid UTF-8; expected names that are")


def _config_first(words: Iterable[str]) -> list[str]:
    """Move `--config` behind the command's name: the parser lets the later word win."""
    config: list[str] = []
    others: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--config":
            value = list(islice(remaining, 1))
            (config if value else others).extend([word, *value])
        elif word.startswith("--config="):
            config.append(word)
        else:
            others.append(word)
    return [*others[:1], *config, *others[1:]]


def _describe(error: Any) -> str:
    """Give the message of an exception in one line, without error numbers."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _note_warning(message: Warning | str, *_: Any) -> None:
    """Print a warning in one line, without the place in the code."""
    print(f"faigfast: {' '.join(str(message).split())}", file=sys.stderr)


def _complain(message: str) -> None:
    print(f"faigfast: error: {message}", file=sys.stderr)
