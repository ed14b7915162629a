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
from typing import Any

from faigfast.cli.interruption import kept_text
from faigfast.cli.option_names import with_options
from faigfast.cli.other_run import forget_unused, name_options
from faigfast.cli.output import without_empty_folders
from faigfast.cli.parser import build_parser, complain
from faigfast.cli.signals import exit_code, no_lost_interrupt, terminable
from faigfast.cli.suggestions import with_hint

# Any other exception is a bug of faigfast.
EXPECTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)


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
    command, options = "", None
    try:
        try:
            with terminable(), no_lost_interrupt(), warnings.catch_warnings():
                warnings.showwarning = _note_warning  # type: ignore[assignment]
                _check_words(words)
                arguments = build_parser().parse_args(_config_first(words))
                command = arguments.command
                options = arguments[command]
                with without_empty_folders(options):
                    try:
                        import_module(f"faigfast.cli.{command}").run(options, words)
                    finally:
                        forget_unused(options)
        finally:
            sys.stdout.flush()  # here, where a broken pipe is caught
        return 0
    except KeyboardInterrupt as stop:
        if argv is None:  # the process ends: half-made objects print no errors
            sys.unraisablehook = lambda _: None
        text = str(stop) or (kept_text(command, options) if options else "nothing was begun")
        print(f"faigfast: interrupted: {text}", file=sys.stderr)
        return exit_code(stop)
    except BrokenPipeError:
        # Python flushes once more when it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if options and options.debug:
            traceback.print_exc()
        elif isinstance(error, EXPECTED):
            message = name_options(_describe(error), options)
            complain(with_hint(with_options(message, options)))
        else:
            complain(f"{type(error).__name__}: {_describe(error)} (--debug shows where)")
        return 1


def _check_words(words: Sequence[str]) -> None:
    """Refuse words that no manifest could hold, before anything is computed."""
    for word in words:
        if word != word.encode(errors="ignore").decode():
            raise ValueError(f"{word!r} is not valid UTF-8; expected names that are")


def _config_first(words: Iterable[str]) -> list[str]:
    """Move `--config` behind the command's name: the parser lets the later word win.

    `--print_config` becomes `--print-config`: jsonargparse gives that option one name alone. So
    does `--print_shtab`, which is an option of some versions of jsonargparse.
    """
    config: list[str] = []
    others: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word.startswith(("--print_config", "--print_shtab")):
            word = word.replace("_", "-", 1)
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
